package grad

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// nodesOf copies what the loader changes of a model: the nodes and the list of
// initialisers, not their contents.
func nodesOf(m *onnx.Model) *onnx.Model {
	g := m.Proto.GetGraph()
	graph := &onnxpb.GraphProto{Input: g.GetInput(), Output: g.GetOutput(), Initializer: slices.Clone(g.GetInitializer()), SparseInitializer: g.GetSparseInitializer()}
	for _, n := range g.GetNode() {
		graph.Node = append(graph.Node, proto.CloneOf(n))
	}
	return &onnx.Model{Dir: m.Dir, Proto: &onnxpb.ModelProto{IrVersion: proto.Int64(10), OpsetImport: m.Proto.GetOpsetImport(), Graph: graph}}
}

// loader translates the part of an inference graph that the heads depend on.
type loader struct {
	*tape
	model      *onnx.Model // a copy
	batch      int64
	frozen     func(string) bool
	held       map[string]*onnxpb.TensorProto // initialisers
	values     map[string]*value
	decay      map[string]bool
	statistic  map[string]bool
	parameters []parameter
	statistics []parameter
}

func (l *loader) load(input string, heads []string) (images *value, logits []*value) {
	opset := l.model.Opset()
	if opset < oldestOpset || opset > newestOpset {
		fail("%w: operator set %d; supported are %d to %d", ErrUnsupported, opset, oldestOpset, newestOpset)
	}
	if err := untie(l.model); err != nil {
		fail("%w", err)
	}
	g := l.model.Proto.GetGraph()
	for _, h := range heads {
		if !slices.ContainsFunc(g.GetOutput(), func(o *onnxpb.ValueInfoProto) bool { return o.GetName() == h }) {
			fail("no output %q in the model", h)
		}
	}
	g.Node = needed(g.GetNode(), heads)
	if l.frozen == nil {
		l.frozen = func(string) bool { return false }
	}
	l.held, l.values, l.decay, l.statistic = map[string]*onnxpb.TensorProto{}, map[string]*value{}, roles(l.model), map[string]bool{}
	for _, t := range g.GetInitializer() {
		l.held[t.GetName()] = t
	}
	for _, n := range g.GetNode() {
		if n.GetOpType() == "BatchNormalization" && len(n.Input) == 5 && !l.frozen(n.Input[3]) {
			l.statistic[n.Input[3]], l.statistic[n.Input[4]] = true, true
		}
	}
	images = l.images(input)
	for _, n := range g.GetNode() {
		l.translate(n, opset)
	}
	for _, h := range heads {
		v := l.values[h]
		switch {
		case v == nil:
			fail("output %q: %w: no node makes it", h, ErrUnsupported)
		case len(v.dims) == 3:
			fail("output %q: %w: it is %v %v, several heads in one: give each an output of its own, or replace the heads", h, ErrUnsupported, v.dtype, v.dims)
		case v.dtype != onnx.Float32 || len(v.dims) != 2 || v.dims[0] != l.batch || v.dims[1] < 1:
			fail("output %q: %w: it is %v %v, want float32 [%d K] (a model exported for one size of batch keeps it)", h, ErrUnsupported, v.dtype, v.dims, l.batch)
		}
		logits = append(logits, v)
	}
	if len(l.parameters) == 0 {
		fail("%w: it has no parameters that are not frozen", ErrUnsupported)
	}
	return images, logits
}

// needed returns the nodes that the outputs depend on, in their order.
func needed(nodes []*onnxpb.NodeProto, outputs []string) []*onnxpb.NodeProto {
	maker := map[string]int{}
	for i, n := range nodes {
		for _, o := range n.Output {
			if _, twice := maker[o]; twice && o != "" {
				fail("%w: value %q is made twice", ErrUnsupported, o)
			}
			maker[o] = i
		}
	}
	keep := make([]bool, len(nodes))
	rest := slices.Clone(outputs)
	for len(rest) > 0 {
		name := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		if i, ok := maker[name]; ok && !keep[i] {
			keep[i] = true
			rest = append(rest, nodes[i].Input...)
		}
	}
	var list []*onnxpb.NodeProto
	for i, n := range nodes {
		if keep[i] {
			list = append(list, n)
		}
	}
	return list
}

// images adds the image input, its batch fixed.
func (l *loader) images(name string) *value {
	for _, v := range l.model.Inputs() {
		if v.Name != name {
			continue
		}
		if len(v.Shape) == 0 {
			fail("input %s: %w: its shape is not stated", v, ErrUnsupported)
		}
		dims := []int64{l.batch}
		for _, d := range v.Shape[1:] {
			if d.Size < 1 {
				fail("input %s: %w: only its first dimension may be free", v, ErrUnsupported)
			}
			dims = append(dims, d.Size)
		}
		x := l.input(name, v.DType, dims...)
		l.values[name] = x
		return x
	}
	fail("no input %q in the model", name)
	return nil
}

// value returns what a node reads under a name.
func (l *loader) value(name string) *value {
	if v := l.values[name]; v != nil {
		return v
	}
	t := l.held[name]
	if t == nil {
		fail("its input %q is neither the images, nor a constant, nor made by a node before it that is kept in training", name)
	}
	var v *value
	decays, parameterLike := l.decay[name]
	switch trained := parameterLike && !l.frozen(name); {
	case l.statistic[name] && parameterLike:
		fail("initialiser %q is both a parameter and a running statistic", name)
	case l.statistic[name]:
		v = l.input(name, onnx.DType(t.GetDataType()), t.Dims...)
		l.statistics = append(l.statistics, parameter{name: name, value: v})
	case trained:
		v = l.input(name, onnx.Float32, t.Dims...)
		v.needs = true
		l.parameters = append(l.parameters, parameter{name, v, decays})
	default:
		v = constant(l.model, t)
	}
	l.values[name] = v
	return v
}

// translate adds one node of the inference graph to the training graph.
func (l *loader) translate(p *onnxpb.NodeProto, opset int64) {
	label := p.GetName()
	if label == "" && len(p.Output) > 0 {
		label = p.Output[0]
	}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			fail("node %q (%s): %w: %w", label, p.GetOpType(), ErrUnsupported, f.err)
		}
	}()
	op, ok := operators[p.GetOpType()]
	if d := p.GetDomain(); !ok || d != "" && d != "ai.onnx" {
		fail("operator %s is not supported; there are %s", strings.TrimPrefix(d+"."+p.GetOpType(), "."), operatorNames())
	}
	l.scope = label
	n := &node{p: p, model: l.model, opset: opset, read: map[string]bool{}, frozen: l.frozen}
	n.raw = func(i int) string {
		if l.held[p.Input[i]] == nil {
			return ""
		}
		return p.Input[i]
	}
	for i, in := range p.Input {
		switch {
		case in != "":
			n.in = append(n.in, l.value(in))
		case i < op.min:
			fail("input %d is left out", i)
		default:
			n.in = append(n.in, nil)
		}
	}
	if len(n.in) < op.min || len(n.in) > op.max || len(p.Output) == 0 {
		fail("it has %d inputs and %d outputs", len(n.in), len(p.Output))
	}
	out := op.translate(l.tape, n)
	if name := n.unread(); name != "" {
		fail("attribute %s is not supported", name)
	}
	for i, v := range out {
		if i >= len(p.Output) || p.Output[i] == "" {
			continue
		}
		name := p.Output[i]
		if l.values[name] != nil || l.held[name] != nil {
			fail("its output %q is made twice", name)
		}
		l.values[name] = v
	}
}

func operatorNames() string {
	var names []string
	for name := range operators {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// sweep removes what no output depends on: products that turned out unneeded,
// and their constants.
func sweep(g *onnxpb.GraphProto) {
	var outputs []string
	for _, o := range g.Output {
		outputs = append(outputs, o.GetName())
	}
	g.Node = needed(g.Node, outputs)
	read := map[string]bool{}
	for _, n := range g.Node {
		for _, in := range n.Input {
			read[in] = true
		}
	}
	g.Initializer = slices.DeleteFunc(g.Initializer, func(t *onnxpb.TensorProto) bool { return !read[t.GetName()] })
}
