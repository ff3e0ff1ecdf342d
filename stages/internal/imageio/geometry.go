package imageio

import (
	"image"
	"math"

	"sela/stages/internal/imageio/resample"
)

// geometry says where one image's pixels go: the image is scaled to scaled,
// the window (x, y, width, height) of the result is kept, and it is placed at
// (left, top) of an output of the given size, black elsewhere.
type geometry struct {
	scaled    Size
	x, y      int
	keep      Size
	left, top int
	out       Size
}

// plan follows torchvision's Resize and CenterCrop for an image of w × h.
func (s Spec) plan(w, h int) geometry {
	g := geometry{scaled: Size{h, w}}
	switch short, long := min(w, h), max(w, h); {
	case s.Resize.Exact != (Size{}):
		g.scaled = s.Resize.Exact
	case s.Resize.Shorter != 0 && w <= h:
		g.scaled = Size{s.Resize.Shorter * long / short, s.Resize.Shorter}
	case s.Resize.Shorter != 0:
		g.scaled = Size{s.Resize.Shorter, s.Resize.Shorter * long / short}
	}
	g.out, g.keep = g.scaled, g.scaled
	if s.Crop != (Size{}) {
		g.out = s.Crop
		g.y, g.top, g.keep.Height = centre(g.scaled.Height, s.Crop.Height)
		g.x, g.left, g.keep.Width = centre(g.scaled.Width, s.Crop.Width)
	}
	return g
}

// centre places a window of length want on a side of length have: where it
// begins on the side, where the side begins in it, and how long they overlap.
// Padding puts the odd pixel behind; cropping rounds halves to even, as
// Python's round does.
func centre(have, want int) (from, to, n int) {
	if want > have {
		return 0, (want - have) / 2, have
	}
	return int(math.RoundToEven(float64(have-want) / 2)), 0, want
}

// scaling is the resize of an image of w × h that the geometry asks for.
func (g geometry) scaling(w, h int, f Filter, o Order) resample.Scaling {
	return resample.Scaling{
		From: image.Pt(w, h), To: image.Pt(g.scaled.Width, g.scaled.Height),
		Keep:   image.Rect(g.x, g.y, g.x+g.keep.Width, g.y+g.keep.Height),
		Filter: f, Order: o,
	}
}

// resize writes the output for src to out, 3·height·width bytes.
func (g geometry) resize(z *resample.Resizer, out []byte, src *RGB, f Filter, o Order) {
	if g.keep != g.out {
		clear(out)
	}
	pitch := 3 * g.out.Width
	z.Resize(out[g.top*pitch+3*g.left:], pitch, src.Pix, 3*src.Width, g.scaling(src.Width, src.Height, f, o))
}

// gap is how many times as long as the wanted sides those of an image decoded
// at a fraction of its size must at least be, so that the resize still averages
// what the coarse decoding left: Pillow's reducing_gap, whose thumbnail asks
// for 2.
const gap = 2

// eighths returns at which eighths of its size an image of w × h may be
// decoded: 4, 2 or 1, for which libjpeg-turbo has vector code, or 8.
func (g geometry) eighths(w, h int) int {
	for _, n := range [...]int{1, 2, 4} {
		r := reading{eighths: n}
		if r.scaled(w) >= gap*g.scaled.Width && r.scaled(h) >= gap*g.scaled.Height {
			return n
		}
	}
	return 8
}
