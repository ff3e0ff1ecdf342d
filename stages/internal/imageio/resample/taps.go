package resample

import (
	"math"
	"math/bits"
)

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

// axis is one direction of a scaling: in samples become out, of which the n
// from from on are wanted.
type axis struct {
	filter           Filter
	in, out, from, n int
}

func (a axis) scale() float64 { return float64(a.in) / float64(a.out) }

// window returns where the samples begin and end that output from+i reads, and
// the centre of that output among the inputs.
func (a axis) window(i int, scale, support float64) (lo, hi int, centre float64) {
	centre = float64((float64(a.from+i) + 0.5) * scale)
	return max(int(centre-support+0.5), 0), min(int(centre+support+0.5), a.in), centre
}

// support is how far from its centre an output reads: enlarging interpolates,
// reducing stretches the filter, which antialiases.
func (a axis) support() float64 { return float64(kernels[a.filter].support * max(a.scale(), 1)) }

// reads returns where the samples begin and end that any output reads.
func (a axis) reads() (lo, hi int) {
	switch {
	case a.in == a.out:
		return a.from, a.from + a.n
	case a.filter == Nearest:
		a.nearest(func(i, at int) {
			if i == 0 {
				lo = at
			}
			hi = at + 1
		})
	default:
		lo, _, _ = a.window(0, a.scale(), a.support())
		_, hi, _ = a.window(a.n-1, a.scale(), a.support())
	}
	return lo, hi
}

// nearest calls f with the sample under each output's centre. Pillow adds the
// step again and again instead of multiplying, which shows on some sizes.
func (a axis) nearest(f func(i, at int)) {
	step := a.scale()
	at := float64(step * 0.5)
	for i := range a.from + a.n {
		if i >= a.from {
			f(i-a.from, min(int(at), a.in-1))
		}
		at += step
	}
}

// taps are the coefficients of one axis: output i is the sum over j of
// coeff[i·stride + j] times sample first + start[i] + j, for j < count[i].
type taps struct {
	axis
	layout       layout
	first, span  int // the samples that any output reads
	stride       int
	start, count []int
	coeff        []int32
	weights      []float64

	// The same for a twin: output i is the sum over g < groups of the group of
	// samples group[i] + g, each sample times its digits.
	groups int
	group  []int32
	digits []int32
}

// layout is how a twin wants the coefficients. Samples are taken in groups of
// size, aligned at first, whose coefficients share a word: the word for digit d
// holds digit d of each of them. A digit has 32/size bits, the lowest first,
// and a sign; count of them make a coefficient.
type layout struct{ size, count int } // size 1, 2 or 4

// prepare computes the coefficients of a, as Pillow's precompute_coeffs and
// normalize_coeffs_8bpc do.
func (t *taps) prepare(a axis, l layout) {
	t.axis, t.layout = a, l
	t.start = grow(t.start, a.n)
	t.first, t.span = a.reads()
	t.span -= t.first
	if a.filter == Nearest {
		a.nearest(func(i, at int) { t.start[i] = at - t.first })
		return
	}
	at, scale, support := kernels[a.filter].at, a.scale(), a.support()
	shrink := 1 / max(scale, 1)
	t.stride = int(math.Ceil(support))*2 + 1
	t.count = grow(t.count, a.n)
	t.coeff = grow(t.coeff, a.n*t.stride)
	t.weights = grow(t.weights, t.stride)
	for i := range a.n {
		lo, hi, centre := a.window(i, scale, support)
		w := t.weights[:hi-lo]
		sum := 0.0
		for j := range w {
			w[j] = at(float64((float64(j+lo) - centre + 0.5) * shrink))
			sum += w[j]
		}
		coeff := t.coeff[i*t.stride:][:len(w)]
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
			coeff[j] = int32(v)
		}
		t.start[i], t.count[i] = lo-t.first, len(w)
	}
	if l.size != 0 {
		t.split()
	}
}

// split fills group and digits. Every output has as many groups as the one
// that needs most: zeros cost less than a loop whose length cannot be foretold.
func (t *taps) split() {
	size, count := t.layout.size, t.layout.count
	log := bits.TrailingZeros(uint(size))
	t.groups = 0
	for i, lo := range t.start {
		t.groups = max(t.groups, (lo+t.count[i]-1)>>log-lo>>log+1)
	}
	all := (t.span + size - 1) >> log
	words := t.groups * count
	t.group = grow(t.group, t.n)
	t.digits = grow(t.digits, t.n*words)
	clear(t.digits)
	width := uint(32 >> log)
	mask := uint32(1<<width - 1)
	// Half a unit of the next digit, for every digit but the top one: adding it
	// carries where a digit is to be negative, and the exclusive or takes it away.
	var carry uint32
	for d := range count - 1 {
		carry |= 1 << (uint(d+1)*width - 1)
	}
	for i, lo := range t.start {
		g := min(lo>>log, all-t.groups)
		t.group[i] = int32(g)
		out := t.digits[i*words:][:words]
		at := lo - g<<log
		for _, c := range t.coeff[i*t.stride:][:t.count[i]] {
			place := out[at>>log*count:][:count]
			shift := uint(at&(size-1)) * width
			v := (uint32(c) + carry) ^ carry
			for d := range place {
				place[d] |= int32(v & mask << (shift & 31))
				v >>= width & 31
			}
			at++
		}
	}
}

// So many sets of coefficients are kept, and of larger ones only so many
// numbers (2 MiB). Of the 1,000 sides of 500 ImageNet photographs, 54 % were
// among the 64 before.
const (
	keptTables  = 64
	keptNumbers = 1 << 19
)

// cache holds the coefficients in use last, the latest first.
type cache []*taps

func (c *cache) get(a axis, l layout) *taps {
	var t *taps
	for i, old := range *c {
		if old.axis == a && old.layout == l {
			t = old
			copy((*c)[1:], (*c)[:i])
			(*c)[0] = t
			return t
		}
	}
	// The one before belongs to the other axis of the same image.
	for n := len(*c); n == keptTables || n > 1 && c.numbers() > keptNumbers; n = len(*c) {
		t = (*c)[n-1]
		*c = (*c)[:n-1]
	}
	if t == nil {
		t = new(taps)
	}
	t.prepare(a, l)
	*c = append(*c, nil)
	copy((*c)[1:], *c)
	(*c)[0] = t
	return t
}

func (c *cache) numbers() (n int) {
	for _, t := range *c {
		n += cap(t.coeff) + cap(t.digits)
	}
	return n
}

// grow returns s with length n, whatever it holds. Its room is a power of two,
// so that a table that serves one size after the other soon has enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, 1<<bits.Len(uint(n-1)))
	}
	return s[:n]
}
