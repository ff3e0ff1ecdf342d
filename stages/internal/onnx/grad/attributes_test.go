package grad

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// attributeCases are combinations of attributes and shapes that few networks
// have, beside those of operatorCases.
var attributeCases = map[string]cases{
	// Strides, dilations, groups and uneven pads at once; every other one with a
	// group for each channel.
	"Conv": func(r *rand.Rand) graph {
		groups, in := size(r, 1, 3), size(r, 1, 3)
		if r.IntN(2) == 0 {
			groups, in = size(r, 2, 5), 1
		}
		w := normal(groups*size(r, 1, 2), in, size(r, 1, 3), size(r, 1, 3))
		return graph{op: "Conv", opset: 11, in: []operand{normal(2, groups*in, size(r, 7, 11), size(r, 7, 11)), w, normal(w.dims[0])}, attrs: []onnx.Attr{
			onnx.Int("group", groups), onnx.Ints("strides", size(r, 1, 3), size(r, 1, 3)), onnx.Ints("dilations", size(r, 1, 3), size(r, 1, 3)),
			onnx.Ints("pads", size(r, 0, 3), size(r, 0, 3), size(r, 0, 3), size(r, 0, 3))}}
	},
	"MaxPool": func(r *rand.Rand) graph {
		kh, kw := size(r, 2, 3), size(r, 1, 3)
		x := normal(2, 2, size(r, 6, 9), size(r, 6, 9))
		x.apart = true
		return graph{op: "MaxPool", opset: 12, in: []operand{x}, attrs: []onnx.Attr{
			onnx.Ints("kernel_shape", kh, kw), onnx.Ints("strides", size(r, 1, 2), size(r, 1, 2)), onnx.Ints("dilations", size(r, 1, 2), size(r, 1, 2)),
			onnx.Ints("pads", kh-1, 0, 0, kw/2), onnx.Int("ceil_mode", r.Int64N(2))}}
	},
	// Of a negative number, a power by a constant, as in GELU's approximation and
	// in the variance of layers that an export writes out.
	"Pow": func(r *rand.Rand) graph {
		return graph{op: "Pow", opset: 13, in: []operand{normal(sizes(r, 3)...), {dims: []int64{}, fixed: []float64{float64(size(r, 1, 3))}}}}
	},
	"Clip":        func(r *rand.Rand) graph { return graph{op: "Clip", opset: 13, in: []operand{normal(sizes(r, 2)...)}} },
	"HardSigmoid": single("HardSigmoid", kinks(-1, 1.5), func(*rand.Rand) onnx.Attr { return onnx.Float("alpha", 0.4) }, func(*rand.Rand) onnx.Attr { return onnx.Float("beta", 0.4) }),
	// Both ways: the input has sizes where the shape has 1.
	"Expand": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: "Expand", opset: 13, in: []operand{normal(d...), list(partner(r, d)...)}}
	},
	"Where": func(r *rand.Rand) graph { // all three shapes differ
		d := sizes(r, 4)
		return graph{op: "Where", opset: 16, in: []operand{{dims: partner(r, d), bools: true}, normal(partner(r, d)...), normal(partner(r, d)...)}}
	},
	"Reshape": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: "Reshape", opset: 14, in: []operand{normal(d...), list(d[2], d[0]*d[1])}, attrs: []onnx.Attr{onnx.Int("allowzero", r.Int64N(2))}}
	},
	"ReduceSum": noReduction("ReduceSum", 13), "ReduceMean": noReduction("ReduceMean", 18),
	"Concat": func(r *rand.Rand) graph { // with a constant, as a buffer that is joined
		d := sizes(r, 2)
		return graph{op: "Concat", opset: 13, in: []operand{normal(d...), {dims: []int64{1, d[1]}, fixed: slices.Repeat([]float64{0.5}, int(d[1]))}, normal(d...)}, attrs: []onnx.Attr{onnx.Int("axis", 0)}}
	},
	"BatchNormalization": func(r *rand.Rand) graph { // of an image of one pixel, and with another share kept
		c := size(r, 1, 3)
		stat := within(0.5, 2, c)
		stat.still = true
		return graph{op: "BatchNormalization", opset: []int64{9, 14, 15}[r.IntN(3)], in: []operand{normal(size(r, 4, 8), c, 1, 1), normal(c), normal(c), stat, stat},
			attrs: []onnx.Attr{onnx.Float("epsilon", 0.1), onnx.Float("momentum", r.Float32())}}
	},
}

// noReduction has no axes, which these attributes take to mean none.
func noReduction(op string, opset int64) cases {
	return func(r *rand.Rand) graph {
		return graph{op: op, opset: opset, in: []operand{normal(sizes(r, 3)...)}, attrs: []onnx.Attr{onnx.Int("noop_with_empty_axes", 1)}}
	}
}

// Gradients agree with central differences for rare attributes too.
func TestGradientsOfAttributes(t *testing.T) {
	for op, next := range attributeCases {
		t.Run(op, func(t *testing.T) { checkGradients(t, next) })
	}
}
