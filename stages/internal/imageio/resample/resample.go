package resample

import "image"

// Filter is a resampling filter, by its Pillow name.
type Filter string

const (
	Bilinear Filter = "bilinear" // triangle of support 1; torchvision's default
	Bicubic  Filter = "bicubic"  // Keys' cubic with a = −0.5, support 2
	Box      Filter = "box"      // mean, support ½
	Lanczos  Filter = "lanczos"  // windowed sinc, support 3
	Nearest  Filter = "nearest"  // the sample under the centre; not antialiased
)

// Valid tells whether f is one of the filters above.
func (f Filter) Valid() bool {
	_, ok := kernels[f]
	return ok || f == Nearest
}

// Order is the order of a resize's two passes. The result of the first is
// rounded to 8 bits, so the order shows: by a level here and there.
type Order string

const (
	// HorizontalFirst scales columns, then rows: every Pillow before 13, except
	// that 12.2 and 12.3 scale rows first where they take away rows of an image
	// more than 100 times as tall as wide.
	HorizontalFirst Order = "horizontal-first"
	// Pillow13 scales rows first if it takes away more than twice as many rows
	// as columns, and is HorizontalFirst otherwise: Pillow 13.0. At a kept aspect
	// ratio the two differ only for images more than twice as tall as wide.
	Pillow13 Order = "pillow-13"
)

// Valid tells whether o is one of the orders above.
func (o Order) Valid() bool { return o == HorizontalFirst || o == Pillow13 }

// Scaling says how an image is scaled and what of the result is wanted.
type Scaling struct {
	From, To image.Point     // sizes in pixels, X the width; all positive
	Keep     image.Rectangle // the wanted part of the result, not empty
	Filter   Filter
	Order    Order
}

func (s Scaling) horizontal() axis {
	return axis{s.Filter, s.From.X, s.To.X, s.Keep.Min.X, s.Keep.Dx()}
}

func (s Scaling) vertical() axis {
	return axis{s.Filter, s.From.Y, s.To.Y, s.Keep.Min.Y, s.Keep.Dy()}
}

// rowsFirst tells when Pillow 13 scales rows before columns.
func (s Scaling) rowsFirst() bool {
	return s.Order == Pillow13 && s.To.Y < s.From.Y && s.From.Y-s.To.Y > 2*(s.From.X-s.To.X)
}

// Window returns the part of the source that [Resizer.Resize] reads.
func (s Scaling) Window() image.Rectangle {
	left, right := s.horizontal().reads()
	top, bottom := s.vertical().reads()
	return image.Rect(left, top, right, bottom)
}

// Resizer scales images as Pillow's Image.resize does, byte for byte: two
// passes, the first rounded to 8 bits; an axis whose length stays is left
// alone. It keeps its buffers and the coefficients of the last few sizes, and
// is not safe for concurrent use. The zero value is ready.
type Resizer struct {
	tables cache
	mid    []byte // between the passes
	work   scratch
}

// Resize writes the wanted part of the scaled image to dst. Both hold rows of
// interleaved RGB, pitch bytes apart; src begins with the first pixel of the
// source, dst with that of the wanted part. Of src only the [Scaling.Window] is
// read, of dst only 3·s.Keep.Dx() bytes of each row are written. They must not
// overlap.
func (z *Resizer) Resize(dst []byte, dstPitch int, src []byte, srcPitch int, s Scaling) {
	w := s.Window()
	width, height := s.Keep.Dx(), s.Keep.Dy()
	across, down := s.From.X != s.To.X, s.From.Y != s.To.Y
	in := pixels{src[w.Min.Y*srcPitch+3*w.Min.X:], srcPitch}.part(3*w.Dx(), w.Dy())
	out := pixels{dst, dstPitch}.part(3*width, height)
	table := func(a axis) *taps { return z.tables.get(a, active.layout) }
	switch {
	case !across && !down:
		for y := range height {
			copy(out.row(y)[:3*width], in.row(y))
		}
	case s.Filter == Nearest:
		nearest(table(s.horizontal()), table(s.vertical()), in, out)
	case !down:
		active.across(table(s.horizontal()), in, out, height, &z.work)
	case !across:
		active.down(table(s.vertical()), in, out, 3*width, &z.work)
	case s.rowsFirst():
		mid := z.between(3*w.Dx(), height)
		active.down(table(s.vertical()), in, mid, 3*w.Dx(), &z.work)
		active.across(table(s.horizontal()), mid, out, height, &z.work)
	default:
		mid := z.between(3*width, w.Dy())
		active.across(table(s.horizontal()), in, mid, w.Dy(), &z.work)
		active.down(table(s.vertical()), mid, out, 3*width, &z.work)
	}
}

func (z *Resizer) between(bytes, rows int) pixels {
	z.mid = grow(z.mid, bytes*rows)
	return pixels{z.mid, bytes}
}

// pixels are rows of interleaved RGB.
type pixels struct {
	pix   []byte
	pitch int // from one row to the next, in bytes
}

// part returns the first rows cut after the last byte of theirs that counts,
// so that nothing beyond is touched.
func (p pixels) part(bytes, rows int) pixels {
	return pixels{p.pix[:(rows-1)*p.pitch+bytes], p.pitch}
}

func (p pixels) row(y int) []byte { return p.pix[y*p.pitch:] }
