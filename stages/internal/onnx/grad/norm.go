package grad

import (
	"fmt"
	"slices"

	"sela/stages/internal/onnx"
)

var norms = map[string]operator{
	"BatchNormalization": {5, 5, one(batchNorm)},
	"LayerNormalization": {2, 3, one(layerNorm)},
}

// batchNorm normalises by the statistics of its batch (Ioffe and Szegedy 2015,
// algorithm 1) and moves the running ones as PyTorch does: towards the mean and
// the unbiased variance. A layer whose statistics are frozen normalises by
// them.
func batchNorm(t *tape, n *node) *value {
	x, scale, bias := n.in[0], n.in[1], n.in[2]
	n.int("training_mode", 0) // exports for training set it
	if n.int("spatial", 1) != 1 {
		fail("attribute spatial is 0")
	}
	eps, keep := n.float("epsilon", 1e-5), n.float("momentum", 0.9)
	if len(x.dims) < 2 {
		fail("an input of shape %v", x.dims)
	}
	for _, v := range n.in[1:] {
		if !slices.Equal(v.dims, x.dims[1:2]) {
			fail("parameters of shape %v for an input of shape %v", v.dims, x.dims)
		}
	}
	mean, variance := n.raw(3), n.raw(4)
	if mean == "" || variance == "" {
		fail("its running statistics are no initialisers")
	}
	if n.frozen(mean) {
		inv := t.div(t.scalar(1), t.unary("Sqrt", t.add(n.in[4], t.scalar(eps))))
		a := mul(t, scale, inv)
		return affine(t, x, a, sub(t, bias, mul(t, a, n.in[3])))
	}
	count := float64(elements(x.dims) / x.dims[1])
	if count < 2 {
		fail("one value per channel has no variance: the batch is too small")
	}
	y, mu, v := normaliseBatch(t, x, scale, bias, eps, count)
	t.move(mean, n.in[3], mu, keep)
	t.move(variance, n.in[4], t.scale(v, count/(count-1)), keep)
	return y
}

// move records the next value of a running statistic.
func (t *tape) move(name string, running, now *value, keep float64) {
	t.next[name] = t.add(t.scale(running, keep), t.scale(now, 1-keep))
}

// normaliseBatch is the layer in training. With d = x − mean, r = 1/√(variance
// + ε) and means over the batch, its gradient (section 3 of the paper) is
//
//	dx = scale·r·(dy − mean(dy) − d·r²·mean(dy·d)).
func normaliseBatch(t *tape, x, scale, bias *value, eps, count float64) (y, mean, variance *value) {
	over := otherAxes(x.dims)
	reduce := func(op string, v *value) *value { return t.reduce(op, v, over, false) }
	mean = reduce("ReduceMean", x)
	d := t.affine(x, nil, t.neg(mean))
	variance = reduce("ReduceMean", t.mul(d, d))
	r := t.div(t.scalar(1), t.unary("Sqrt", t.add(variance, t.scalar(eps))))
	a := t.mul(scale, r)
	y = t.affine(d, a, bias)
	sums := joint(func(dy *value) []*value {
		return []*value{reduce("ReduceSum", dy), reduce("ReduceSum", t.mul(dy, d))}
	})
	t.diff(y,
		wrt(x, func(dy *value) *value {
			s := sums(dy)
			b := t.scale(t.mul(a, t.mul(t.mul(r, r), s[1])), -1/count)
			c := t.scale(t.mul(a, s[0]), -1/count)
			return t.add(t.affine(dy, a, c), t.affine(d, b, nil))
		}),
		wrt(scale, func(dy *value) *value { return t.mul(sums(dy)[1], r) }),
		wrt(bias, func(dy *value) *value { return sums(dy)[0] }))
	return y, mean, variance
}

// otherAxes are all but the second.
func otherAxes(dims []int64) []int64 {
	list := []int64{0}
	for i := 2; i < len(dims); i++ {
		list = append(list, int64(i))
	}
	return list
}

// affine is x·scale + shift channel by channel, and its gradient.
func affine(t *tape, x, scale, shift *value) *value {
	over := otherAxes(x.dims)
	return t.diff(t.affine(x, scale, shift),
		wrt(x, func(dy *value) *value { return t.affine(dy, scale, nil) }),
		wrt(scale, func(dy *value) *value { return t.reduce("ReduceSum", t.mul(dy, x), over, false) }),
		wrt(shift, func(dy *value) *value { return t.reduce("ReduceSum", dy, over, false) }))
}

// affine is x·scale + shift, both of shape [C], for each channel of x [N, C, …].
// Either may be nil.
func (t *tape) affine(x, scale, shift *value) *value {
	in, key := []*value{x}, "affine"
	if scale != nil {
		in, key = append(in, scale), key+" scale"
	}
	if shift != nil {
		in, key = append(in, shift), key+" shift"
	}
	split := func(in []*value) (x, a, b *value) {
		x, in = in[0], in[1:]
		if scale != nil {
			a, in = in[0], in[1:]
		}
		if shift != nil {
			b = in[0]
		}
		return x, a, b
	}
	return t.choose(fmt.Sprintf("%s %v", key, x.dims), []form{
		{"norm", func(t *tape, in []*value) *value { x, a, b := split(in); return affineNorm(t, x, a, b) }},
		{"primitive", func(t *tape, in []*value) *value { x, a, b := split(in); return affinePrimitive(t, x, a, b) }},
	}, in)
}

// affineNorm uses BatchNormalization in evaluation, with a mean of 0 and a
// variance of 1: one pass where the primitives take two.
func affineNorm(t *tape, x, scale, shift *value) *value {
	channels := x.dims[1:2]
	zero, one := t.fill(0, channels[0]), t.fill(1, channels[0])
	if scale == nil {
		scale = one
	}
	if shift == nil {
		shift = zero
	}
	return t.emit("BatchNormalization", x.dtype, x.dims, []*value{x, scale, shift, zero, one}, onnx.Float("epsilon", 0))
}

func affinePrimitive(t *tape, x, scale, shift *value) *value {
	column := kept(x.dims, otherAxes(x.dims)) // [1, C, 1, …]
	if scale != nil {
		x = t.mul(x, t.reshape(scale, column))
	}
	if shift != nil {
		x = t.add(x, t.reshape(shift, column))
	}
	return x
}

// joint makes what several gradients of one operator have in common once.
func joint(f func(dy *value) []*value) func(dy *value) []*value {
	var made []*value
	return func(dy *value) []*value {
		if made == nil {
			made = f(dy)
		}
		return made
	}
}

// layerNorm normalises over the axes from the given one on (Ba et al. 2016,
// arXiv 1607.06450).
func layerNorm(t *tape, n *node) *value {
	x, scale, bias := n.in[0], n.in[1], n.input(2)
	first := axis(n.int("axis", -1), len(x.dims))
	eps := n.float("epsilon", 1e-5)
	if kind := n.int("stash_type", 1); kind != 1 {
		fail("attribute stash_type is %d", kind)
	}
	var over []int64
	for i := first; i < int64(len(x.dims)); i++ {
		over = append(over, i)
	}
	for _, v := range []*value{scale, bias} {
		if v != nil && !slices.Equal(broadcast(x.dims[first:], v.dims), x.dims[first:]) {
			fail("parameters of shape %v for an input of shape %v", v.dims, x.dims)
		}
	}
	average := func(v *value) *value { return t.reduce("ReduceMean", v, over, true) }
	d := t.sub(x, average(x))
	r := t.div(t.scalar(1), t.unary("Sqrt", t.add(average(t.mul(d, d)), t.scalar(eps))))
	xhat := t.mul(d, r)
	y := t.diff(xhat, wrt(x, func(dy *value) *value {
		return t.mul(r, t.sub(t.sub(dy, average(dy)), t.mul(xhat, average(t.mul(dy, xhat)))))
	}))
	y = mul(t, y, scale)
	if bias != nil {
		y = add(t, y, bias)
	}
	return y
}

var reductions = map[string]operator{
	"ReduceMean": {1, 2, one(func(t *tape, n *node) *value {
		x := n.in[0]
		over, keep := n.reduced(18)
		count := int64(1)
		for _, a := range over {
			count *= x.dims[a]
		}
		return t.diff(t.reduce("ReduceMean", x, over, keep), wrt(x, func(dy *value) *value {
			return t.expand(t.reshape(t.scale(dy, 1/float64(count)), kept(x.dims, over)), x.dims)
		}))
	})},
	"ReduceSum": {1, 2, one(func(t *tape, n *node) *value {
		over, keep := n.reduced(13)
		return reduceSum(t, n.in[0], over, keep)
	})},
	"ReduceL2": {1, 2, one(func(t *tape, n *node) *value {
		x := n.in[0]
		over, keep := n.reduced(18)
		y := t.unary("Sqrt", t.reduce("ReduceSum", t.mul(x, x), over, keep))
		return t.diff(y, wrt(x, func(dy *value) *value {
			// The norm has no slope at 0; PyTorch takes 0.
			safe := t.binary("Max", y, t.scalar(1e-37))
			return t.mul(x, t.reshape(t.div(dy, safe), kept(x.dims, over)))
		}))
	})},
	"ReduceProd": {1, 2, one(func(t *tape, n *node) *value {
		x := n.in[0]
		over, keep := n.reduced(18)
		if !x.known() || len(over) != len(x.dims) || x.dtype == onnx.Float32 {
			fail("a product of what is not the sizes of a shape")
		}
		product := 1.
		for _, f := range x.data {
			product *= f
		}
		y := known(x.dtype, nil, []float64{product})
		if keep {
			return t.reshape(y, kept(x.dims, over))
		}
		return y
	})},
}

func reduceSum(t *tape, x *value, over []int64, keep bool) *value {
	return t.diff(t.reduce("ReduceSum", x, over, keep), wrt(x, func(dy *value) *value {
		return t.expand(t.reshape(dy, kept(x.dims, over)), x.dims)
	}))
}

// kept is the shape with 1 for every axis that was reduced.
func kept(dims, over []int64) []int64 {
	out := slices.Clone(dims)
	for _, a := range over {
		out[a] = 1
	}
	return out
}

// reduced reads the axes of a reduction, which became an input in operator set
// since, and whether they stay.
func (n *node) reduced(since int64) (over []int64, keep bool) {
	rank := len(n.in[0].dims)
	over = axes(n.list("axes", 1, since), rank)
	keep = n.int("keepdims", 1) != 0
	if empty := n.int("noop_with_empty_axes", 0); len(over) == 0 && empty == 0 {
		for i := range rank {
			over = append(over, int64(i))
		}
	}
	return over, keep
}
