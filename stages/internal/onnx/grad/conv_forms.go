package grad

import "slices"

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

// convInputPhases computes dX for the pixels of each phase of the stride in one
// product of patches of dY: those of one phase meet the same taps.
func convInputPhases(t *tape, c convolution, dy, w *value) *value {
	n, ch, o := c.x[0], c.x[1], c.w[0]
	size := [2]int64{c.x[2] / c.strides[0], c.x[3] / c.strides[1]}
	last := t.channelsLast(dy)
	var parts []*value
	for _, p := range c.phases(0) {
		for _, q := range c.phases(1) {
			dims := []int64{1, n, size[0], size[1], ch}
			if p.count == 0 || q.count == 0 {
				parts = append(parts, t.zeros(dims))
				continue
			}
			seen := window{kernel: [2]int64{p.count, q.count}, strides: [2]int64{1, 1}, dilations: [2]int64{1, 1}}
			before := []int64{0, -p.from, -q.from, 0}
			after := []int64{0, p.from + size[0] + p.count - 1 - c.y[2], q.from + size[1] + q.count - 1 - c.y[3], 0}
			rows := t.patches(seen, size, t.pad(last, before, after))
			// The last tap comes first, for it meets the lowest element.
			taps := t.slices(w, []int64{2, 3}, []int64{p.first + (p.count-1)*c.strides[0], q.first + (q.count-1)*c.strides[1]},
				[]int64{p.first - 1, q.first - 1}, []int64{-c.strides[0], -c.strides[1]})
			taps = t.transpose(t.reshape(taps, []int64{o, ch, p.count * q.count}), 2, 0, 1)
			parts = append(parts, t.reshape(t.matmul(rows, t.reshape(taps, []int64{p.count * q.count * o, ch})), dims))
		}
	}
	if len(parts) == 1 {
		return t.channelsFirst(t.reshape(parts[0], []int64{n, c.x[2], c.x[3], ch}))
	}
	dx := t.reshape(t.concat(0, parts...), []int64{c.strides[0], c.strides[1], n, size[0], size[1], ch})
	return t.reshape(t.transpose(dx, 2, 5, 3, 0, 4, 1), c.x[:])
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
