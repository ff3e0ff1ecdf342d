package evaluate

import (
	"fmt"
	"math"
)

// Pooling makes the features of a map [C, H, W]: each channel is cut into n×n
// windows, of which the i-th goes from ⌊i·H/n⌋ to ⌈(i+1)·H/n⌉, and its mean or
// largest value there is a feature. Tensors of other ranks are taken whole.
type Pooling struct {
	Side    int  // n; 0 takes the map whole
	Largest bool // the largest value, not the mean
}

// probeFeatures is how many features a layer's probe has at most. With it the
// convolutions of AlexNet get the 10×10, 6×6, 5×5, 5×5 and 6×6 windows, 9,216
// or 9,600 features, that linear probes of it usually have (R. Zhang, P. Isola
// and A. Efros, "Split-brain autoencoders", CVPR 2017).
const probeFeatures = 9600

// forProbe is the largest pooling of at most probeFeatures features.
func forProbe(shape []int) Pooling {
	if len(shape) != 3 {
		return Pooling{}
	}
	side := int(math.Sqrt(float64(probeFeatures) / float64(shape[0])))
	return Pooling{Side: max(1, min(side, shape[1], shape[2])), Largest: true}
}

// windows returns how many windows there are along height and width.
func (p Pooling) windows(shape []int) (h, w int) {
	if p.Side == 0 {
		return shape[1], shape[2]
	}
	return min(p.Side, shape[1]), min(p.Side, shape[2])
}

// suffix tells features of one map by different poolings apart.
func (p Pooling) suffix(shape []int) string {
	if len(shape) != 3 || p.Side == 0 {
		return ""
	}
	h, w := p.windows(shape)
	if p.Largest {
		return fmt.Sprintf(" max %d×%d", h, w)
	}
	return fmt.Sprintf(" mean %d×%d", h, w)
}

// dim returns the number of features of a tensor.
func (p Pooling) dim(shape []int) int {
	if len(shape) != 3 {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return n
	}
	h, w := p.windows(shape)
	return shape[0] * h * w
}

// apply writes the features of a tensor to dst.
func (p Pooling) apply(dst, src []float32, shape []int) {
	if len(shape) != 3 || p.Side == 0 {
		copy(dst, src)
		return
	}
	h, w := p.windows(shape)
	for c := range shape[0] {
		channel := src[c*shape[1]*shape[2] : (c+1)*shape[1]*shape[2]]
		for i := range h {
			top, bottom := i*shape[1]/h, ((i+1)*shape[1]+h-1)/h
			for j := range w {
				left, right := j*shape[2]/w, ((j+1)*shape[2]+w-1)/w
				dst[(c*h+i)*w+j] = p.window(channel, shape[2], top, bottom, left, right)
			}
		}
	}
}

func (p Pooling) window(channel []float32, width, top, bottom, left, right int) float32 {
	if p.Largest {
		best := channel[top*width+left]
		for y := top; y < bottom; y++ {
			for _, x := range channel[y*width+left : y*width+right] {
				best = max(best, x)
			}
		}
		return best
	}
	sum := 0.0
	for y := top; y < bottom; y++ {
		for _, x := range channel[y*width+left : y*width+right] {
			sum += float64(x)
		}
	}
	return float32(sum / float64((bottom-top)*(right-left)))
}
