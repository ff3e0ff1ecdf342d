package grad

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// cases returns graphs of one operator of random shapes and attributes.
type cases func(r *rand.Rand) graph

func size(r *rand.Rand, low, high int64) int64 { return low + r.Int64N(high-low+1) }

func sizes(r *rand.Rand, rank int) []int64 {
	dims := make([]int64, rank)
	for i := range dims {
		dims[i] = size(r, 1, 4)
	}
	return dims
}

// partner returns a shape that goes together with dims.
func partner(r *rand.Rand, dims []int64) []int64 {
	other := slices.Clone(dims[r.IntN(len(dims)):])
	for i := range other {
		if r.IntN(3) == 0 {
			other[i] = 1
		}
	}
	return other
}

// pair is a binary operator whose operands each draws.
func pair(op string, a, b func(r *rand.Rand) float64) cases {
	return func(r *rand.Rand) graph {
		x := sizes(r, 1+r.IntN(4))
		y := partner(r, x)
		in := []operand{{dims: x, draw: a}, {dims: y, draw: b}}
		if r.IntN(2) == 0 {
			in[0].dims, in[1].dims = y, x
		}
		return graph{op: op, opset: 13, in: in}
	}
}

func single(op string, draw func(dims ...int64) operand, attrs ...func(r *rand.Rand) onnx.Attr) cases {
	return func(r *rand.Rand) graph {
		g := graph{op: op, opset: 13, in: []operand{draw(sizes(r, 1+r.IntN(4))...)}}
		if op == "Gelu" {
			g.opset = 20
		}
		for _, a := range attrs {
			g.attrs = append(g.attrs, a(r))
		}
		return g
	}
}

func positive(low, high float64) func(dims ...int64) operand {
	return func(dims ...int64) operand { return within(low, high, dims...) }
}

func kinks(points ...float64) func(dims ...int64) operand {
	return func(dims ...int64) operand { return away(points, dims...) }
}

func uniformIn(low, high float64) func(r *rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return low + (high-low)*r.Float64() }
}

// grid draws from a grid that is offset from the other operand's.
func grid(shift float64) func(r *rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return float64(r.IntN(9)-4)/2 + shift }
}

var operatorCases = map[string]cases{
	"Add": pair("Add", nil, nil), "Sub": pair("Sub", nil, nil), "Mul": pair("Mul", nil, nil),
	"Div": pair("Div", nil, uniformIn(1, 3)),
	"Pow": func(r *rand.Rand) graph {
		if r.IntN(2) == 0 {
			g := pair("Pow", uniformIn(0.5, 2), uniformIn(-1, 2))(r)
			return g
		}
		c := []float64{2, 3, 0.5, -1}[r.IntN(4)]
		return graph{op: "Pow", opset: 13, in: []operand{within(0.5, 2, sizes(r, 3)...), {dims: []int64{}, fixed: []float64{c}}}}
	},
	"Max": pair("Max", grid(0), grid(0.25)), "Min": pair("Min", grid(0), grid(0.25)),
	"Sum": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: "Sum", opset: 13, in: []operand{normal(d...), normal(partner(r, d)...), normal(d...)}}
	},
	"Neg": single("Neg", normal), "Exp": single("Exp", normal), "Log": single("Log", positive(0.5, 3)),
	"Sqrt": single("Sqrt", positive(0.5, 3)), "Reciprocal": single("Reciprocal", positive(0.8, 3)), "Abs": single("Abs", kinks(0)),
	"Clip": func(r *rand.Rand) graph {
		g := graph{op: "Clip", opset: 6, in: []operand{away([]float64{-0.5, 1}, sizes(r, 3)...)}}
		switch r.IntN(4) {
		case 0:
			g.attrs = []onnx.Attr{onnx.Float("min", -0.5), onnx.Float("max", 1)}
		case 1:
			g.opset, g.in = 13, append(g.in, operand{dims: []int64{}, fixed: []float64{-0.5}})
		case 2:
			g.opset, g.in = 13, append(g.in, operand{}, operand{dims: []int64{}, fixed: []float64{1}})
		default:
			g.opset, g.in = 13, append(g.in, operand{dims: []int64{}, fixed: []float64{-0.5}}, operand{dims: []int64{}, fixed: []float64{1}})
		}
		return g
	},
	"Where": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: "Where", opset: 13, in: []operand{{dims: partner(r, d), bools: true}, normal(d...), normal(partner(r, d)...)}}
	},
	"Identity": single("Identity", normal),
	"Cast":     single("Cast", normal, func(*rand.Rand) onnx.Attr { return onnx.Int("to", int64(onnx.Float32)) }),

	"Relu": single("Relu", kinks(0)), "Sigmoid": single("Sigmoid", normal), "Tanh": single("Tanh", normal), "Erf": single("Erf", normal),
	"LeakyRelu": single("LeakyRelu", kinks(0), func(r *rand.Rand) onnx.Attr { return onnx.Float("alpha", r.Float32()) }),
	"Gelu": single("Gelu", normal, func(r *rand.Rand) onnx.Attr {
		return str("approximate", []string{"none", "tanh"}[r.IntN(2)])
	}),
	"HardSigmoid": single("HardSigmoid", kinks(-2.5, 2.5)), "HardSwish": single("HardSwish", kinks(-3, 3)), "Softplus": single("Softplus", normal),
	"Softmax": softmaxCases("Softmax"), "LogSoftmax": softmaxCases("LogSoftmax"),
	"Dropout": func(r *rand.Rand) graph {
		return graph{op: "Dropout", opset: 13, mask: 1.5, in: []operand{normal(sizes(r, 3)...), {dims: []int64{}, fixed: []float64{0.25}}}}
	},

	"MatMul": func(r *rand.Rand) graph {
		m, k, n := size(r, 1, 5), size(r, 1, 5), size(r, 1, 5)
		stack := sizes(r, 1+r.IntN(2))
		left := append(slices.Clone(stack), m, k)
		switch r.IntN(6) {
		case 0:
			return graph{op: "MatMul", opset: 13, in: []operand{normal(left...), normal(k, n)}}
		case 1:
			return graph{op: "MatMul", opset: 13, in: []operand{normal(left...), normal(k)}}
		case 2:
			return graph{op: "MatMul", opset: 13, in: []operand{normal(k), normal(append(slices.Clone(stack), k, n)...)}}
		case 3:
			return graph{op: "MatMul", opset: 13, in: []operand{normal(k), normal(k)}}
		case 4:
			return graph{op: "MatMul", opset: 13, in: []operand{normal(m, k), normal(append(partner(r, stack), k, n)...)}}
		}
		return graph{op: "MatMul", opset: 13, in: []operand{normal(left...), normal(append(partner(r, stack), k, n)...)}}
	},
	"Gemm": func(r *rand.Rand) graph {
		m, k, n := size(r, 1, 5), size(r, 1, 5), size(r, 1, 5)
		a, b := []int64{m, k}, []int64{k, n}
		transA, transB := r.Int64N(2), r.Int64N(2)
		if transA == 1 {
			a = []int64{k, m}
		}
		if transB == 1 {
			b = []int64{n, k}
		}
		g := graph{op: "Gemm", opset: 13, in: []operand{normal(a...), normal(b...)}, attrs: []onnx.Attr{
			onnx.Int("transA", transA), onnx.Int("transB", transB), onnx.Float("alpha", 0.5+r.Float32()), onnx.Float("beta", 0.5+r.Float32())}}
		if c := [][]int64{nil, {n}, {1}, {m, 1}, {m, n}, {1, n}}[r.IntN(6)]; c != nil {
			g.in = append(g.in, normal(c...))
		}
		return g
	},

	"Conv": convCases,
	"MaxPool": func(r *rand.Rand) graph {
		g := poolCase(r, "MaxPool")
		g.in[0].apart = true
		return g
	},
	"AveragePool": func(r *rand.Rand) graph {
		g := poolCase(r, "AveragePool")
		g.attrs = append(g.attrs, onnx.Int("count_include_pad", r.Int64N(2)))
		return g
	},
	"GlobalAveragePool": func(r *rand.Rand) graph {
		return graph{op: "GlobalAveragePool", opset: 13, in: []operand{normal(sizes(r, 4)...)}}
	},
	"BatchNormalization": func(r *rand.Rand) graph {
		d := append([]int64{size(r, 4, 8)}, sizes(r, []int{1, 2, 3}[r.IntN(3)])...)
		c := d[1]
		stat := within(0.5, 2, c)
		stat.still = true
		return graph{op: "BatchNormalization", opset: 13, in: []operand{normal(d...), normal(c), normal(c), stat, stat},
			attrs: []onnx.Attr{onnx.Float("epsilon", 0.1)}}
	},
	"LayerNormalization": func(r *rand.Rand) graph {
		d := append(sizes(r, 1+r.IntN(2)), size(r, 4, 8))
		a := size(r, 1, int64(len(d)))
		p := d[int64(len(d))-a:]
		g := graph{op: "LayerNormalization", opset: 17, in: []operand{normal(d...), normal(p...)},
			attrs: []onnx.Attr{onnx.Int("axis", -a), onnx.Float("epsilon", 0.1)}}
		if r.IntN(3) > 0 {
			g.in = append(g.in, normal(p...))
		}
		return g
	},

	"Reshape": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		to := [][]int64{{-1}, {0, -1}, {d[0] * d[1], d[2]}, {d[2], -1, 1, d[0]}}[r.IntN(4)]
		return graph{op: "Reshape", opset: 13, in: []operand{normal(d...), list(to...)}}
	},
	"Flatten": func(r *rand.Rand) graph {
		return graph{op: "Flatten", opset: 13, in: []operand{normal(sizes(r, 4)...)}, attrs: []onnx.Attr{onnx.Int("axis", size(r, -4, 4))}}
	},
	"Squeeze": func(r *rand.Rand) graph {
		d := []int64{size(r, 1, 3), 1, size(r, 1, 3), 1}
		if r.IntN(2) == 0 {
			return graph{op: "Squeeze", opset: 11, in: []operand{normal(d...)}, attrs: []onnx.Attr{onnx.Ints("axes", 1, -1)}}
		}
		return graph{op: "Squeeze", opset: 13, in: []operand{normal(d...), list(3)}}
	},
	"Unsqueeze": func(r *rand.Rand) graph {
		if r.IntN(2) == 0 {
			return graph{op: "Unsqueeze", opset: 11, in: []operand{normal(sizes(r, 2)...)}, attrs: []onnx.Attr{onnx.Ints("axes", 0, 2)}}
		}
		return graph{op: "Unsqueeze", opset: 13, in: []operand{normal(sizes(r, 2)...), list(1, -1)}}
	},
	"Transpose": func(r *rand.Rand) graph {
		g := graph{op: "Transpose", opset: 13, in: []operand{normal(sizes(r, 4)...)}}
		if r.IntN(4) > 0 {
			var perm []int64
			for _, p := range r.Perm(4) {
				perm = append(perm, int64(p))
			}
			g.attrs = []onnx.Attr{onnx.Ints("perm", perm...)}
		}
		return g
	},
	"Expand": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: "Expand", opset: 13, in: []operand{normal(partner(r, d)...), list(d...)}}
	},
	"Concat": func(r *rand.Rand) graph {
		a := size(r, -3, 2)
		g := graph{op: "Concat", opset: 13, attrs: []onnx.Attr{onnx.Int("axis", a)}}
		d := sizes(r, 3)
		for range size(r, 1, 3) {
			d = slices.Clone(d)
			d[(a+3)%3] = size(r, 1, 4)
			g.in = append(g.in, normal(d...))
		}
		return g
	},
	"Split": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		a := size(r, 0, 2)
		d[a] = 5
		g := graph{op: "Split", in: []operand{normal(d...)}, attrs: []onnx.Attr{onnx.Int("axis", a)}}
		switch r.IntN(3) {
		case 0:
			g.opset, g.outputs, g.attrs = 11, 3, append(g.attrs, onnx.Ints("split", 1, 3, 1))
		case 1:
			g.opset, g.outputs, g.in = 13, 2, append(g.in, list(2, 3))
		default:
			g.opset, g.outputs, g.attrs = 18, 2, append(g.attrs, onnx.Int("num_outputs", 2))
		}
		return g
	},
	"Slice": func(r *rand.Rand) graph {
		d := []int64{size(r, 3, 7), size(r, 1, 3), size(r, 3, 7)}
		ends := []int64{1 << 62, -(1 << 62)}
		switch r.IntN(5) {
		case 0:
			return graph{op: "Slice", opset: 9, in: []operand{normal(d...)}, attrs: []onnx.Attr{onnx.Ints("starts", 1, -2), onnx.Ints("ends", ends[0], -1), onnx.Ints("axes", 0, 2)}}
		case 1:
			return graph{op: "Slice", opset: 13, in: []operand{normal(d...), list(1), list(2)}}
		case 2: // downwards to the start
			return graph{op: "Slice", opset: 13, in: []operand{normal(d...), list(-1, size(r, 1, 6)), list(ends[1], ends[1]), list(0, 2), list(-1, -size(r, 1, 3))}}
		case 3:
			return graph{op: "Slice", opset: 13, in: []operand{normal(d...), list(size(r, 0, 2), 0), list(ends[0], d[2]-1), list(0, 2), list(size(r, 1, 3), 2)}}
		}
		return graph{op: "Slice", opset: 13, in: []operand{normal(d...), list(2), list(0), list(-1), list(-1)}}
	},
	"Gather": func(r *rand.Rand) graph {
		d := sizes(r, 3)
		a := size(r, -3, 2)
		n := d[(a+3)%3]
		indices := operand{dims: []int64{}, ints: []int64{size(r, -n, n-1)}}
		if r.IntN(2) == 0 {
			indices.dims = []int64{2, 3}
			for range 5 {
				indices.ints = append(indices.ints, size(r, -n, n-1))
			}
		}
		return graph{op: "Gather", opset: 13, in: []operand{normal(d...), indices}, attrs: []onnx.Attr{onnx.Int("axis", a)}}
	},
	"Pad": func(r *rand.Rand) graph {
		d := []int64{size(r, 3, 5), size(r, 1, 3), size(r, 3, 5)}
		pads := []int64{size(r, -1, 2), 0, size(r, 0, 2), size(r, -1, 2), 1, size(r, -2, 1)}
		switch r.IntN(3) {
		case 0:
			return graph{op: "Pad", opset: 10, in: []operand{normal(d...)}, attrs: []onnx.Attr{onnx.Ints("pads", pads...), onnx.Float("value", r.Float32())}}
		case 1:
			return graph{op: "Pad", opset: 13, in: []operand{normal(d...), list(pads...)}, attrs: []onnx.Attr{str("mode", "constant")}}
		}
		return graph{op: "Pad", opset: 18, in: []operand{normal(d...), list(1, -1, 0, 2), {dims: []int64{}, fixed: []float64{0.5}}, list(0, -1)}}
	},
	"ReduceMean": reduceCases("ReduceMean", 18), "ReduceSum": reduceCases("ReduceSum", 13), "ReduceL2": reduceCases("ReduceL2", 18),
}

func reduceCases(op string, since int64) cases {
	return func(r *rand.Rand) graph {
		g := graph{op: op, opset: since - 1, in: []operand{away([]float64{0}, sizes(r, 4)...)}, attrs: []onnx.Attr{onnx.Int("keepdims", r.Int64N(2))}}
		over := [][]int64{nil, {0}, {-1}, {1, 2}, {0, 2, -1}}[r.IntN(5)]
		switch {
		case r.IntN(2) == 0:
			if g.opset = since; over != nil {
				g.in = append(g.in, list(over...))
			}
		case over != nil:
			g.attrs = append(g.attrs, onnx.Ints("axes", over...))
		}
		return g
	}
}

func softmaxCases(op string) cases {
	return func(r *rand.Rand) graph {
		d := sizes(r, 3)
		return graph{op: op, opset: []int64{11, 13}[r.IntN(2)], in: []operand{normal(d...)}, attrs: []onnx.Attr{onnx.Int("axis", size(r, -3, 2))}}
	}
}

func convCases(r *rand.Rand) graph {
	g := []int64{1, 1, 1, 2, 3}[r.IntN(5)]
	in, out := size(r, 1, 5), size(r, 1, 3)
	w := normal(g*out, in, size(r, 1, 4), size(r, 1, 4))
	x := normal(size(r, 1, 3), g*in, size(r, 6, 10), size(r, 6, 10))
	c := graph{op: "Conv", opset: 13, in: []operand{x, w}, attrs: []onnx.Attr{onnx.Int("group", g)}}
	if r.IntN(2) == 0 {
		c.in = append(c.in, normal(g*out))
	}
	if r.IntN(2) == 0 {
		c.attrs = append(c.attrs, onnx.Ints("strides", size(r, 1, 3), size(r, 1, 3)))
	}
	switch r.IntN(4) {
	case 0:
		c.attrs = append(c.attrs, str("auto_pad", []string{"SAME_UPPER", "SAME_LOWER", "VALID"}[r.IntN(3)]))
	case 1:
		c.attrs = append(c.attrs, onnx.Ints("pads", size(r, 0, 2), size(r, 0, 2), size(r, 0, 2), size(r, 0, 2)), onnx.Ints("kernel_shape", w.dims[2:]...))
	case 2:
		c.attrs = append(c.attrs, onnx.Ints("dilations", size(r, 1, 2), size(r, 1, 2)), onnx.Ints("pads", 2, 0, 0, 1))
	}
	return c
}

func poolCase(r *rand.Rand, op string) graph {
	kh, kw := size(r, 1, 3), size(r, 1, 3)
	g := graph{op: op, opset: 13, in: []operand{normal(size(r, 1, 2), size(r, 1, 3), size(r, 4, 9), size(r, 4, 9))},
		attrs: []onnx.Attr{onnx.Ints("kernel_shape", kh, kw), onnx.Ints("strides", size(r, 1, 3), size(r, 1, 3))}}
	switch r.IntN(3) {
	case 0:
		g.attrs = append(g.attrs, str("auto_pad", []string{"SAME_UPPER", "SAME_LOWER", "VALID"}[r.IntN(3)]))
	case 1:
		g.attrs = append(g.attrs, onnx.Ints("pads", kh/2, kw/2, kh-1, kw/2), onnx.Int("ceil_mode", r.Int64N(2)))
	default:
		g.attrs = append(g.attrs, onnx.Int("ceil_mode", r.Int64N(2)))
	}
	return g
}

// Every operator's gradients agree with central differences, over random
// shapes and attributes and in every form.
func TestGradients(t *testing.T) {
	for op, next := range operatorCases {
		t.Run(op, func(t *testing.T) { checkGradients(t, next) })
	}
}

func checkGradients(t *testing.T, next cases) {
	t.Helper()
	ts := &trials{tape: newTape("trials"), feeds: map[string][]float32{}}
	add := func(g graph, seed uint64, forms Forms) []Problem {
		problems, err := ts.add(g, seed, forms)
		if err != nil {
			t.Fatalf("%v %v: %v", g, forms, err)
		}
		return problems
	}
	for i := range uint64(36) {
		g := next(rand.New(rand.NewPCG(i, 9)))
		for _, p := range add(g, i, nil) {
			for _, name := range p.Forms[1:] {
				add(g, i, Forms{p.Key: name})
			}
		}
	}
	ts.check(t)
}

// Every operator that a gradient flows through is tested.
func TestGradientsCoverOperators(t *testing.T) {
	constant := []string{"Constant", "ConstantOfShape", "Shape", "Size", "Range", "ReduceProd", "Sign", "Floor", "Ceil", "Round", "Not",
		"And", "Or", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"}
	for op := range operators {
		if _, ok := operatorCases[op]; !ok && !slices.Contains(constant, op) {
			t.Errorf("operator %s has no test of its gradient", op)
		}
	}
}
