package grad

import (
	"math"

	"sela/stages/internal/onnx"
)

var activations = map[string]operator{
	"Relu":    unaryOperator(relu),
	"Sigmoid": unaryOperator(sigmoid),
	"Tanh":    unaryOperator(tanh),
	"Erf":     unaryOperator(erf),
	"LeakyRelu": {1, 1, one(func(t *tape, n *node) *value {
		x, alpha := n.in[0], n.float("alpha", 0.01)
		y := t.emit("LeakyRelu", x.dtype, x.dims, []*value{x}, onnx.Float("alpha", float32(alpha)))
		return t.diff(y, wrt(x, func(dy *value) *value {
			slope := t.add(t.scale(t.mask("Greater", x, t.scalar(0)), 1-alpha), t.scalar(alpha))
			return t.mul(dy, slope)
		}))
	})},
	"Gelu": {1, 1, one(func(t *tape, n *node) *value {
		x := n.in[0]
		switch form := n.text("approximate", "none"); form {
		case "none": // ½·x·(1 + erf(x/√2))
			return mul(t, mul(t, x, t.scalar(0.5)), add(t, erf(t, mul(t, x, t.scalar(math.Sqrt2/2))), t.scalar(1)))
		case "tanh": // ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
			cube := mul(t, mul(t, x, x), x)
			inner := mul(t, add(t, x, mul(t, cube, t.scalar(0.044715))), t.scalar(math.Sqrt(2/math.Pi)))
			return mul(t, mul(t, x, t.scalar(0.5)), add(t, tanh(t, inner), t.scalar(1)))
		default:
			fail("attribute approximate is %q", form)
			return nil
		}
	})},
	"HardSigmoid": {1, 1, one(func(t *tape, n *node) *value {
		return hardSigmoid(t, n.in[0], n.float("alpha", 0.2), n.float("beta", 0.5))
	})},
	"HardSwish": unaryOperator(func(t *tape, x *value) *value { return mul(t, x, hardSigmoid(t, x, 1./6, 0.5)) }),
	"Softplus": unaryOperator(func(t *tape, x *value) *value {
		return t.diff(t.unary("Softplus", x), wrt(x, func(dy *value) *value { return t.mul(dy, t.unary("Sigmoid", x)) }))
	}),

	"Softmax":    softmaxOperator("Softmax"),
	"LogSoftmax": softmaxOperator("LogSoftmax"),

	"Dropout": {1, 3, one(dropout)},
}

func relu(t *tape, x *value) *value {
	y := t.unary("Relu", x)
	return t.diff(y, wrt(x, func(dy *value) *value { return t.mul(dy, t.mask("Greater", y, t.scalar(0))) }))
}

func sigmoid(t *tape, x *value) *value {
	y := t.unary("Sigmoid", x)
	return t.diff(y, wrt(x, func(dy *value) *value { return t.mul(dy, t.mul(y, t.sub(t.scalar(1), y))) }))
}

func tanh(t *tape, x *value) *value {
	y := t.unary("Tanh", x)
	return t.diff(y, wrt(x, func(dy *value) *value { return t.mul(dy, t.sub(t.scalar(1), t.mul(y, y))) }))
}

func erf(t *tape, x *value) *value {
	return t.diff(t.unary("Erf", x), wrt(x, func(dy *value) *value {
		return t.mul(dy, t.scale(t.unary("Exp", t.neg(t.mul(x, x))), 2/math.Sqrt(math.Pi)))
	}))
}

func hardSigmoid(t *tape, x *value, alpha, beta float64) *value {
	return clipTo(t, add(t, mul(t, x, t.scalar(alpha)), t.scalar(beta)), t.scalar(0), t.scalar(1))
}

// softmaxOperator normalises along one axis; before operator set 13, along all
// axes from the given one on.
func softmaxOperator(op string) operator {
	return operator{1, 1, one(func(t *tape, n *node) *value {
		x := n.in[0]
		rank := len(x.dims)
		if n.opset >= 13 {
			return softmax(t, op, x, axis(n.int("axis", -1), rank))
		}
		a := axis(n.int("axis", 1), rank)
		flat := []int64{elements(x.dims[:a]), elements(x.dims[a:])}
		return reshape(t, softmax(t, op, reshape(t, x, flat), 1), x.dims)
	})}
}

func softmax(t *tape, op string, x *value, axis int64) *value {
	y := t.unary(op, x, onnx.Int("axis", axis))
	sum := func(v *value) *value { return t.reduce("ReduceSum", v, []int64{axis}, true) }
	return t.diff(y, wrt(x, func(dy *value) *value {
		if op == "LogSoftmax" {
			return t.sub(dy, t.mul(t.unary("Exp", y), sum(dy)))
		}
		return t.mul(y, t.sub(dy, sum(t.mul(dy, y))))
	}))
}

// dropout multiplies by a mask that the caller draws.
func dropout(t *tape, n *node) *value {
	x := n.in[0]
	n.int("seed", 0) // the caller's masks have their own
	ratio := n.float("ratio", 0.5)
	if r := n.input(1); r != nil {
		if len(r.data) != 1 {
			fail("its ratio is no constant")
		}
		ratio = r.data[0]
	}
	if !(ratio >= 0 && ratio < 1) {
		fail("a ratio of %g", ratio)
	}
	if ratio == 0 {
		return x
	}
	mask := t.input("mask", onnx.Float32, x.dims...)
	t.masks = append(t.masks, Mask{Input: mask.name, Dims: x.dims, Ratio: ratio})
	return mul(t, x, mask)
}
