package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"sela/pipeline"
)

// pixels are the flags that say what becomes of the pixels of images which no
// job describes.
type pixels struct {
	side      int
	filter    string
	mean, std [3]float64
}

var pixelFlagNames = []string{"resize", "filter", "mean", "std"}

var filters = []string{"bilinear", "bicubic", "box", "lanczos", "nearest"}

func (p *pixels) addFlags(f *pflag.FlagSet) {
	standard := pipeline.DefaultJob().Preprocess
	p.filter, p.mean, p.std = standard.Filter, standard.Mean, standard.Std
	f.IntVar(&p.side, "resize", 0, "--targets: pixels of an image's shorter side before the network's square is cropped from its centre; 0 = as the square, or 256 where that is 224")
	f.StringVar(&p.filter, "filter", p.filter, "--targets: resampling as Pillow's: "+strings.Join(filters, ", "))
	f.Var(numbersFlag{reflect.ValueOf(&p.mean).Elem()}, "mean", "--targets: what is subtracted from the channels R, G, B, on the scale 0 to 1")
	f.Var(numbersFlag{reflect.ValueOf(&p.std).Elem()}, "std", "--targets: what the channels are then divided by, on the scale 0 to 1")
}

// check returns what is wrong with the flags.
func (p *pixels) check() error {
	for c := range p.mean {
		if math.IsNaN(p.mean[c]) || math.IsInf(p.mean[c], 0) {
			return fmt.Errorf("--mean is %v of channel %d; it must be a finite number", p.mean[c], c)
		}
		if !(p.std[c] > 0 && p.std[c] < math.MaxFloat32) {
			return fmt.Errorf("--std is %v of channel %d; it must be positive", p.std[c], c)
		}
	}
	switch {
	case p.side < 0:
		return errors.New("--resize is a number of pixels, or 0")
	case !slices.Contains(filters, p.filter):
		return fmt.Errorf("--filter is %q; it must be one of %s", p.filter, strings.Join(filters, ", "))
	}
	return nil
}

// fit makes a job's default preprocessing give squares of a network's size.
func (p *pixels) fit(to *pipeline.Preprocess, size int) error {
	if p.side != 0 && p.side < size {
		return pipeline.BadUsage(fmt.Errorf("--resize %d is smaller than the network's images, which have %d pixels", p.side, size))
	}
	if size != to.Crop[0] {
		to.Resize, to.Crop = pipeline.Size{size}, pipeline.Size{size}
	}
	if p.side != 0 {
		to.Resize = pipeline.Size{p.side}
	}
	to.Filter, to.Mean, to.Std = p.filter, p.mean, p.std
	return nil
}
