package imageio

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"sela/stages/internal/imageio/resample"
)

// Filter is a resampling filter, by its Pillow name.
type Filter = resample.Filter

// The filters.
const (
	Bilinear = resample.Bilinear
	Bicubic  = resample.Bicubic
	Box      = resample.Box
	Lanczos  = resample.Lanczos
	Nearest  = resample.Nearest
)

// Order is the order of a resize's two passes.
type Order = resample.Order

// The orders.
const (
	HorizontalFirst = resample.HorizontalFirst
	Pillow13        = resample.Pillow13
)

// Decode says how true to the file the decoded pixels are.
type Decode string

const (
	// Exact decodes every pixel that is needed, as Pillow does.
	Exact Decode = "exact"
	// Scaled has libjpeg-turbo decode a JPEG at a half, a quarter or an eighth of
	// its size where the sides are still at least twice as long as wanted: faster
	// for large photographs, and not the pixels of the exact way. It needs a
	// build with libjpeg-turbo.
	Scaled Decode = "scaled"
)

// Orientation says what becomes of an image's EXIF orientation.
type Orientation string

const (
	IgnoreOrientation Orientation = "ignore" // torchvision's loaders ignore it
	EXIFOrientation   Orientation = "exif"   // turned upright before anything else, as Pillow's ImageOps.exif_transpose
)

// Layout is the order of a tensor's axes.
type Layout string

const (
	NCHW Layout = "nchw" // three planes, red first
	NHWC Layout = "nhwc" // interleaved
)

// DType is the type of a tensor's elements.
type DType string

const (
	Float32 DType = "float32" // (x/255 − mean)/std
	Float16 DType = "float16" // the same, rounded to IEEE 754 half precision
	Uint8   DType = "uint8"   // x, not normalised
)

// Size is a height and a width in pixels, torchvision's order.
type Size struct{ Height, Width int }

// Resize says how an image is scaled. At most one of Shorter and Exact is set;
// the zero value leaves the image as it is.
type Resize struct {
	// Shorter is the wanted length of the shorter side in pixels; the longer
	// side keeps the aspect ratio, rounded down: torchvision's Resize(int).
	Shorter int
	// Exact is the wanted size whatever the aspect ratio: Resize([h, w]).
	Exact Size
}

// Limits bounds what one image may cost. Zero fields take their default. No
// side may exceed 2¹⁸ pixels, whatever the limits.
type Limits struct {
	// MaxBytes is the largest encoded image in bytes (64 MiB).
	MaxBytes int64
	// MaxPixels is the largest width × height of the encoded image, and of what
	// the first pass of a resize makes of it (2²⁶).
	MaxPixels int64
	// MaxRatio is the largest ratio of decoded (3 bytes per pixel) to encoded
	// bytes (2,000). Images of less than 16 MiB decoded are exempt: a small flat
	// image compresses further and threatens nobody.
	MaxRatio int64
}

// ratioExempt is the decoded size in bytes below which MaxRatio does not apply.
const ratioExempt = 16 << 20

// maxImageSide bounds an image's sides in pixels, and with them what a resize
// works in: up to 48 bytes of coefficients and 64 of samples per pixel of a
// side.
const maxImageSide = 1 << 18

// maxSide bounds Resize and Crop in pixels: no network takes more, and the
// fixed-point coefficients of a resize stay small.
const maxSide = 1 << 14

// Spec is the whole preprocessing of an image. The zero value of Decode,
// Orientation, Filter, Order, Layout, DType, Std and Limits stands for exact,
// ignore, bilinear, horizontal-first, nchw, float32, ones and the default limits.
type Spec struct {
	Decode      Decode
	Orientation Orientation
	Resize      Resize
	// Crop is the size of the centre crop; a side longer than the image's is
	// padded with black on both sides: torchvision's CenterCrop. The zero value
	// crops nothing.
	Crop   Size
	Filter Filter
	Order  Order
	// Mean and Std are per channel (red, green, blue) in units of 1, that is of
	// x/255. They must be left zero for Uint8.
	Mean, Std [3]float32
	Layout    Layout
	DType     DType
	Limits    Limits
}

// withDefaults returns the spec with every field filled in.
func (s Spec) withDefaults() Spec {
	if s.Decode == "" {
		s.Decode = Exact
	}
	if s.Orientation == "" {
		s.Orientation = IgnoreOrientation
	}
	if s.Filter == "" {
		s.Filter = Bilinear
	}
	if s.Order == "" {
		s.Order = HorizontalFirst
	}
	if s.Layout == "" {
		s.Layout = NCHW
	}
	if s.DType == "" {
		s.DType = Float32
	}
	if s.Std == [3]float32{} {
		s.Std = [3]float32{1, 1, 1}
	}
	if s.Limits.MaxBytes == 0 {
		s.Limits.MaxBytes = 64 << 20
	}
	if s.Limits.MaxPixels == 0 {
		s.Limits.MaxPixels = 1 << 26
	}
	if s.Limits.MaxRatio == 0 {
		s.Limits.MaxRatio = 2000
	}
	return s
}

// Validate reports every field that makes no sense. Since all images of a
// batch have one size, the spec must have a crop or an exact resize.
func (s Spec) Validate() error {
	s = s.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	side := func(name string, v int) {
		if v < 0 || v > maxSide {
			bad("%s is %d: want 1 to %d pixels", name, v, maxSide)
		}
	}
	side("resize.shorter", s.Resize.Shorter)
	side("resize.exact.height", s.Resize.Exact.Height)
	side("resize.exact.width", s.Resize.Exact.Width)
	side("crop.height", s.Crop.Height)
	side("crop.width", s.Crop.Width)
	both := func(name string, size Size) {
		if (size.Height == 0) != (size.Width == 0) {
			bad("%s is %d×%d: set both sides or none", name, size.Height, size.Width)
		}
	}
	both("resize.exact", s.Resize.Exact)
	both("crop", s.Crop)
	if s.Resize.Shorter != 0 && s.Resize.Exact != (Size{}) {
		bad("resize has both a shorter side and an exact size: set one")
	}
	if s.Size() == (Size{}) {
		bad("the output has no fixed size: set crop or resize.exact")
	}
	if !s.Filter.Valid() {
		bad("filter is %q: want bilinear, bicubic, box, lanczos or nearest", s.Filter)
	}
	if !s.Order.Valid() {
		bad("order is %q: want horizontal-first or pillow-13", s.Order)
	}
	if s.Decode != Exact && s.Decode != Scaled {
		bad("decode is %q: want exact or scaled", s.Decode)
	}
	if s.Decode == Scaled && !newJPEG().scales() {
		bad("decode is scaled, which needs libjpeg-turbo, and this program was built without: run `make libjpeg`, then `make build`")
	}
	if s.Orientation != IgnoreOrientation && s.Orientation != EXIFOrientation {
		bad("orientation is %q: want ignore or exif", s.Orientation)
	}
	if s.Layout != NCHW && s.Layout != NHWC {
		bad("layout is %q: want nchw or nhwc", s.Layout)
	}
	switch s.DType {
	case Float32, Float16:
	case Uint8:
		if s.Mean != [3]float32{} || s.Std != [3]float32{1, 1, 1} {
			bad("mean and std are set, but a uint8 tensor is not normalised")
		}
	default:
		bad("dtype is %q: want float32, float16 or uint8", s.DType)
	}
	for c := range 3 {
		// The comparisons are false for NaN.
		if m := s.Mean[c]; !(m > -1e6 && m < 1e6) {
			bad("mean[%d] is %v: want a finite number", c, m)
		}
		if d := s.Std[c]; !(d > 1e-6 && d < 1e6) {
			bad("std[%d] is %v: want a positive number", c, d)
		}
	}
	if l := s.Limits; l.MaxBytes < 0 || l.MaxPixels < 0 || l.MaxRatio < 0 || l.MaxPixels > 1<<32 {
		bad("limits are %+v: want positive numbers, at most 2³² pixels", l)
	}
	if len(errs) > 0 {
		return fmt.Errorf("preprocessing: %w", errors.Join(errs...))
	}
	return nil
}

// Size returns the height and width of the tensor, zero if they are not fixed.
func (s Spec) Size() Size {
	if s.Crop != (Size{}) {
		return s.Crop
	}
	return s.Resize.Exact
}

// Len returns the number of elements of one image's tensor.
func (s Spec) Len() int { z := s.Size(); return 3 * z.Height * z.Width }

// revision changes whenever this package's own code gives other pixels.
const revision = 1

// Decoder names what decodes JPEG in this build, with its version: the
// fingerprint has it.
func Decoder() string { return newJPEG().name() }

// Canonical returns the spec in full, one field a line, with the names and
// versions of the decoders: two specs with equal text give equal tensors from
// equal bytes. Limits are left out, since they choose images but change none.
func (s Spec) Canonical() string {
	s = s.withDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "imageio %d\n", revision)
	fmt.Fprintf(&b, "jpeg %s\n", Decoder())
	fmt.Fprintf(&b, "decode %s orientation=%s\n", s.Decode, s.Orientation)
	if s.Resize == (Resize{}) {
		s.Filter, s.Order = "none", "none"
	}
	fmt.Fprintf(&b, "resize shorter=%d exact=%dx%d filter=%s order=%s\n", s.Resize.Shorter, s.Resize.Exact.Height, s.Resize.Exact.Width, s.Filter, s.Order)
	fmt.Fprintf(&b, "crop %dx%d\n", s.Crop.Height, s.Crop.Width)
	fmt.Fprintf(&b, "mean %x %x %x\n", s.Mean[0], s.Mean[1], s.Mean[2])
	fmt.Fprintf(&b, "std %x %x %x\n", s.Std[0], s.Std[1], s.Std[2])
	fmt.Fprintf(&b, "tensor %s %s\n", s.Layout, s.DType)
	return b.String()
}

// Fingerprint returns the SHA-256 of [Spec.Canonical] in hexadecimal. Log-probs
// made under different fingerprints must not meet in one solve.
func (s Spec) Fingerprint() string {
	sum := sha256.Sum256([]byte(s.Canonical()))
	return hex.EncodeToString(sum[:])
}
