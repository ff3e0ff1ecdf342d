package grad

import (
	"errors"
	"fmt"
	"slices"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// failure carries an error from deep inside the construction of a graph to
// [catch]: nearly every line of it can meet a shape it cannot handle.
type failure struct{ err error }

// fail stops the construction. The format may wrap an error.
func fail(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// catch turns a failure into *err; deferred at every entry of the package.
func catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = errors.Join(*err, r.err)
	default:
		panic(r)
	}
}

// tape builds a training graph: methods add nodes and know the shape of what
// they add. Methods with lower-case operator names add a node and no more; the
// functions of the same name that take a tape also record how gradients flow
// back.
type tape struct {
	b     *onnx.Builder
	scope string // prefix of the names of new values
	forms Forms
	// record lists the vector-Jacobian products in the order of the forward nodes.
	record   []func()
	scalars  map[float64]*value
	vectors  map[[2]float64]*value
	problems []Problem
	state    []State
	masks    []Mask
	next     map[string]*value // the next value of each running statistic
}

func newTape(graph string) *tape {
	return &tape{b: onnx.NewBuilder(graph), scalars: map[float64]*value{}, vectors: map[[2]float64]*value{}, next: map[string]*value{}}
}

// use returns the value's name in the graph, where it puts constants first.
func (t *tape) use(v *value) string {
	if v.name == "" {
		v.name = t.b.Const(t.scope+"/constant", v.proto())
	}
	return v.name
}

func (t *tape) names(in []*value) []string {
	names := make([]string, len(in))
	for i, v := range in {
		if v != nil {
			names[i] = t.use(v)
		}
	}
	return names
}

// emit adds a node with one output of the given type and shape. A nil input is
// an optional one left out.
func (t *tape) emit(op string, dtype onnx.DType, dims []int64, in []*value, attrs ...onnx.Attr) *value {
	checkDims(dims)
	if slices.Contains(dims, 0) {
		fail("%s makes an empty tensor %v", op, dims)
	}
	return &value{name: t.b.Node(op, t.scope+"/"+op, t.names(in), attrs...), dtype: dtype, dims: slices.Clone(dims)}
}

// input adds an input of the graph.
func (t *tape) input(name string, dtype onnx.DType, dims ...int64) *value {
	checkDims(dims)
	if slices.Contains(dims, 0) {
		fail("%q is an empty tensor %v", name, dims)
	}
	return &value{name: t.b.Input(onnx.Value{Name: name, DType: dtype, Shape: shape(dims)}), dtype: dtype, dims: dims}
}

// output makes v an output of the graph and returns its name.
func (t *tape) output(v *value) string {
	name := t.use(v)
	t.b.Output(onnx.Value{Name: name, DType: v.dtype, Shape: shape(v.dims)})
	return name
}

func shape(dims []int64) []onnx.Dim {
	list := make([]onnx.Dim, len(dims))
	for i, d := range dims {
		list[i].Size = d
	}
	return list
}

func str(name, v string) onnx.Attr {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_STRING.Enum(), S: []byte(v)}
}

// scalar returns a float32 constant of rank 0.
func (t *tape) scalar(x float64) *value {
	v := t.scalars[x]
	if v == nil {
		v = known(onnx.Float32, nil, []float64{x})
		t.scalars[x] = v
	}
	return v
}

// fill returns a float32 vector of n equal numbers.
func (t *tape) fill(x float64, n int64) *value {
	key := [2]float64{x, float64(n)}
	v := t.vectors[key]
	if v == nil {
		if n > maxBuilt {
			fail("%d channels", n)
		}
		v = known(onnx.Float32, []int64{n}, slices.Repeat([]float64{x}, int(n)))
		t.vectors[key] = v
	}
	return v
}

// zeros returns a float32 tensor of zeros.
func (t *tape) zeros(dims []int64) *value { return t.expand(t.scalar(0), dims) }

func (t *tape) add(a, b *value) *value { return t.binary("Add", a, b) }
func (t *tape) sub(a, b *value) *value { return t.binary("Sub", a, b) }
func (t *tape) mul(a, b *value) *value { return t.binary("Mul", a, b) }
func (t *tape) div(a, b *value) *value { return t.binary("Div", a, b) }
func (t *tape) neg(a *value) *value    { return t.unary("Neg", a) }

// scale multiplies by a number.
func (t *tape) scale(a *value, x float64) *value {
	if x == 1 {
		return a
	}
	return t.mul(a, t.scalar(x))
}

// mask is 1 where a comparison holds and 0 elsewhere.
func (t *tape) mask(comparison string, a, b *value) *value {
	return t.cast(t.binary(comparison, a, b), onnx.Float32)
}

// binary adds an element-wise operator with broadcasting.
func (t *tape) binary(op string, a, b *value) *value {
	if a.dtype != b.dtype {
		fail("%s of %v and %v", op, a.dtype, b.dtype)
	}
	dims, dtype := broadcast(a.dims, b.dims), a.dtype
	switch op {
	case "Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor":
		dtype = onnx.Bool
	}
	if f := foldBinary[op]; f != nil && a.known() && b.known() && elements(dims) <= maxKnown {
		x, y := strides(a.dims, dims), strides(b.dims, dims)
		return build(dtype, dims, func(i []int64) float64 {
			p, q := a.data[offset(i, x)], b.data[offset(i, y)]
			if op == "Div" && dtype != onnx.Float32 && dtype != onnx.Float64 && q == 0 {
				fail("division of an integer by 0")
			}
			return f(p, q)
		})
	}
	return t.emit(op, dtype, dims, []*value{a, b})
}

// unary adds an element-wise operator of one input.
func (t *tape) unary(op string, x *value, attrs ...onnx.Attr) *value {
	if f := foldUnary[op]; f != nil && x.known() {
		return build(x.dtype, x.dims, func(i []int64) float64 { return f(x.data[offset(i, strides(x.dims, x.dims))]) })
	}
	return t.emit(op, x.dtype, x.dims, []*value{x}, attrs...)
}

func (t *tape) cast(x *value, to onnx.DType) *value {
	if x.dtype == to {
		return x
	}
	if x.known() {
		return known(to, x.dims, slices.Clone(x.data))
	}
	return t.emit("Cast", to, x.dims, []*value{x}, onnx.Int("to", int64(to)))
}

func (t *tape) where(c, a, b *value) *value {
	if c.dtype != onnx.Bool || a.dtype != b.dtype {
		fail("Where of %v, %v and %v", c.dtype, a.dtype, b.dtype)
	}
	dims := broadcast(broadcast(c.dims, a.dims), b.dims)
	if c.known() && a.known() && b.known() && elements(dims) <= maxKnown {
		sc, sa, sb := strides(c.dims, dims), strides(a.dims, dims), strides(b.dims, dims)
		return build(a.dtype, dims, func(i []int64) float64 {
			if c.data[offset(i, sc)] != 0 {
				return a.data[offset(i, sa)]
			}
			return b.data[offset(i, sb)]
		})
	}
	return t.emit("Where", a.dtype, dims, []*value{c, a, b})
}

// reduce applies ReduceSum, ReduceMean and so on over the axes.
func (t *tape) reduce(op string, x *value, axes []int64, keep bool) *value {
	kept, dropped, one := slices.Clone(x.dims), []int64{}, true
	for i, d := range x.dims {
		if slices.Contains(axes, int64(i)) {
			one = one && d == 1
			kept[i] = 1
		} else {
			dropped = append(dropped, d)
		}
	}
	dims, keepdims := dropped, int64(0)
	if keep {
		dims, keepdims = kept, 1
	}
	if one {
		return t.reshape(x, dims)
	}
	if op == "ReduceSum" {
		return t.emit(op, x.dtype, dims, []*value{x, knownInts(axes)}, onnx.Int("keepdims", keepdims))
	}
	return t.emit(op, x.dtype, dims, []*value{x}, onnx.Ints("axes", axes...), onnx.Int("keepdims", keepdims))
}

// sumTo undoes a broadcast: it adds up what v repeats over the shape.
func (t *tape) sumTo(v *value, dims []int64) *value {
	var axes []int64
	lead := len(v.dims) - len(dims)
	for i := range v.dims {
		if i < lead || dims[i-lead] == 1 && v.dims[i] != 1 {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) > 0 {
		v = t.reduce("ReduceSum", v, axes, true)
	}
	return t.reshape(v, dims)
}

func (t *tape) matmul(a, b *value) *value {
	n, m := len(a.dims), len(b.dims)
	if n < 2 || m < 2 || a.dims[n-1] != b.dims[m-2] {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	dims := append(broadcast(a.dims[:n-2], b.dims[:m-2]), a.dims[n-2], b.dims[m-1])
	return t.emit("MatMul", a.dtype, dims, []*value{a, b})
}

// gemm is alpha·A·B of matrices, either of which may be transposed.
func (t *tape) gemm(a, b *value, transA, transB bool, alpha float64) *value {
	if len(a.dims) != 2 || len(b.dims) != 2 {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	m, k := a.dims[0], a.dims[1]
	if transA {
		m, k = k, m
	}
	l, n := b.dims[0], b.dims[1]
	if transB {
		l, n = n, l
	}
	if k != l {
		fail("a product of shapes %v and %v", a.dims, b.dims)
	}
	return t.emit("Gemm", a.dtype, []int64{m, n}, []*value{a, b},
		onnx.Int("transA", flag(transA)), onnx.Int("transB", flag(transB)), onnx.Float("alpha", float32(alpha)))
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
