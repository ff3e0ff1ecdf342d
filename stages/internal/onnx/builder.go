package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

// The versions new models are written in: the newest operator set whose
// reductions still take their axes as attributes, and the IR version of its
// time. Every ONNX Runtime since 1.12 reads them.
const (
	newOpset = 17
	newIR    = 8
)

// Attr is an attribute of a node.
type Attr = *onnxpb.AttributeProto

// Int returns an integer attribute.
func Int(name string, v int64) Attr {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INT.Enum(), I: &v}
}

// Ints returns an attribute that is a list of integers.
func Ints(name string, v ...int64) Attr {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INTS.Enum(), Ints: slices.Clone(v)}
}

// Float returns a float32 attribute.
func Float(name string, v float32) Attr {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_FLOAT.Enum(), F: &v}
}

// Builder adds to a graph. Values are named by strings; a name that is taken
// gets a number appended, so the names returned are the ones to use. Nodes must
// be added in the order in which they run. A Builder checks no types or shapes:
// the runtime does when it loads the model.
//
// A Builder must be the only one to change its model while it is in use.
type Builder struct {
	m    *Model
	used map[string]bool
}

// NewBuilder starts an empty model with one graph, in operator set 17.
func NewBuilder(graph string) *Builder {
	return Edit(&Model{Proto: &onnxpb.ModelProto{
		IrVersion:    proto.Int64(newIR),
		ProducerName: proto.String("sela"),
		OpsetImport:  []*onnxpb.OperatorSetIdProto{{Domain: proto.String(""), Version: proto.Int64(newOpset)}},
		Graph:        &onnxpb.GraphProto{Name: &graph},
	}})
}

// Edit returns a Builder that adds to m itself.
func Edit(m *Model) *Builder {
	b := &Builder{m: m, used: map[string]bool{}}
	b.collectNames(m.Proto.GetGraph())
	return b
}

// collectNames marks every name in g and in the bodies inside it, which see the
// names around them and must not repeat them.
func (b *Builder) collectNames(g *onnxpb.GraphProto) {
	for _, v := range g.GetInput() {
		b.used[v.GetName()] = true
	}
	for _, t := range g.GetInitializer() {
		b.used[t.GetName()] = true
	}
	for _, t := range g.GetSparseInitializer() {
		b.used[t.GetValues().GetName()] = true
	}
	for _, n := range g.GetNode() {
		b.used[n.GetName()] = true
		for _, o := range n.Output {
			b.used[o] = true
		}
		for _, a := range n.Attribute {
			if a.G != nil {
				b.collectNames(a.G)
			}
			for _, sub := range a.Graphs {
				b.collectNames(sub)
			}
		}
	}
}

// fresh returns name, or name with the first free number where it is taken.
func (b *Builder) fresh(name string) string {
	unique := name
	for i := 1; unique == "" || b.used[unique]; i++ {
		unique = fmt.Sprintf("%s_%d", name, i)
	}
	b.used[unique] = true
	return unique
}

// Input adds an input of the graph and returns its name.
func (b *Builder) Input(v Value) string {
	v.Name = b.fresh(v.Name)
	b.m.Proto.Graph.Input = append(b.m.Proto.Graph.Input, valueInfo(v))
	return v.Name
}

// Output makes the value v.Name an output of the graph, of the type and shape
// stated.
func (b *Builder) Output(v Value) {
	b.m.Proto.Graph.Output = append(b.m.Proto.Graph.Output, valueInfo(v))
}

// Describe states the type and shape of an inner value.
func (b *Builder) Describe(v Value) {
	b.m.Proto.Graph.ValueInfo = append(b.m.Proto.Graph.ValueInfo, valueInfo(v))
}

// Const adds an initialiser and returns its name. The builder owns t from then
// on.
func (b *Builder) Const(name string, t *onnxpb.TensorProto) string {
	t.Name = proto.String(b.fresh(name))
	g := b.m.Proto.Graph
	g.Initializer = append(g.Initializer, t)
	if b.m.Proto.GetIrVersion() < 4 {
		v := Value{Name: t.GetName(), DType: DType(t.GetDataType()), Shape: []Dim{}}
		for _, d := range t.Dims {
			v.Shape = append(v.Shape, Dim{Size: d})
		}
		g.Input = append(g.Input, valueInfo(v))
	}
	return t.GetName()
}

// Node adds a node with one output and returns the output's name, which is out,
// or made from the operator's where out is "". The node is named like it.
func (b *Builder) Node(op, out string, inputs []string, attrs ...Attr) string {
	if out == "" {
		out = op
	}
	out = b.fresh(out)
	b.add(op, out, inputs, []string{out}, attrs)
	return out
}

// Nodes adds a node with several outputs and returns their names. The node is
// named like the first.
func (b *Builder) Nodes(op string, outs, inputs []string, attrs ...Attr) []string {
	names := make([]string, len(outs))
	for i, o := range outs {
		names[i] = b.fresh(o)
	}
	b.add(op, names[0], inputs, names, attrs)
	return names
}

func (b *Builder) add(op, name string, inputs, outputs []string, attrs []Attr) {
	b.m.Proto.Graph.Node = append(b.m.Proto.Graph.Node, &onnxpb.NodeProto{
		Name: &name, OpType: &op, Input: inputs, Output: outputs, Attribute: attrs,
	})
}

// SetMetadata sets one of the model's own key-value pairs.
func (b *Builder) SetMetadata(key, value string) {
	for _, kv := range b.m.Proto.MetadataProps {
		if kv.GetKey() == key {
			kv.Value = &value
			return
		}
	}
	b.m.Proto.MetadataProps = append(b.m.Proto.MetadataProps, &onnxpb.StringStringEntryProto{Key: &key, Value: &value})
}

// Model returns the model the builder adds to.
func (b *Builder) Model() *Model { return b.m }
