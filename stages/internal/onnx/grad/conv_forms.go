package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

// Formulations of a convolution's gradients as few large products of matrices. A
// runtime that multiplies image by image, as ONNX Runtime does, loses most of
// its rate where images have few pixels; one product over the pixels of all
// images keeps it, for the price of copying the patches.

// channelsFirst turns [N, H, W, C] into [N, C, H, W].
func (t *tape) channelsFirst(x *value) *value {
	d := x.dims
	x = t.transpose(t.reshape(x, []int64{d[0], d[1] * d[2], d[3]}), 0, 2, 1)
	return t.reshape(x, []int64{d[0], d[3], d[1], d[2]})
}

// phase is what the pixels of one axis of X whose number is a, modulo the
// stride, see of dY: taps first, first+step, … of the kernel, count of them, the
// last of them in the element from (of the first pixel's), the first in the
// highest.
type phase struct{ first, count, from int64 }

// phases lists those of axis i. Pixel s·q + a meets element o of dY through tap
// k where s·q + a + before = s·o + k.
func (c convolution) phases(i int) []phase {
	s := c.strides[i]
	list := make([]phase, s)
	for a := range s {
		p := phase{first: (a + c.before[i]) % s}
		if p.first < c.kernel[i] {
			p.count = (c.kernel[i]-1-p.first)/s + 1
		}
		p.from = (a+c.before[i]-p.first)/s - (p.count - 1)
		list[a] = p
	}
	return list
}

// phased says whether convInputPhases applies.
func (c convolution) phased() bool {
	return c.groups == 1 && c.dilations == [2]int64{1, 1} && c.x[2]%c.strides[0] == 0 && c.x[3]%c.strides[1] == 0
}

// phasesFirst says whether it is the default: where an image alone has fewer
// pixels than channels, but all of them together have more.
func (c convolution) phasesFirst() bool {
	pixels := c.y[2] * c.y[3]
	return c.phased() && c.kernel != [2]int64{1, 1} && pixels < c.x[1] && pixels*c.x[0] >= c.x[1]
}

// convInputPhases computes dX for the pixels of each phase of the stride in one
// product of patches of dY, a few images at a time: those of one phase meet the
// same taps.
func convInputPhases(t *tape, c convolution, dy, w *value) *value {
	n, ch, o := c.x[0], c.x[1], c.w[0]
	size := [2]int64{c.x[2] / c.strides[0], c.x[3] / c.strides[1]}
	var before, after [2]int64 // what is looked at beyond dY
	for i := range 2 {
		for _, p := range c.phases(i) {
			before[i] = max(before[i], -p.from)
			after[i] = max(after[i], p.from+size[i]+p.count-1-c.y[2+i])
		}
	}
	w = t.reshape(t.transpose(t.reshape(w, []int64{o, ch, c.kernel[0] * c.kernel[1]}), 2, 0, 1), []int64{c.kernel[0], c.kernel[1], o * ch})
	images := c.together(size[0] * size[1] * c.kernel[0] * c.kernel[1] * o)
	dims := []int64{images, c.y[2] + before[0] + after[0], c.y[3] + before[1] + after[1], o}
	type product struct{ table, taps *value }
	var products []product
	for _, p := range c.phases(0) {
		for _, q := range c.phases(1) {
			if p.count == 0 || q.count == 0 {
				products = append(products, product{})
				continue
			}
			seen := window{kernel: [2]int64{p.count, q.count}, strides: [2]int64{1, 1}, dilations: [2]int64{1, 1}}
			first := (p.from+before[0])*dims[2] + q.from + before[1]
			table := t.binary("Add", t.table(seen, size, dims), known(onnx.Int32, nil, []float64{float64(first)}))
			// The last tap comes first, for it meets the lowest element.
			taps := t.slices(w, []int64{0, 1}, []int64{p.first + (p.count-1)*c.strides[0], q.first + (q.count-1)*c.strides[1]},
				[]int64{p.first - 1, q.first - 1}, []int64{-c.strides[0], -c.strides[1]})
			products = append(products, product{table, t.reshape(taps, []int64{p.count * q.count * o, ch})})
		}
	}
	var parts []*value
	for _, dy := range t.split(dy, 0, slices.Repeat([]int64{images}, int(n/images))) {
		dy = t.pad(t.channelsLast(dy), []int64{0, before[0], before[1], 0}, []int64{0, after[0], after[1], 0})
		var each []*value
		for _, p := range products {
			each = append(each, t.zeros([]int64{images * size[0] * size[1], ch}))
			if p.table != nil {
				each[len(each)-1] = t.matmul(t.pick(dy, p.table), p.taps)
			}
		}
		dx := t.reshape(t.concat(0, each...), []int64{c.strides[0], c.strides[1], images, size[0], size[1], ch})
		dx = t.reshape(t.transpose(dx, 2, 3, 0, 4, 1, 5), []int64{images, c.x[2], c.x[3], ch})
		parts = append(parts, t.channelsFirst(dx))
	}
	return t.concat(0, parts...)
}

const (
	// cached is how many elements of patches stay in a processor's caches, and
	// mostChunks how many times a gradient is cut for that.
	cached, mostChunks = 1 << 20, 32
	// A product reads a dozen rows side by side. Those that lie a multiple of
	// stagger elements apart share few lines of the first cache and are made
	// longer by staggered zeros.
	stagger, staggered = 256, 16
)

// together is how many images to compute at a time, if each takes so many
// elements: a divisor of their number.
func (c convolution) together(each int64) int64 {
	n := c.x[0]
	images := min(n, max(1, cached/each, n/mostChunks))
	for n%images != 0 {
		images--
	}
	return images
}

// convWeightChunks is convWeightPatches for a few images at a time, whose
// patches need not go through memory, and adds up.
func convWeightChunks(t *tape, c convolution, x, dy *value) *value {
	x = t.padded(c, x)
	n, pixels := c.y[0], c.y[2]*c.y[3]
	images := c.together(pixels * c.kernel[0] * c.kernel[1] * c.x[1])
	sizes := slices.Repeat([]int64{images}, int(n/images))
	more := int64(0)
	if images*pixels%stagger == 0 {
		more = staggered
	}
	dims := append([]int64{images}, x.dims[1:]...)
	table := t.pad(t.table(c.window, c.out(), dims), []int64{0, 0}, []int64{more, 0})
	xs, dys := t.split(x, 0, sizes), t.split(dy, 0, sizes)
	var dw *value
	for i := range xs {
		rows := t.pad(t.rowsOf(dys[i]), []int64{0, 0}, []int64{0, more})
		part := t.matmul(rows, t.pick(xs[i], table))
		if i == 0 {
			dw = part
		} else {
			dw = t.add(dw, part)
		}
	}
	return t.fromTaps(c, dw)
}

// byChunks multiplies the patches of X with W as a matrix, a few images at a
// time.
func (c convolution) byChunks(t *tape, in []*value) *value {
	x := t.padded(c, in[0])
	n, pixels, taps := c.y[0], c.y[2]*c.y[3], c.kernel[0]*c.kernel[1]
	images := c.together(pixels * taps * c.x[1])
	table := t.table(c.window, c.out(), append([]int64{images}, x.dims[1:]...))
	w := t.transpose(t.reshape(in[1], []int64{c.w[0], c.w[1], taps}), 2, 1, 0)
	w = t.reshape(w, []int64{taps * c.w[1], c.w[0]})
	var parts []*value
	for _, x := range t.split(x, 0, slices.Repeat([]int64{images}, int(n/images))) {
		args := append([]*value{t.pick(x, table), w}, in[2:]...)
		parts = append(parts, t.emit("Gemm", x.dtype, []int64{images * pixels, c.w[0]}, args))
	}
	return t.channelsFirst(t.reshape(t.concat(0, parts...), []int64{n, c.y[2], c.y[3], c.w[0]}))
}
