package imageio

import "math"

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
