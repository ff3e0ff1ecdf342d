package imageio

import "math"

// Fixed point of Pillow's 8-bit resampling: 32 bits less 8 of the sample and 2
// for coefficients above one and negative lobes.
const (
	precision = 32 - 8 - 2
	half      = 1 << (precision - 1)
)

// kernel is a resampling filter: its value at x and where it vanishes.
type kernel struct {
	support float64
	at      func(x float64) float64
}

// The explicit conversions keep a compiler from fusing a product into a sum,
// which would change the last bit on some processors.
var kernels = map[Filter]kernel{
	Box: {0.5, func(x float64) float64 {
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	}},
	Bilinear: {1, func(x float64) float64 { return max(0, 1-math.Abs(x)) }},
	Bicubic: {2, func(x float64) float64 {
		const a = -0.5
		x = math.Abs(x)
		switch {
		case x < 1:
			return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
		case x < 2:
			return (float64((float64((x-5)*x)+8)*x) - 4) * a
		}
		return 0
	}},
	Lanczos: {3, func(x float64) float64 {
		if x < -3 || x >= 3 {
			return 0
		}
		return float64(sinc(x) * sinc(x/3))
	}},
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// taps are the coefficients of one axis: output i is the sum over j of
// coeff[i·stride + j] times input start[i] + j, for j < count[i].
type taps struct {
	filter           Filter
	in, out, from, n int // scaled from in to out samples; outputs from … from+n
	stride           int
	start, count     []int
	coeff            []int32
	weights          []float64
	first, span      int // the inputs that any output reads
}

// prepare computes the coefficients unless they are those of the last image.
func (t *taps) prepare(f Filter, in, out, from, n int) {
	if t.filter == f && t.in == in && t.out == out && t.from == from && t.n == n {
		return
	}
	t.filter, t.in, t.out, t.from, t.n = f, in, out, from, n
	k := kernels[f]
	scale := float64(in) / float64(out)
	// Enlarging interpolates; reducing widens the filter, which antialiases.
	stretch := max(scale, 1)
	support := k.support * stretch
	t.stride = int(math.Ceil(support))*2 + 1
	t.start, t.count = grow(t.start, n), grow(t.count, n)
	t.coeff = grow(t.coeff, n*t.stride)
	t.weights = grow(t.weights, t.stride)
	for i := range n {
		centre := float64((float64(from+i) + 0.5) * scale)
		lo := max(int(centre-support+0.5), 0)
		hi := min(int(centre+support+0.5), in)
		w := t.weights[:hi-lo]
		sum := 0.0
		for j := range w {
			w[j] = k.at(float64((float64(j+lo) - centre + 0.5) * (1 / stretch)))
			sum += w[j]
		}
		for j := range w {
			if sum != 0 {
				w[j] /= sum
			}
			v := float64(w[j] * (1 << precision))
			if v < 0 {
				v -= 0.5
			} else {
				v += 0.5
			}
			t.coeff[i*t.stride+j] = int32(v)
		}
		t.start[i], t.count[i] = lo, hi-lo
	}
	t.first = t.start[0]
	t.span = t.start[n-1] + t.count[n-1] - t.first
}

// resizer scales images as Pillow's Image.resize does, byte for byte: two
// passes, the first rounded to 8 bits; an axis whose length stays is left
// alone. It computes only the kept window, and keeps its buffers and the
// coefficients of the last size.
type resizer struct {
	h, v taps
	mid  []byte
	sums []int32
}

// resize writes g's output of src to out, 3·height·width bytes.
func (z *resizer) resize(src *RGB, f Filter, order Order, g geometry, out []byte) {
	if g.keep != g.out {
		clear(out)
	}
	out = out[3*(g.top*g.out.Width+g.left):]
	pitch := 3 * g.out.Width
	across, down := g.scaled.Width != src.Width, g.scaled.Height != src.Height
	switch {
	case !across && !down:
		for y := range g.keep.Height {
			copy(out[y*pitch:][:3*g.keep.Width], src.row(g.y + y)[3*g.x:])
		}
		return
	case f == Nearest:
		z.nearest(src, g, out, pitch)
		return
	}
	if across {
		z.h.prepare(f, src.Width, g.scaled.Width, g.x, g.keep.Width)
	}
	if down {
		z.v.prepare(f, src.Height, g.scaled.Height, g.y, g.keep.Height)
	}
	switch {
	case !down:
		for y := range g.keep.Height {
			z.h.across(src.row(g.y+y), 0, out[y*pitch:])
		}
	case !across:
		for y := range g.keep.Height {
			z.down(src.Pix[3*g.x:], 3*src.Width, 0, y, out[y*pitch:][:3*g.keep.Width])
		}
	case order == Pillow13 && tall(src, g.scaled):
		z.mid = grow(z.mid, 3*z.h.span)
		for y := range g.keep.Height {
			z.down(src.Pix[3*z.h.first:], 3*src.Width, 0, y, z.mid)
			z.h.across(z.mid, z.h.first, out[y*pitch:])
		}
	default:
		width := 3 * g.keep.Width
		z.mid = grow(z.mid, width*z.v.span)
		for y := range z.v.span {
			z.h.across(src.row(z.v.first+y), 0, z.mid[y*width:])
		}
		for y := range g.keep.Height {
			z.down(z.mid, width, z.v.first, y, out[y*pitch:][:width])
		}
	}
}

// tall tells when Pillow 13 scales rows before columns: where it takes away
// more than twice as many rows as columns.
func tall(src *RGB, to Size) bool {
	return to.Height < src.Height && src.Height-to.Height > 2*(src.Width-to.Width)
}

// across is one row of the horizontal pass. in begins at column first.
func (t *taps) across(in []byte, first int, out []byte) {
	for i := range t.n {
		k := t.coeff[i*t.stride:][:t.count[i]]
		p := in[3*(t.start[i]-first):][:3*len(k)]
		var r, g, b int32 = half, half, half
		for _, c := range k {
			q := p[:3:len(p)]
			r += c * int32(q[0])
			g += c * int32(q[1])
			b += c * int32(q[2])
			p = p[3:]
		}
		q := out[3*i : 3*i+3 : 3*i+3]
		q[0], q[1], q[2] = clip(r), clip(g), clip(b)
	}
}

// down is row y of the vertical pass: a weighted sum of whole rows, four at a
// time so that the sums are loaded and stored less often. in begins at row
// first, and its rows are pitch bytes apart.
func (z *resizer) down(in []byte, pitch, first, y int, out []byte) {
	k := z.v.coeff[y*z.v.stride:][:z.v.count[y]]
	at := (z.v.start[y] - first) * pitch
	z.sums = grow(z.sums, len(out))
	sums := z.sums
	for i := range sums {
		sums[i] = half
	}
	for ; len(k) >= 4; k = k[4:] {
		p, q := in[at:][:len(sums)], in[at+pitch:][:len(sums)]
		r, s := in[at+2*pitch:][:len(sums)], in[at+3*pitch:][:len(sums)]
		a, b, c, d := k[0], k[1], k[2], k[3]
		for i := range sums {
			sums[i] += a*int32(p[i]) + b*int32(q[i]) + c*int32(r[i]) + d*int32(s[i])
		}
		at += 4 * pitch
	}
	for _, a := range k {
		p := in[at:][:len(sums)]
		for i := range sums {
			sums[i] += a * int32(p[i])
		}
		at += pitch
	}
	for i, v := range sums {
		out[i] = clip(v)
	}
}

func clip(v int32) byte {
	v >>= precision
	if uint32(v) > 255 {
		v = ^(v >> 31)
	}
	return byte(v)
}

// nearest takes the sample under each output's centre. Pillow adds the step
// again and again instead of multiplying, which shows on some sizes.
func (z *resizer) nearest(src *RGB, g geometry, out []byte, pitch int) {
	columns := z.h.positions(src.Width, g.scaled.Width, g.x, g.keep.Width)
	rows := z.v.positions(src.Height, g.scaled.Height, g.y, g.keep.Height)
	for y, from := range rows {
		in, row := src.row(from), out[y*pitch:][:3*g.keep.Width]
		for x, at := range columns {
			*(*[3]byte)(row[3*x:]) = [3]byte(in[3*at:])
		}
	}
}

func (t *taps) positions(in, out, from, n int) []int {
	t.filter = Nearest // start no longer holds what prepare left
	t.start = grow(t.start, n)
	step := float64(in) / float64(out)
	at := float64(step * 0.5)
	for i := range from + n {
		if i >= from {
			t.start[i-from] = min(int(at), in-1)
		}
		at += step
	}
	return t.start
}
