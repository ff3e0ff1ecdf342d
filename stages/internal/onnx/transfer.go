package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

// Transfer says what InitFrom did, by names of initialisers in order of the
// file.
type Transfer struct {
	Taken []string // copied
	Kept  []string // of the destination's trunk: the source has none of this name and shape
	Left  []string // of the source's trunk: the destination has none of this name and shape
}

// InitFrom copies into dst's trunk, which is what its features are computed
// from, the parameters and running statistics that src has under the same name
// and with the same shape: float32 or float64 initialisers of rank 1 and more.
// dst's heads stay as they are. Where an export has merged initialisers that
// were equal, dst gets one for each name and src's are read under all their
// names. src is not changed. If nothing can be copied, that is an error, and dst
// is left as it was.
func InitFrom(dst, src *Model) (Transfer, error) {
	var t Transfer
	source := src.parameters(nil)
	if trunk, err := src.features(""); err == nil { // else it has no heads
		source = src.parameters(src.needed(trunk.name))
	}
	f, err := dst.features("")
	if err != nil {
		return t, fmt.Errorf("initialise from a model: %w", err)
	}
	edited := dst.Clone()
	edited.unmerge()
	own := edited.parameters(edited.needed(f.name))
	for _, name := range names(edited, own) {
		from := source[name]
		if from == nil || !slices.Equal(from.Dims, own[name].Dims) {
			t.Kept = append(t.Kept, name)
			continue
		}
		values, err := src.tensorFloats(from)
		if err == nil {
			err = setFloats(own[name], values)
		}
		if err != nil {
			return Transfer{}, fmt.Errorf("initialise from a model: %q: %w", name, err)
		}
		t.Taken = append(t.Taken, name)
	}
	for _, name := range names(src, source) {
		if !slices.Contains(t.Taken, name) {
			t.Left = append(t.Left, name)
		}
	}
	if len(t.Taken) == 0 {
		return Transfer{}, fmt.Errorf("initialise from a model: %w: none of its %d parameters has the name and shape of one of the %d here", ErrUnsupported, len(source), len(own))
	}
	dst.Proto = edited.Proto
	return t, nil
}

// parameters returns the floating-point initialisers of rank 1 and more among
// the given names, or all for nil, by all the names under which they are read.
func (m *Model) parameters(among map[string]bool) map[string]*onnxpb.TensorProto {
	list := map[string]*onnxpb.TensorProto{}
	for _, t := range m.Proto.GetGraph().GetInitializer() {
		d := DType(t.GetDataType())
		if len(t.Dims) > 0 && (d == Float32 || d == Float64) && (among == nil || among[t.GetName()]) {
			list[t.GetName()] = t
		}
	}
	for _, n := range m.Proto.GetGraph().GetNode() {
		if isAlias(n) && list[n.Input[0]] != nil && (among == nil || among[n.Output[0]]) {
			list[n.Output[0]] = list[n.Input[0]]
		}
	}
	return list
}

// names lists the keys of parameters in the order of the file.
func names(m *Model, of map[string]*onnxpb.TensorProto) []string {
	var list []string
	for _, t := range m.Proto.GetGraph().GetInitializer() {
		if of[t.GetName()] != nil {
			list = append(list, t.GetName())
		}
	}
	for _, n := range m.Proto.GetGraph().GetNode() {
		if isAlias(n) && of[n.Output[0]] != nil {
			list = append(list, n.Output[0])
		}
	}
	return list
}

// isAlias says whether a node may give an initialiser a second name.
func isAlias(n *onnxpb.NodeProto) bool {
	return n.GetOpType() == "Identity" && isONNXDomain(n.GetDomain()) && len(n.Input) == 1 && len(n.Output) == 1
}

// unmerge puts an initialiser in the place of every node that gives one a second
// name, as PyTorch's export does for parameters that are equal.
func (m *Model) unmerge() {
	g := m.Proto.GetGraph()
	outputs := map[string]bool{}
	for _, o := range g.GetOutput() {
		outputs[o.GetName()] = true
	}
	g.Node = slices.DeleteFunc(g.Node, func(n *onnxpb.NodeProto) bool {
		if !isAlias(n) || outputs[n.Output[0]] {
			return false
		}
		t := m.initializer(n.Input[0])
		if t == nil {
			return false
		}
		t = proto.CloneOf(t)
		t.Name = proto.String(n.Output[0])
		g.Initializer = append(g.Initializer, t)
		return true
	})
}
