package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

var linear = map[string]operator{
	"MatMul": binaryOperator(matmul),
	"Gemm":   {2, 3, one(gemm)},
}

// matmul multiplies stacks of matrices by NumPy's rules.
func matmul(t *tape, a, b *value) *value {
	if len(a.dims) == 0 || len(b.dims) == 0 {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	if len(a.dims) == 1 {
		y := matmul(t, reshape(t, a, []int64{1, a.dims[0]}), b)
		at := len(y.dims) - 2
		if len(b.dims) == 1 {
			at = 0 // the column is gone already
		}
		return reshape(t, y, slices.Delete(slices.Clone(y.dims), at, at+1))
	}
	if len(b.dims) == 1 {
		y := matmul(t, a, reshape(t, b, []int64{b.dims[0], 1}))
		return reshape(t, y, y.dims[:len(y.dims)-1])
	}
	y := t.matmul(a, b)
	if len(b.dims) == 2 {
		// A stack of matrices times one matrix is one product, and so are both of
		// its gradients.
		rows := func(v *value) *value {
			last := v.dims[len(v.dims)-1]
			return t.reshape(v, []int64{elements(v.dims) / last, last})
		}
		return t.diff(y,
			wrt(a, func(dy *value) *value { return t.reshape(t.gemm(rows(dy), b, false, true, 1), a.dims) }),
			wrt(b, func(dy *value) *value { return t.gemm(rows(a), rows(dy), true, false, 1) }))
	}
	return t.diff(y,
		wrt(a, func(dy *value) *value { return t.sumTo(t.matmul(dy, t.swap(b)), a.dims) }),
		wrt(b, func(dy *value) *value { return t.sumTo(t.matmul(t.swap(a), dy), b.dims) }))
}

// gemm is Y = alpha·A'·B' + beta·C, where A' is A or its transpose, likewise B'.
func gemm(t *tape, n *node) *value {
	a, b, c := n.in[0], n.in[1], n.input(2)
	alpha, beta := n.float("alpha", 1), n.float("beta", 1)
	transA, transB := n.int("transA", 0) != 0, n.int("transB", 0) != 0
	if len(a.dims) != 2 || len(b.dims) != 2 {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	in := []*value{a, b}
	if c != nil {
		in = append(in, c)
	}
	m, k, l, o := a.dims[0], a.dims[1], b.dims[0], b.dims[1]
	if transA {
		m, k = k, m
	}
	if transB {
		l, o = o, l
	}
	dims := []int64{m, o}
	if k != l || c != nil && !slices.Equal(broadcast(dims, c.dims), dims) {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	y := t.emit("Gemm", a.dtype, dims, in, onnx.Float("alpha", float32(alpha)), onnx.Float("beta", float32(beta)),
		onnx.Int("transA", flag(transA)), onnx.Int("transB", flag(transB)))
	flows := []flow{
		wrt(a, func(dy *value) *value {
			if transA {
				return t.gemm(b, dy, transB, true, alpha)
			}
			return t.gemm(dy, b, false, !transB, alpha)
		}),
		wrt(b, func(dy *value) *value {
			if transB {
				return t.gemm(dy, a, true, transA, alpha)
			}
			return t.gemm(a, dy, !transA, false, alpha)
		}),
	}
	if c != nil {
		flows = append(flows, wrt(c, func(dy *value) *value { return t.scale(t.sumTo(dy, c.dims), beta) }))
	}
	return t.diff(y, flows...)
}
