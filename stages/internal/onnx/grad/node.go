package grad

import (
	"slices"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// node is a node of the inference graph that is being translated.
type node struct {
	p     *onnxpb.NodeProto
	model *onnx.Model
	opset int64
	in    []*value        // nil: an optional input left out
	read  map[string]bool // attributes that the translation asked for
	// frozen says whether the statistics a node reads are to stay.
	frozen func(name string) bool
	// raw gives the initialiser that input i is, "" if it is none.
	raw func(i int) string
}

// input returns an optional input, nil where it is left out.
func (n *node) input(i int) *value {
	if i < len(n.in) {
		return n.in[i]
	}
	return nil
}

func (n *node) attr(name string, kind onnxpb.AttributeProto_AttributeType) *onnxpb.AttributeProto {
	n.read[name] = true
	for _, a := range n.p.Attribute {
		if a.GetName() == name {
			if a.GetType() != kind && a.GetType() != onnxpb.AttributeProto_UNDEFINED {
				fail("attribute %s is of type %v, want %v", name, a.GetType(), kind)
			}
			return a
		}
	}
	return nil
}

func (n *node) int(name string, otherwise int64) int64 {
	if a := n.attr(name, onnxpb.AttributeProto_INT); a != nil {
		return a.GetI()
	}
	return otherwise
}

func (n *node) float(name string, otherwise float64) float64 {
	if a := n.attr(name, onnxpb.AttributeProto_FLOAT); a != nil {
		return float64(a.GetF())
	}
	return otherwise
}

func (n *node) text(name, otherwise string) string {
	if a := n.attr(name, onnxpb.AttributeProto_STRING); a != nil {
		return string(a.GetS())
	}
	return otherwise
}

// ints returns nil where the attribute is absent.
func (n *node) ints(name string) []int64 {
	if a := n.attr(name, onnxpb.AttributeProto_INTS); a != nil {
		return slices.Clone(a.Ints)
	}
	return nil
}

// axis returns an axis of a tensor of the given rank, counted from its start.
func axis(a int64, rank int) int64 {
	r := int64(rank)
	if a < -r || a >= r {
		fail("axis %d of a tensor of rank %d", a, rank)
	}
	if a < 0 {
		a += r
	}
	return a
}

func axes(list []int64, rank int) []int64 {
	var out []int64
	for _, a := range list {
		a = axis(a, rank)
		if slices.Contains(out, a) {
			fail("axis %d is named twice", a)
		}
		out = append(out, a)
	}
	return out
}

// constants returns the contents of an input that the shapes of the graph
// depend on, nil where the input is left out.
func (n *node) constants(i int, what string) []int64 {
	v := n.input(i)
	if v == nil {
		return nil
	}
	if !v.known() || v.dtype != onnx.Int64 && v.dtype != onnx.Int32 || len(v.dims) > 1 {
		fail("its %s depend on the images or are no list of integers: only graphs of static shape can be trained", what)
	}
	return v.ints()
}

// list returns integers that are an attribute in operator sets before since,
// and input i from then on.
func (n *node) list(name string, i int, since int64) []int64 {
	if n.opset < since {
		return n.ints(name)
	}
	return n.constants(i, name)
}

// unread returns the name of an attribute that means something the translation
// knows nothing of, "" if there is none.
func (n *node) unread() string {
	for _, a := range n.p.Attribute {
		if !n.read[a.GetName()] {
			return a.GetName()
		}
	}
	return ""
}

// operator says how a node is translated. Every input up to min must be given.
type operator struct {
	min, max  int
	translate func(t *tape, n *node) []*value
}

// one wraps a translation that has one output.
func one(f func(t *tape, n *node) *value) func(*tape, *node) []*value {
	return func(t *tape, n *node) []*value { return []*value{f(t, n)} }
}

func unaryOperator(f func(t *tape, x *value) *value) operator {
	return operator{1, 1, one(func(t *tape, n *node) *value { return f(t, n.in[0]) })}
}

func binaryOperator(f func(t *tape, a, b *value) *value) operator {
	return operator{2, 2, one(func(t *tape, n *node) *value { return f(t, n.in[0], n.in[1]) })}
}

// foldTo wraps a binary function as an operator of any number of inputs.
func foldTo(f func(t *tape, a, b *value) *value) operator {
	return operator{1, 1 << 16, one(func(t *tape, n *node) *value {
		y := n.in[0]
		for _, x := range n.in[1:] {
			if x == nil {
				fail("an input is left out")
			}
			y = f(t, y, x)
		}
		return y
	})}
}

var operators map[string]operator

func init() {
	operators = map[string]operator{}
	for _, group := range []map[string]operator{constants, elementwise, activations, shapes, linear, convolutions, pools, norms, reductions} {
		for name, o := range group {
			operators[name] = o
		}
	}
}

// flow is one edge along which a gradient flows back: to gets what of(dy)
// returns, of the shape of to.
type flow struct {
	to *value
	of func(dy *value) *value
}

func wrt(to *value, of func(dy *value) *value) flow { return flow{to, of} }

// diff records how the gradient of y flows back to what y was made of. Flows
// to values that no parameter feeds are never asked for.
func (t *tape) diff(y *value, flows ...flow) *value {
	var live []flow
	for _, f := range flows {
		if f.to == y {
			return y // the operator did nothing
		}
		if f.to.needs {
			live = append(live, f)
		}
	}
	if len(live) == 0 {
		return y
	}
	if y.dtype != onnx.Float32 {
		fail("a gradient through values of type %v: only float32 can be trained", y.dtype)
	}
	y.needs = true
	scope := "grad/" + t.scope
	t.record = append(t.record, func() {
		t.scope = scope
		dy := t.gradient(y)
		if dy == nil {
			return // y reaches no loss
		}
		for _, f := range live {
			dx := f.of(dy)
			if !slices.Equal(dx.dims, f.to.dims) {
				fail("gradient of %s: shape %v for a value of shape %v", scope, dx.dims, f.to.dims)
			}
			f.to.grads = append(f.to.grads, dx)
		}
	})
	return y
}

// gradient sums what the readers of v contributed, nil if nothing.
func (t *tape) gradient(v *value) *value {
	if len(v.grads) == 0 {
		return nil
	}
	sum := v.grads[0]
	for _, g := range v.grads[1:] {
		sum = t.add(sum, g)
	}
	v.grads = []*value{sum}
	return sum
}

// backward runs the recorded products from the last to the first. The
// gradients of the losses must have been put into the values' grads.
func (t *tape) backward() {
	for i := len(t.record) - 1; i >= 0; i-- {
		t.record[i]()
	}
	t.record = nil
}
