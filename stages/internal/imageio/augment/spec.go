package augment

import (
	"errors"
	"fmt"
	"image"
	"strings"

	"sela/stages/internal/imageio/resample"
)

// Spec says which steps are taken and how far each may go. The zero value of a
// field switches its step off, or stands for the default in brackets.
type Spec struct {
	// Size is the size of the result in pixels, X the width: a random part of
	// the image is cut out and scaled to it, torchvision's RandomResizedCrop.
	// Zero keeps the whole image as it is.
	Size image.Point
	// Scale bounds the part's area relative to the image's (0.08 to 1).
	Scale [2]float64
	// Ratio bounds the part's width over its height (¾ to 4/3), which is
	// log-uniform.
	Ratio [2]float64
	// Filter and Order are those of the resize (bilinear, horizontal-first).
	Filter resample.Filter
	Order  resample.Order

	// Gray is the probability of a gray image with three equal channels.
	Gray float64
	// Brightness, Contrast and Saturation bound factors, which are uniform in
	// [max(0, 1−x), 1+x]. The steps that are on, and Hue, follow one another in
	// random order.
	Brightness, Contrast, Saturation float64
	// Hue bounds the turn of the colour circle, uniform in [−x, x] turns; at
	// most ½.
	Hue float64
	// Flip is the probability that left and right change places.
	Flip float64

	// Rotate bounds the angle in degrees, uniform in [−x, x]; at most 45. The
	// corners that come into view are black.
	Rotate float64
	// RotateFilter is nearest or bilinear (nearest, torchvision's default).
	RotateFilter resample.Filter
}

// maxSide bounds Size in pixels, as package imageio bounds a resize.
const maxSide = 1 << 14

// maxFactor bounds what a colour is multiplied with, far from where int32 ends.
const maxFactor = 1000

// maxAngle bounds rotations in degrees. Pillow treats right angles apart.
const maxAngle = 45

// withDefaults returns the spec with every field filled in; those of a step
// that is off stay empty.
func (s Spec) withDefaults() Spec {
	if s.Size != (image.Point{}) {
		if s.Scale == [2]float64{} {
			s.Scale = [2]float64{0.08, 1}
		}
		if s.Ratio == [2]float64{} {
			s.Ratio = [2]float64{3. / 4, 4. / 3}
		}
		if s.Filter == "" {
			s.Filter = resample.Bilinear
		}
		if s.Order == "" {
			s.Order = resample.HorizontalFirst
		}
	}
	if s.Rotate != 0 && s.RotateFilter == "" {
		s.RotateFilter = resample.Nearest
	}
	return s
}

// Validate reports every field that makes no sense.
func (s Spec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	// The comparisons are false for NaN.
	within := func(name string, v, high float64) {
		if !(v >= 0 && v <= high) {
			bad("%s is %v: want 0 to %v", name, v, high)
		}
	}
	if s.Size == (image.Point{}) {
		if s.Scale != [2]float64{} || s.Ratio != [2]float64{} || s.Filter != "" || s.Order != "" {
			bad("scale, ratio, filter or order are set, but nothing is cut out: set size")
		}
	} else {
		d := s.withDefaults()
		if min(d.Size.X, d.Size.Y) < 1 || max(d.Size.X, d.Size.Y) > maxSide {
			bad("size is %d×%d: want 1 to %d pixels a side", d.Size.X, d.Size.Y, maxSide)
		}
		if !(d.Scale[0] > 0 && d.Scale[0] <= d.Scale[1] && d.Scale[1] <= 1) {
			bad("scale is %v to %v: want 0 < low ≤ high ≤ 1", d.Scale[0], d.Scale[1])
		}
		if !(d.Ratio[0] >= 0.001 && d.Ratio[0] <= d.Ratio[1] && d.Ratio[1] <= 1000) {
			bad("ratio is %v to %v: want 0.001 ≤ low ≤ high ≤ 1000", d.Ratio[0], d.Ratio[1])
		}
		if !d.Filter.Valid() {
			bad("filter is %q: want bilinear, bicubic, box, lanczos or nearest", d.Filter)
		}
		if !d.Order.Valid() {
			bad("order is %q: want horizontal-first or pillow-13", d.Order)
		}
	}
	within("gray", s.Gray, 1)
	within("brightness", s.Brightness, maxFactor-1)
	within("contrast", s.Contrast, maxFactor-1)
	within("saturation", s.Saturation, maxFactor-1)
	within("hue", s.Hue, 0.5)
	within("flip", s.Flip, 1)
	within("rotate", s.Rotate, maxAngle)
	switch {
	case s.Rotate == 0 && s.RotateFilter != "":
		bad("the filter of the rotation is set, but rotate is not")
	case s.RotateFilter != "" && s.RotateFilter != resample.Nearest && s.RotateFilter != resample.Bilinear:
		bad("the filter of the rotation is %q: want nearest or bilinear", s.RotateFilter)
	}
	if len(errs) > 0 {
		return fmt.Errorf("augmentation: %w", errors.Join(errs...))
	}
	return nil
}

// revision changes whenever equal specs, keys and images give other pixels.
const revision = 1

// Canonical returns the spec in full, one step a line: two specs with equal
// text make equal images of equal images and keys.
func (s Spec) Canonical() string {
	s = s.withDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "augment %d\n", revision)
	if s.Size != (image.Point{}) {
		fmt.Fprintf(&b, "crop %dx%d scale=%v,%v ratio=%v,%v filter=%s order=%s\n", s.Size.X, s.Size.Y,
			s.Scale[0], s.Scale[1], s.Ratio[0], s.Ratio[1], s.Filter, s.Order)
	}
	fmt.Fprintf(&b, "gray %v\n", s.Gray)
	fmt.Fprintf(&b, "jitter brightness=%v contrast=%v saturation=%v hue=%v\n", s.Brightness, s.Contrast, s.Saturation, s.Hue)
	fmt.Fprintf(&b, "flip %v\n", s.Flip)
	if s.Rotate != 0 {
		fmt.Fprintf(&b, "rotate %v filter=%s\n", s.Rotate, s.RotateFilter)
	}
	return b.String()
}
