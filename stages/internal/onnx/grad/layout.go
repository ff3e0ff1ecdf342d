package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

// The operators that move elements about and compute nothing.

// reshape changes the shape, not the order of elements.
func (t *tape) reshape(x *value, dims []int64) *value {
	if slices.Equal(x.dims, dims) {
		return x
	}
	checkDims(dims)
	if elements(x.dims) != elements(dims) {
		fail("shape %v cannot become %v", x.dims, dims)
	}
	if x.known() {
		return known(x.dtype, slices.Clone(dims), slices.Clone(x.data))
	}
	return t.emit("Reshape", x.dtype, dims, []*value{x, knownInts(dims)})
}

// transpose permutes the axes.
func (t *tape) transpose(x *value, perm ...int64) *value {
	dims := make([]int64, len(perm))
	last, ordered := int64(-1), true
	for i, p := range perm {
		dims[i] = x.dims[p]
		if dims[i] != 1 {
			ordered = ordered && p > last
			last = p
		}
	}
	if ordered {
		return t.reshape(x, dims)
	}
	if x.known() {
		s := strides(x.dims, x.dims)
		return build(x.dtype, dims, func(i []int64) float64 {
			at := int64(0)
			for j, p := range perm {
				at += i[j] * s[p]
			}
			return x.data[at]
		})
	}
	return t.emit("Transpose", x.dtype, dims, []*value{x}, onnx.Ints("perm", perm...))
}

// swap transposes the last two axes.
func (t *tape) swap(x *value) *value {
	perm := make([]int64, len(x.dims))
	for i := range perm {
		perm[i] = int64(i)
	}
	n := len(perm)
	perm[n-1], perm[n-2] = perm[n-2], perm[n-1]
	return t.transpose(x, perm...)
}

func (t *tape) expand(x *value, dims []int64) *value {
	if slices.Equal(x.dims, dims) {
		return x
	}
	checkDims(dims)
	if x.known() && elements(dims) <= maxKnown {
		s := strides(x.dims, dims)
		return build(x.dtype, dims, func(i []int64) float64 { return x.data[offset(i, s)] })
	}
	return t.emit("Expand", x.dtype, dims, []*value{x, knownInts(dims)})
}

func (t *tape) concat(axis int64, parts ...*value) *value {
	if len(parts) == 1 {
		return parts[0]
	}
	dims, all := slices.Clone(parts[0].dims), true
	dims[axis] = 0
	for _, p := range parts {
		if len(p.dims) != len(dims) || p.dtype != parts[0].dtype {
			fail("Concat of %v %v and %v %v", parts[0].dtype, parts[0].dims, p.dtype, p.dims)
		}
		for i, d := range p.dims {
			if i != int(axis) && d != dims[i] {
				fail("Concat of shapes %v and %v along axis %d", parts[0].dims, p.dims, axis)
			}
		}
		dims[axis] += p.dims[axis]
		all = all && p.known()
		checkDims(dims)
	}
	if all && elements(dims) <= maxKnown/int64(len(parts)) {
		return build(parts[0].dtype, dims, func(i []int64) float64 {
			at := slices.Clone(i)
			for _, p := range parts {
				if at[axis] < p.dims[axis] {
					return p.data[offset(at, strides(p.dims, p.dims))]
				}
				at[axis] -= p.dims[axis]
			}
			return 0 // not reached: the sizes add up
		})
	}
	return t.emit("Concat", parts[0].dtype, dims, parts, onnx.Int("axis", axis))
}

// split cuts an axis into parts of the given sizes.
func (t *tape) split(x *value, axis int64, sizes []int64) []*value {
	total := int64(0)
	for _, s := range sizes {
		if s < 0 || s > x.dims[axis] {
			fail("Split of %d into %v", x.dims[axis], sizes)
		}
		total += s
	}
	if total != x.dims[axis] {
		fail("Split of %d into %v", x.dims[axis], sizes)
	}
	if len(sizes) == 1 {
		return []*value{x}
	}
	parts := make([]*value, len(sizes))
	if x.known() {
		from := int64(0)
		for i, s := range sizes {
			parts[i] = t.slice(x, axis, from, from+s, 1)
			from += s
		}
		return parts
	}
	outs := make([]string, len(sizes))
	for i := range outs {
		outs[i] = t.scope + "/Split"
	}
	names := t.b.Nodes("Split", outs, t.names([]*value{x, knownInts(sizes)}), onnx.Int("axis", axis))
	for i, s := range sizes {
		dims := slices.Clone(x.dims)
		dims[axis] = s
		parts[i] = &value{name: names[i], dtype: x.dtype, dims: dims}
	}
	return parts
}

// slice takes start, start+step, … before end (after it where the step is
// negative) of one axis. The bounds must lie within the axis, but that the end
// of a downward slice that goes through 0 is −1.
func (t *tape) slice(x *value, axis, start, end, step int64) *value {
	return t.slices(x, []int64{axis}, []int64{start}, []int64{end}, []int64{step})
}

// slices is slice for several axes in one node.
func (t *tape) slices(x *value, axes, starts, ends, steps []int64) *value {
	dims, same := slices.Clone(x.dims), true
	until := slices.Clone(ends)
	for i, a := range axes {
		n := (ends[i] - starts[i] + steps[i] - sign(steps[i])) / steps[i]
		dims[a] = max(n, 0)
		same = same && steps[i] == 1 && dims[a] == x.dims[a]
		if until[i] < 0 {
			until[i] = -x.dims[a] - 1 // −1 would mean the last element
		}
	}
	if same {
		return x
	}
	if x.known() {
		s := strides(x.dims, x.dims)
		return build(x.dtype, dims, func(i []int64) float64 {
			at := slices.Clone(i)
			for j, a := range axes {
				at[a] = starts[j] + i[a]*steps[j]
			}
			return x.data[offset(at, s)]
		})
	}
	return t.emit("Slice", x.dtype, dims, []*value{x, knownInts(starts), knownInts(until), knownInts(axes), knownInts(steps)})
}

func sign(x int64) int64 {
	if x < 0 {
		return -1
	}
	return 1
}

// pad adds before[i] and after[i] zeros to axis i, or takes as many elements
// away where they are negative.
func (t *tape) pad(x *value, before, after []int64) *value {
	dims, zero := slices.Clone(x.dims), true
	var axes, starts, ends, steps []int64
	pads := make([]int64, 2*len(dims))
	for i := range dims {
		dims[i] += before[i] + after[i]
		pads[i], pads[len(dims)+i] = max(before[i], 0), max(after[i], 0)
		zero = zero && pads[i] == 0 && pads[len(dims)+i] == 0
		if before[i] < 0 || after[i] < 0 {
			axes = append(axes, int64(i))
			starts = append(starts, max(-before[i], 0))
			ends = append(ends, x.dims[i]-max(-after[i], 0))
			steps = append(steps, 1)
		}
	}
	if len(axes) > 0 {
		x = t.slices(x, axes, starts, ends, steps)
	}
	if zero {
		return x
	}
	return t.emit("Pad", x.dtype, dims, []*value{x, knownInts(pads)})
}

// gather takes the elements of an axis that the indices name.
func (t *tape) gather(x, indices *value, axis int64) *value {
	dims := slices.Concat(x.dims[:axis], indices.dims, x.dims[axis+1:])
	checkDims(dims)
	if x.known() && indices.known() && elements(dims) <= maxKnown {
		k := int64(len(indices.dims))
		s, si := strides(x.dims, x.dims), strides(indices.dims, indices.dims)
		return build(x.dtype, dims, func(i []int64) float64 {
			at := toInt(indices.data[offset(i[axis:axis+k], si)])
			if at < 0 {
				at += x.dims[axis]
			}
			if at < 0 || at >= x.dims[axis] {
				fail("Gather of element %d of %d", at, x.dims[axis])
			}
			from := slices.Concat(i[:axis], []int64{at}, i[axis+k:])
			return x.data[offset(from, s)]
		})
	}
	return t.emit("Gather", x.dtype, dims, []*value{x, indices}, onnx.Int("axis", axis))
}
