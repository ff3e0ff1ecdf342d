package grad

import (
	"math"

	"sela/stages/internal/onnx"
)

var elementwise = map[string]operator{
	"Add": binaryOperator(add),
	"Sub": binaryOperator(sub),
	"Mul": binaryOperator(mul),
	"Div": binaryOperator(div),
	"Pow": binaryOperator(pow),
	"Sum": foldTo(add),
	"Max": foldTo(func(t *tape, a, b *value) *value { return extreme(t, "Max", "Greater", a, b) }),
	"Min": foldTo(func(t *tape, a, b *value) *value { return extreme(t, "Min", "Less", a, b) }),

	"Neg":        unaryOperator(func(t *tape, x *value) *value { return t.diff(t.neg(x), wrt(x, t.neg)) }),
	"Exp":        unaryOperator(exp),
	"Log":        unaryOperator(log),
	"Sqrt":       unaryOperator(sqrt),
	"Reciprocal": unaryOperator(func(t *tape, x *value) *value { return div(t, t.scalar(1), x) }),
	"Abs":        unaryOperator(abs),
	"Clip":       {1, 3, one(clip)},
	"Where": {3, 3, one(func(t *tape, n *node) *value {
		c, a, b := n.in[0], n.in[1], n.in[2]
		return t.diff(t.where(c, a, b),
			wrt(a, func(dy *value) *value { return t.sumTo(t.where(c, dy, t.scalar(0)), a.dims) }),
			wrt(b, func(dy *value) *value { return t.sumTo(t.where(c, t.scalar(0), dy), b.dims) }))
	})},
	"Cast": {1, 1, one(func(t *tape, n *node) *value {
		x, to := n.in[0], onnx.DType(n.int("to", 0))
		n.int("saturate", 1) // concerns 8-bit floats
		if to == 0 {
			fail("no type to cast to")
		}
		y := t.cast(x, to)
		if y == x || to != onnx.Float32 && to != onnx.Float64 && to != onnx.Float16 && to != onnx.BFloat16 {
			return y // integers have no gradient
		}
		return t.diff(y, wrt(x, func(dy *value) *value { return t.cast(dy, onnx.Float32) }))
	})},
	"Identity": unaryOperator(func(_ *tape, x *value) *value { return x }),

	// Piecewise constant, or not numbers: no gradient flows back.
	"Sign":           unaryOperator(func(t *tape, x *value) *value { return t.unary("Sign", x) }),
	"Floor":          unaryOperator(func(t *tape, x *value) *value { return t.unary("Floor", x) }),
	"Ceil":           unaryOperator(func(t *tape, x *value) *value { return t.unary("Ceil", x) }),
	"Round":          unaryOperator(func(t *tape, x *value) *value { return t.unary("Round", x) }),
	"Not":            unaryOperator(func(t *tape, x *value) *value { return t.unary("Not", x) }),
	"And":            logical("And"),
	"Or":             logical("Or"),
	"Equal":          logical("Equal"),
	"Greater":        logical("Greater"),
	"Less":           logical("Less"),
	"GreaterOrEqual": logical("GreaterOrEqual"),
	"LessOrEqual":    logical("LessOrEqual"),
}

func logical(op string) operator {
	return binaryOperator(func(t *tape, a, b *value) *value { return t.binary(op, a, b) })
}

func add(t *tape, a, b *value) *value {
	return t.diff(t.add(a, b),
		wrt(a, func(dy *value) *value { return t.sumTo(dy, a.dims) }),
		wrt(b, func(dy *value) *value { return t.sumTo(dy, b.dims) }))
}

func sub(t *tape, a, b *value) *value {
	return t.diff(t.sub(a, b),
		wrt(a, func(dy *value) *value { return t.sumTo(dy, a.dims) }),
		wrt(b, func(dy *value) *value { return t.neg(t.sumTo(dy, b.dims)) }))
}

func mul(t *tape, a, b *value) *value {
	return t.diff(t.mul(a, b),
		wrt(a, func(dy *value) *value { return t.sumTo(t.mul(dy, b), a.dims) }),
		wrt(b, func(dy *value) *value { return t.sumTo(t.mul(dy, a), b.dims) }))
}

func div(t *tape, a, b *value) *value {
	y := t.div(a, b)
	return t.diff(y,
		wrt(a, func(dy *value) *value { return t.sumTo(t.div(dy, b), a.dims) }),
		wrt(b, func(dy *value) *value { return t.neg(t.sumTo(t.mul(t.div(dy, b), y), b.dims)) }))
}

func pow(t *tape, a, b *value) *value {
	if b.known() && b.dtype != a.dtype {
		b = t.cast(b, a.dtype)
	}
	if len(b.data) == 1 && elements(broadcast(a.dims, b.dims)) == elements(a.dims) && len(a.dims) >= len(b.dims) {
		switch c := b.data[0]; {
		case a.known():
		case c == 2:
			// A product is many times faster than a power.
			return t.diff(t.mul(a, a), wrt(a, func(dy *value) *value { return t.mul(dy, t.scale(a, 2)) }))
		case c == 0.5:
			return sqrt(t, a)
		}
	}
	y := t.binary("Pow", a, b)
	return t.diff(y,
		wrt(a, func(dy *value) *value {
			slope := t.mul(b, t.binary("Pow", a, t.sub(b, t.scalar(1))))
			return t.sumTo(t.mul(dy, slope), a.dims)
		}),
		wrt(b, func(dy *value) *value {
			return t.sumTo(t.mul(t.mul(dy, y), t.unary("Log", a)), b.dims)
		}))
}

// extreme is the larger or smaller of two. Equal ones share the gradient, as in
// PyTorch.
func extreme(t *tape, op, wins string, a, b *value) *value {
	share := func(x, y *value) func(dy *value) *value {
		return func(dy *value) *value {
			half := t.scale(t.mask("Equal", x, y), 0.5)
			return t.sumTo(t.mul(dy, t.add(t.mask(wins, x, y), half)), x.dims)
		}
	}
	return t.diff(t.binary(op, a, b), wrt(a, share(a, b)), wrt(b, share(b, a)))
}

func exp(t *tape, x *value) *value {
	y := t.unary("Exp", x)
	return t.diff(y, wrt(x, func(dy *value) *value { return t.mul(dy, y) }))
}

func log(t *tape, x *value) *value {
	return t.diff(t.unary("Log", x), wrt(x, func(dy *value) *value { return t.div(dy, x) }))
}

func sqrt(t *tape, x *value) *value {
	y := t.unary("Sqrt", x)
	return t.diff(y, wrt(x, func(dy *value) *value { return t.scale(t.div(dy, y), 0.5) }))
}

func abs(t *tape, x *value) *value {
	return t.diff(t.unary("Abs", x), wrt(x, func(dy *value) *value { return t.mul(dy, t.unary("Sign", x)) }))
}

func clip(t *tape, n *node) *value {
	low, high := n.input(1), n.input(2)
	if n.opset < 11 {
		low, high = t.scalar(n.float("min", -math.MaxFloat32)), t.scalar(n.float("max", math.MaxFloat32))
	}
	return clipTo(t, n.in[0], low, high)
}

// clipTo bounds x; a bound that is nil is none. The gradient passes at the
// bounds themselves, as in PyTorch.
func clipTo(t *tape, x, low, high *value) *value {
	for _, bound := range []*value{low, high} {
		if bound != nil && (elements(bound.dims) != 1 || bound.dtype != x.dtype) {
			fail("a bound of type %v and shape %v", bound.dtype, bound.dims)
		}
		if bound != nil && bound.needs {
			fail("a trained bound")
		}
	}
	y := x
	var inside func() *value
	switch {
	case low == nil && high == nil:
		return x
	case low != nil && high != nil:
		low, high = t.reshape(low, nil), t.reshape(high, nil)
		y = t.emit("Clip", x.dtype, x.dims, []*value{x, low, high})
		inside = func() *value {
			return t.cast(t.binary("And", t.binary("GreaterOrEqual", x, low), t.binary("LessOrEqual", x, high)), onnx.Float32)
		}
	case low != nil:
		low = t.reshape(low, nil)
		y = t.binary("Max", x, low)
		inside = func() *value { return t.mask("GreaterOrEqual", x, low) }
	default:
		high = t.reshape(high, nil)
		y = t.binary("Min", x, high)
		inside = func() *value { return t.mask("LessOrEqual", x, high) }
	}
	return t.diff(y, wrt(x, func(dy *value) *value { return t.mul(dy, inside()) }))
}
