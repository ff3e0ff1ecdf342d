package augment

import (
	"fmt"
	"image"

	"sela/stages/internal/imageio/resample"
)

// Worker augments one image at a time in buffers it owns and reuses: once it
// has seen the largest crop it allocates nothing. It is not safe for concurrent
// use; workers of one spec share nothing that changes.
type Worker struct {
	spec    Spec
	hues    *hueTables
	resizer resample.Resizer
	upright []byte // before the rotation
}

// NewWorker validates the spec and returns a worker for one goroutine.
func (s Spec) NewWorker() (*Worker, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Worker{spec: s.withDefaults(), hues: hues()}, nil
}

// size returns the size of the result.
func (w *Worker) size(c Choices) image.Point {
	if w.spec.Size != (image.Point{}) {
		return w.spec.Size
	}
	return c.Crop.Size()
}

// Apply does to an image what the choices say, which may come from [Spec.Draw]
// or be written by hand. src is the image: width × height pixels of interleaved
// RGB, of which only c.Crop is read. dst takes the result, the size of the spec
// or, if that is zero, of the crop; it must not overlap src. An error means
// that the choices or the sizes make no sense, and dst is then untouched.
func (w *Worker) Apply(dst, src []byte, width, height int, c Choices) error {
	size := w.size(c)
	if err := w.check(dst, src, width, height, size, c); err != nil {
		return fmt.Errorf("augment: %w", err)
	}
	pix := dst
	if c.Angle != 0 {
		if cap(w.upright) < len(dst) {
			w.upright = make([]byte, len(dst))
		}
		pix = w.upright[:len(dst)]
	}
	// The crop's border is the border of what is scaled: nothing beyond it is
	// averaged in.
	w.resizer.Resize(pix, 3*size.X, src[3*(c.Crop.Min.Y*width+c.Crop.Min.X):], 3*width, resample.Scaling{
		From: c.Crop.Size(), To: size, Keep: image.Rectangle{Max: size}, Filter: w.spec.Filter, Order: w.spec.Order,
	})
	if c.Gray {
		grayscale(pix)
	}
	w.jitter(pix, c)
	if c.Flip {
		mirror(pix, size.X)
	}
	if c.Angle != 0 {
		rotate(dst, pix, size.X, size.Y, c.Angle, w.spec.RotateFilter)
	}
	return nil
}

func (w *Worker) jitter(pix []byte, c Choices) {
	for _, a := range c.Jitter {
		switch a.Op {
		case Brightness:
			towards(pix, 0, a.Factor)
		case Contrast:
			towards(pix, mean(pix), a.Factor)
		case Saturation:
			if !c.Gray { // which stays as it is
				saturate(pix, a.Factor)
			}
		case Hue:
			if !c.Gray {
				w.hues.turnHue(pix, a.Factor)
			}
		case "":
			return
		}
	}
}

func (w *Worker) check(dst, src []byte, width, height int, size image.Point, c Choices) error {
	if width < 1 || height < 1 || len(src) != 3*width*height {
		return fmt.Errorf("an image of %d×%d pixels in %d bytes", width, height, len(src))
	}
	if c.Crop.Empty() || !c.Crop.In(image.Rect(0, 0, width, height)) {
		return fmt.Errorf("the crop %v is not a part of the image, %d×%d pixels", c.Crop, width, height)
	}
	if len(dst) != 3*size.X*size.Y {
		return fmt.Errorf("room for %d bytes, the result is %d×%d pixels", len(dst), size.X, size.Y)
	}
	// The comparisons are false for NaN.
	for _, a := range c.Jitter {
		low, high := float32(0), float32(maxFactor)
		switch a.Op {
		case Hue:
			low, high = -0.5, 0.5
		case Brightness, Contrast, Saturation, "":
		default:
			return fmt.Errorf("an unknown adjustment %q", a.Op)
		}
		if !(a.Factor >= low && a.Factor <= high) {
			return fmt.Errorf("the factor of %s is %v: want %v to %v", a.Op, a.Factor, low, high)
		}
	}
	if !(c.Angle >= -maxAngle && c.Angle <= maxAngle) {
		return fmt.Errorf("the angle is %v: want −%d to %d degrees", c.Angle, maxAngle, maxAngle)
	}
	return nil
}
