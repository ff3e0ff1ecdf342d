package onnx

import (
	"slices"

	"sela/stages/internal/onnx/onnxpb"
)

// needed returns the names of all values that the given ones are computed from,
// themselves included.
func (m *Model) needed(values ...string) map[string]bool {
	need := map[string]bool{}
	for _, v := range values {
		need[v] = true
	}
	// Nodes lie in the order in which they run.
	for _, n := range slices.Backward(m.Proto.GetGraph().GetNode()) {
		if slices.ContainsFunc(n.Output, func(o string) bool { return need[o] }) {
			for _, in := range reads(n) {
				need[in] = true
			}
		}
	}
	delete(need, "") // an input left out
	return need
}

// reads returns what a node reads by name, from the bodies inside it too. Names
// of the bodies' own are among them; no name of the graph equals one.
func reads(n *onnxpb.NodeProto) []string {
	names := slices.Clone(n.Input)
	inside := func(g *onnxpb.GraphProto) {
		for _, n := range g.GetNode() {
			names = append(names, reads(n)...)
		}
		for _, o := range g.GetOutput() {
			names = append(names, o.GetName())
		}
	}
	for _, a := range n.Attribute {
		inside(a.G)
		for _, g := range a.Graphs {
			inside(g)
		}
	}
	return names
}

// cut removes from the graph its outputs and whatever the given values are not
// computed from.
func (m *Model) cut(values ...string) {
	need := m.needed(values...)
	g := m.Proto.Graph
	g.Output = nil
	g.Node = slices.DeleteFunc(g.Node, func(n *onnxpb.NodeProto) bool {
		return !slices.ContainsFunc(n.Output, func(o string) bool { return need[o] })
	})
	for _, n := range g.Node {
		for _, o := range n.Output {
			need[o] = true // made all the same
		}
	}
	g.Initializer = slices.DeleteFunc(g.Initializer, func(t *onnxpb.TensorProto) bool { return !need[t.GetName()] })
	g.SparseInitializer = slices.DeleteFunc(g.SparseInitializer, func(t *onnxpb.SparseTensorProto) bool { return !need[t.GetValues().GetName()] })
	described := func(v *onnxpb.ValueInfoProto) bool { return !need[v.GetName()] }
	g.Input = slices.DeleteFunc(g.Input, described)
	g.ValueInfo = slices.DeleteFunc(g.ValueInfo, described)
}

// fed returns the names of all values that depend on what the graph is fed.
func (m *Model) fed() map[string]bool {
	fed := map[string]bool{}
	for _, v := range m.Inputs() {
		fed[v.Name] = true
	}
	for _, n := range m.Proto.GetGraph().GetNode() {
		if slices.ContainsFunc(reads(n), func(in string) bool { return fed[in] }) {
			for _, o := range n.Output {
				fed[o] = true
			}
		}
	}
	return fed
}
