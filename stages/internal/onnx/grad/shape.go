package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

var shapes = map[string]operator{
	"Reshape": {2, 2, one(func(t *tape, n *node) *value {
		return reshape(t, n.in[0], reshaped(n.in[0].dims, n.constants(1, "shape"), n.int("allowzero", 0) != 0))
	})},
	"Flatten": {1, 1, one(func(t *tape, n *node) *value {
		x := n.in[0]
		a := n.int("axis", 1)
		if a != int64(len(x.dims)) {
			a = axis(a, len(x.dims))
		}
		return reshape(t, x, []int64{elements(x.dims[:a]), elements(x.dims[a:])})
	})},
	"Squeeze": {1, 2, one(func(t *tape, n *node) *value {
		x := n.in[0]
		gone := axes(n.list("axes", 1, 13), len(x.dims))
		var dims []int64
		for i, d := range x.dims {
			drop := slices.Contains(gone, int64(i))
			if drop && d != 1 {
				fail("axis %d of shape %v", i, x.dims)
			}
			if !drop && (len(gone) > 0 || d != 1) {
				dims = append(dims, d)
			}
		}
		return reshape(t, x, dims)
	})},
	"Unsqueeze": {1, 2, one(func(t *tape, n *node) *value {
		x, list := n.in[0], n.list("axes", 1, 13)
		if len(list) > 64 {
			fail("%d axes", len(list))
		}
		rank := len(x.dims) + len(list)
		added := axes(list, rank)
		var dims []int64
		rest := x.dims
		for i := range rank {
			if slices.Contains(added, int64(i)) {
				dims = append(dims, 1)
			} else {
				dims, rest = append(dims, rest[0]), rest[1:]
			}
		}
		return reshape(t, x, dims)
	})},
	"Transpose": {1, 1, one(func(t *tape, n *node) *value {
		x := n.in[0]
		perm := n.ints("perm")
		if perm == nil {
			for i := len(x.dims) - 1; i >= 0; i-- {
				perm = append(perm, int64(i))
			}
		}
		perm = axes(perm, len(x.dims))
		if len(perm) != len(x.dims) {
			fail("attribute perm is %v for rank %d", perm, len(x.dims))
		}
		inverse := make([]int64, len(perm))
		for i, p := range perm {
			inverse[p] = int64(i)
		}
		return t.diff(t.transpose(x, perm...), wrt(x, func(dy *value) *value { return t.transpose(dy, inverse...) }))
	})},
	"Expand": {2, 2, one(func(t *tape, n *node) *value {
		x, to := n.in[0], n.constants(1, "shape")
		checkDims(to)
		return t.diff(t.expand(x, broadcast(x.dims, to)), wrt(x, func(dy *value) *value { return t.sumTo(dy, x.dims) }))
	})},
	"Concat": {1, 1 << 16, one(concat)},
	"Split":  {1, 2, split},
	"Slice":  {1, 5, one(slice)},
	"Gather": {2, 2, one(gather)},
	"Pad":    {1, 4, one(pad)},
}

func reshape(t *tape, x *value, dims []int64) *value {
	y := t.reshape(x, dims)
	if y == x {
		return x
	}
	return t.diff(y, wrt(x, func(dy *value) *value { return t.reshape(dy, x.dims) }))
}

// reshaped resolves the 0 and −1 of a Reshape.
func reshaped(from, to []int64, allowZero bool) []int64 {
	dims, free, rest := slices.Clone(to), -1, int64(1)
	if len(dims) > 64 {
		fail("a shape of %d dimensions", len(dims))
	}
	for i, d := range dims {
		switch {
		case d == 0 && !allowZero:
			if i >= len(from) {
				fail("shape %v cannot become %v", from, to)
			}
			dims[i] = from[i]
		case d == -1 && free < 0:
			free = i
			continue
		case d < 0:
			fail("shape %v cannot become %v", from, to)
		}
		if dims[i] > 0 && rest > maxElements/dims[i] {
			fail("shape %v cannot become %v", from, to)
		}
		rest *= dims[i]
	}
	if free >= 0 {
		if rest == 0 || elements(from)%rest != 0 {
			fail("shape %v cannot become %v", from, to)
		}
		dims[free] = elements(from) / rest
	}
	return dims
}

func concat(t *tape, n *node) *value {
	for _, x := range n.in {
		if x == nil {
			fail("an input is left out")
		}
	}
	a := axis(n.int("axis", 0), len(n.in[0].dims))
	y := t.concat(a, n.in...)
	if y == n.in[0] {
		return y
	}
	var flows []flow
	from := int64(0)
	for _, x := range n.in {
		start, end := from, from+x.dims[a]
		flows = append(flows, wrt(x, func(dy *value) *value { return t.slice(dy, a, start, end, 1) }))
		from = end
	}
	return t.diff(y, flows...)
}

func split(t *tape, n *node) []*value {
	x := n.in[0]
	a := axis(n.int("axis", 0), len(x.dims))
	sizes := n.list("split", 1, 13)
	parts := int64(len(n.p.Output))
	if n.opset >= 18 {
		if k := n.int("num_outputs", parts); k != parts {
			fail("attribute num_outputs is %d, it has %d outputs", k, parts)
		}
	}
	if sizes == nil {
		each := (x.dims[a] + parts - 1) / max(parts, 1)
		for left := x.dims[a]; int64(len(sizes)) < parts; left -= each {
			sizes = append(sizes, min(each, left))
		}
	}
	if int64(len(sizes)) != parts {
		fail("%d sizes for %d outputs", len(sizes), parts)
	}
	ys := t.split(x, a, sizes)
	if len(ys) == 1 {
		return ys
	}
	// The parts' gradients are joined once: the first part, whose turn is last,
	// does it for all.
	if !x.needs {
		return ys
	}
	for _, y := range ys {
		y.needs = true
	}
	scope := "grad/" + t.scope
	t.record = append(t.record, func() {
		t.scope = scope
		var grads []*value
		any := false
		for _, y := range ys {
			g := t.gradient(y)
			any = any || g != nil
			if g == nil {
				g = t.zeros(y.dims)
			}
			grads = append(grads, g)
		}
		if any {
			x.grads = append(x.grads, t.concat(a, grads...))
		}
	})
	return ys
}

func slice(t *tape, n *node) *value {
	x := n.in[0]
	rank := len(x.dims)
	var starts, ends, along, steps []int64
	if n.opset < 10 {
		starts, ends, along = n.ints("starts"), n.ints("ends"), n.ints("axes")
	} else {
		starts, ends = n.constants(1, "starts"), n.constants(2, "ends")
		along, steps = n.constants(3, "axes"), n.constants(4, "steps")
	}
	if along == nil {
		for i := range starts {
			along = append(along, int64(i))
		}
	}
	if steps == nil {
		steps = slices.Repeat([]int64{1}, len(starts))
	}
	along = axes(along, rank)
	if len(ends) != len(starts) || len(along) != len(starts) || len(steps) != len(starts) {
		fail("%d starts, %d ends, %d axes and %d steps", len(starts), len(ends), len(along), len(steps))
	}
	y := x
	for i, a := range along {
		d, step := x.dims[a], steps[i]
		if step == 0 || step == -1<<63 {
			fail("a step of %d", step)
		}
		clamp := func(at, low, high int64) int64 {
			if at < 0 {
				at += d
			}
			return min(max(at, low), high)
		}
		start, end := clamp(starts[i], 0, d), clamp(ends[i], 0, d)
		step = min(max(step, -d-1), d+1)
		if step < 0 {
			start, end = clamp(starts[i], 0, d-1), clamp(ends[i], -1, d-1)
		}
		y = sliceAxis(t, y, a, start, end, step)
	}
	if !y.known() && elements(y.dims) == 0 {
		fail("it takes nothing of shape %v", x.dims)
	}
	return y
}

// sliceAxis is slice with its gradient, which goes back to where the elements
// came from, between zeros.
func sliceAxis(t *tape, x *value, a, start, end, step int64) *value {
	y := t.slice(x, a, start, end, step)
	if y == x {
		return x
	}
	return t.diff(y, wrt(x, func(dy *value) *value {
		n, step, first := dy.dims[a], step, start
		if step < 0 {
			first += (n - 1) * step
			step = -step
			dy = t.slice(dy, a, n-1, -1, -1)
		}
		dy = t.spread(dy, a, step)
		before, after := make([]int64, len(x.dims)), make([]int64, len(x.dims))
		before[a], after[a] = first, x.dims[a]-first-dy.dims[a]
		return t.pad(dy, before, after)
	}))
}

// spread puts step−1 zeros after each element of an axis.
func (t *tape) spread(x *value, a, step int64) *value {
	if step == 1 || x.dims[a] == 1 {
		return x
	}
	rank := len(x.dims) + 1
	dims := slices.Insert(slices.Clone(x.dims), int(a)+1, 1)
	after := make([]int64, rank)
	after[a+1] = step - 1
	wide := t.pad(t.reshape(x, dims), make([]int64, rank), after)
	dims = slices.Clone(x.dims)
	dims[a] *= step
	return t.reshape(wide, dims)
}

// gather's gradient adds up, for each element of the axis, what was taken of
// it: a product with the indices written as rows of zeros and a one.
func gather(t *tape, n *node) *value {
	x, indices := n.in[0], n.in[1]
	if indices.dtype != onnx.Int64 && indices.dtype != onnx.Int32 {
		fail("indices of type %v", indices.dtype)
	}
	a := axis(n.int("axis", 0), len(x.dims))
	if indices.known() {
		for _, i := range indices.ints() {
			if i < -x.dims[a] || i >= x.dims[a] {
				fail("element %d of shape %v along axis %d", i, x.dims, a)
			}
		}
	}
	if i := indices.ints(); len(i) == 1 && indices.known() && !x.known() {
		at := i[0]
		if at < 0 {
			at += x.dims[a]
		}
		dims := slices.Concat(x.dims[:a], indices.dims, x.dims[a+1:])
		return reshape(t, sliceAxis(t, x, a, at, at+1, 1), dims)
	}
	return t.diff(t.gather(x, indices, a), wrt(x, func(dy *value) *value {
		before, after := elements(x.dims[:a]), elements(x.dims[a+1:])
		taken := elements(indices.dims)
		ends := known(onnx.Float32, []int64{2}, []float64{0, 1})
		depth := known(onnx.Int64, nil, []float64{float64(x.dims[a])})
		index := t.reshape(t.cast(indices, onnx.Int64), []int64{taken})
		rows := t.emit("OneHot", onnx.Float32, []int64{x.dims[a], taken}, []*value{index, depth, ends}, onnx.Int("axis", 0))
		sum := t.matmul(rows, t.reshape(dy, []int64{before, taken, after}))
		return t.reshape(sum, x.dims)
	}))
}

func pad(t *tape, n *node) *value {
	x := n.in[0]
	rank := len(x.dims)
	if mode := n.text("mode", "constant"); mode != "constant" {
		fail("attribute mode is %q", mode)
	}
	pads := n.list("pads", 1, 11)
	fill := t.scalar(n.float("value", 0))
	if n.opset >= 11 {
		if fill = n.input(2); fill == nil {
			fill = t.scalar(0)
		}
	}
	along := n.constants(3, "axes")
	if along == nil {
		for i := range rank {
			along = append(along, int64(i))
		}
	}
	along = axes(along, rank)
	if len(pads) != 2*len(along) {
		fail("%d pads for %d axes", len(pads), len(along))
	}
	before, after := make([]int64, rank), make([]int64, rank)
	for i, a := range along {
		before[a], after[a] = pads[i], pads[len(along)+i]
		for _, p := range []int64{before[a], after[a]} {
			if p < -x.dims[a] || p > maxElements {
				fail("pads %v for shape %v", pads, x.dims)
			}
		}
		if x.dims[a]+min(before[a], 0)+min(after[a], 0) <= 0 {
			fail("pads %v leave nothing of shape %v", pads, x.dims)
		}
	}
	if len(fill.data) != 1 {
		fail("its value is no constant")
	}
	y := t.pad(x, before, after)
	if fill.data[0] != 0 {
		// Zeros first, then the value where a padded mask of ones is 0.
		inside := t.pad(t.expand(t.scalar(1), x.dims), before, after)
		y = t.where(t.binary("Greater", inside, t.scalar(0)), y, fill)
	}
	return t.diff(y, wrt(x, func(dy *value) *value {
		b, a := slices.Clone(before), slices.Clone(after)
		for i := range b {
			b[i], a[i] = -b[i], -a[i]
		}
		return t.pad(dy, b, a)
	}))
}
