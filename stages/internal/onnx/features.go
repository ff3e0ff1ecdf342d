package onnx

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoTensor is wrapped by the error for a name that is no value of the graph.
var ErrNoTensor = errors.New("no such tensor")

// AppendFeatures adds to the graph a float32 output [B, D] that is the value
// named tensor, cast if need be and flattened behind the batch dimension, and
// returns it. It is named sela_features; D has no size where the model does not
// state the value's shape (the runtime infers it). A value that is not in the
// graph is an error that lists similar names, and leaves the model as it was.
func (m *Model) AppendFeatures(tensor string) (Value, error) {
	if err := m.editable(); err != nil {
		return Value{}, fmt.Errorf("append features: %w", err)
	}
	if names := m.valueNames(); !slices.Contains(names, tensor) {
		return Value{}, fmt.Errorf("append features: %w: %q; similar: %s", ErrNoTensor, tensor, strings.Join(nearest(tensor, names, 5), ", "))
	}
	source := m.describe(tensor)
	out := Value{DType: Float32, Shape: make([]Dim, 2)}
	if len(source.Shape) > 0 {
		out.Shape[0] = source.Shape[0]
		var sizes []int64
		for _, d := range source.Shape[1:] {
			if d.Size == 0 {
				sizes = nil
				break
			}
			sizes = append(sizes, d.Size)
		}
		if n, ok := elements(sizes); ok && (sizes != nil || len(source.Shape) == 1) {
			out.Shape[1].Size = n
		}
	}
	b := Edit(m)
	x := tensor
	if source.DType != Float32 {
		x = b.Node("Cast", tensor+"_float32", []string{x}, Int("to", int64(Float32)))
	}
	out.Name = b.Node("Flatten", "sela_features", []string{x}, Int("axis", 1))
	b.Output(out)
	return out, nil
}

// valueNames returns the graph's inputs and what its nodes produce, in order.
func (m *Model) valueNames() []string {
	var names []string
	for _, v := range m.Inputs() {
		names = append(names, v.Name)
	}
	for _, n := range m.Proto.GetGraph().GetNode() {
		for _, o := range n.Output {
			if o != "" {
				names = append(names, o)
			}
		}
	}
	return names
}

// describe returns what the model states of a value: of several statements the
// first that has a shape, and without such the first.
func (m *Model) describe(name string) Value {
	g := m.Proto.GetGraph()
	found := Value{Name: name}
	for _, v := range slices.Concat(g.GetInput(), g.GetOutput(), g.GetValueInfo()) {
		if v.GetName() != name {
			continue
		}
		if stated := valueOf(v); stated.Shape != nil {
			return stated
		} else if found.DType == 0 {
			found = stated
		}
	}
	return found
}

// nearest returns up to n names in order of similarity to want: those that
// contain it or are contained in it first, then by edit distance.
func nearest(want string, names []string, n int) []string {
	type scored struct {
		name string
		cost int
	}
	lower := strings.ToLower(clip(want))
	var all []scored
	for _, name := range names {
		l := strings.ToLower(clip(name))
		cost := editDistance(lower, l)
		if l != "" && lower != "" && (strings.Contains(l, lower) || strings.Contains(lower, l)) {
			cost -= len(lower) + len(l)
		}
		all = append(all, scored{name, cost})
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(a.cost, b.cost) })
	var out []string
	for _, s := range all[:min(n, len(all))] {
		out = append(out, s.name)
	}
	return out
}

// clip bounds the work spent on a name; their ends tell tensors apart.
func clip(s string) string { return s[max(0, len(s)-80):] }

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
