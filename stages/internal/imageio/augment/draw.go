package augment

import (
	"image"
	"math"
)

// Op is a step of the colour jitter.
type Op string

const (
	Brightness Op = "brightness" // blend with black
	Contrast   Op = "contrast"   // blend with the mean gray
	Saturation Op = "saturation" // blend with the gray image
	Hue        Op = "hue"        // turn of the colour circle
)

// Adjustment is one step of the colour jitter. Factor is the weight of the
// image in the blend, 0 to 1000, or for a hue the turn, −½ to ½. Neutral
// factors are not skipped: a hue that stays still goes through 8-bit HSV.
type Adjustment struct {
	Op     Op
	Factor float32
}

// Choices are everything that chance decides about one image. They are plain
// data, which can be printed, stored and written by hand.
type Choices struct {
	// Crop is the part of the source image that is used. No pixel outside is
	// read.
	Crop image.Rectangle
	Gray bool
	// Jitter holds the steps in the order in which they are taken. It ends at
	// the first whose Op is empty.
	Jitter [4]Adjustment
	Flip   bool
	Angle  float32 // in degrees, counter-clockwise, −45 to 45
}

// What the blocks of four words are for.
const (
	blockSwitches = iota // gray, flip, angle, order of the jitter
	blockFactors         // brightness, contrast, saturation, hue
	blockCrop            // area, ratio, top, left of the first try; then the second …
)

// tries is how often a part is drawn before the central one is taken.
const tries = 10

// Draw returns the choices for an image of the given size in pixels, both
// sides positive. The spec must be valid.
func (s Spec) Draw(k Key, width, height int) Choices {
	s = s.withDefaults()
	c := Choices{Crop: image.Rect(0, 0, width, height)}
	if s.Size != (image.Point{}) {
		c.Crop = s.crop(k, width, height)
	}
	switches := k.block(blockSwitches)
	c.Gray = float64(uniform(switches[0], 0, 1)) < s.Gray
	c.Flip = float64(uniform(switches[1], 0, 1)) < s.Flip
	if s.Rotate != 0 {
		c.Angle = uniform(switches[2], -s.Rotate, s.Rotate)
	}
	if s.Brightness != 0 || s.Contrast != 0 || s.Saturation != 0 || s.Hue != 0 {
		c.Jitter = s.jitter(k, switches[3])
	}
	return c
}

// jitter draws a factor for each step that is on, and their order: one of the
// 24 of all four steps.
func (s Spec) jitter(k Key, order uint32) (out [4]Adjustment) {
	f := k.block(blockFactors)
	blend := func(op Op, word uint32, x float64) Adjustment {
		if x == 0 {
			return Adjustment{}
		}
		return Adjustment{op, uniform(word, max(0, 1-x), 1+x)}
	}
	all := [4]Adjustment{
		blend(Brightness, f[0], s.Brightness),
		blend(Contrast, f[1], s.Contrast),
		blend(Saturation, f[2], s.Saturation),
	}
	if s.Hue != 0 {
		all[3] = Adjustment{Hue, uniform(f[3], -s.Hue, s.Hue)}
	}
	rest := below(order, 24)
	for i := range 3 { // Fisher and Yates' shuffle
		j := i + rest%(4-i)
		rest /= 4 - i
		all[i], all[j] = all[j], all[i]
	}
	n := 0
	for _, a := range all {
		if a.Op != "" {
			out[n] = a
			n++
		}
	}
	return out
}

// crop is torchvision's search: a part of random area and shape that fits, or
// else the largest central one whose shape is within bounds.
func (s Spec) crop(k Key, width, height int) image.Rectangle {
	area := float64(width * height)
	low, high := log(s.Ratio[0]), log(s.Ratio[1])
	for try := range uint32(tries) {
		words := k.block(blockCrop + try)
		target := float64(area * float64(uniform(words[0], s.Scale[0], s.Scale[1])))
		ratio := float64(float32(exp(float64(uniform(words[1], low, high)))))
		w := round(math.Sqrt(target * ratio))
		h := round(math.Sqrt(target / ratio))
		if w > 0 && w <= width && h > 0 && h <= height {
			top, left := below(words[2], height-h+1), below(words[3], width-w+1)
			return image.Rect(left, top, left+w, top+h)
		}
	}
	w, h := width, height
	switch shape := float64(width) / float64(height); {
	case shape < s.Ratio[0]:
		h = max(1, round(float64(w)/s.Ratio[0]))
	case shape > s.Ratio[1]:
		w = max(1, round(float64(h)*s.Ratio[1]))
	}
	left, top := (width-w)/2, (height-h)/2
	return image.Rect(left, top, left+w, top+h)
}

// round rounds halves to even, as Python's round does.
func round(x float64) int { return int(math.RoundToEven(x)) }
