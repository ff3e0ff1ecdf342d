package grad

import (
	"math"

	"sela/stages/internal/onnx"
)

// What is known while the graph is built is computed there: exports work out
// shapes in the graph, and shapes must be numbers here.

var foldBinary = map[string]func(a, b float64) float64{
	"Add":            func(a, b float64) float64 { return a + b },
	"Sub":            func(a, b float64) float64 { return a - b },
	"Mul":            func(a, b float64) float64 { return a * b },
	"Div":            func(a, b float64) float64 { return a / b }, // build truncates integers
	"Pow":            math.Pow,
	"Min":            math.Min,
	"Max":            math.Max,
	"Equal":          func(a, b float64) float64 { return truth(a == b) },
	"Greater":        func(a, b float64) float64 { return truth(a > b) },
	"Less":           func(a, b float64) float64 { return truth(a < b) },
	"GreaterOrEqual": func(a, b float64) float64 { return truth(a >= b) },
	"LessOrEqual":    func(a, b float64) float64 { return truth(a <= b) },
	"And":            func(a, b float64) float64 { return truth(a != 0 && b != 0) },
	"Or":             func(a, b float64) float64 { return truth(a != 0 || b != 0) },
}

var foldUnary = map[string]func(x float64) float64{
	"Neg":        func(x float64) float64 { return -x },
	"Sqrt":       math.Sqrt,
	"Reciprocal": func(x float64) float64 { return 1 / x },
	"Floor":      math.Floor,
	"Ceil":       math.Ceil,
	"Abs":        math.Abs,
	"Not":        func(x float64) float64 { return truth(x == 0) },
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// build returns a constant whose elements f gives by their index, which f must
// not keep.
func build(dtype onnx.DType, dims []int64, f func(index []int64) float64) *value {
	checkDims(dims)
	if elements(dims) > maxBuilt {
		fail("a constant of shape %v", dims)
	}
	data := make([]float64, elements(dims))
	index := make([]int64, len(dims))
	for i := range data {
		data[i] = f(index)
		for j := len(index) - 1; j >= 0; j-- {
			if index[j]++; index[j] < dims[j] {
				break
			}
			index[j] = 0
		}
	}
	return known(dtype, append([]int64(nil), dims...), data)
}

// strides returns the distance in memory between neighbours along each axis of
// the shape out, for a tensor of shape dims broadcast to it.
func strides(dims, out []int64) []int64 {
	s := make([]int64, len(out))
	step, lead := int64(1), len(out)-len(dims)
	for i := len(dims) - 1; i >= 0; i-- {
		if dims[i] != 1 {
			s[lead+i] = step
		}
		step *= dims[i]
	}
	return s
}

func offset(index, strides []int64) int64 {
	at := int64(0)
	for i, x := range index {
		at += x * strides[i]
	}
	return at
}
