package onnx

import (
	"fmt"
	"slices"
	"strings"
)

// Expose adds to the graph a float32 output that is the value named tensor, cast
// if need be, in its own shape, and returns it; it is named sela_<tensor>. Its
// shape has as many dimensions as the model states, or none where it states
// nothing (the runtime infers it). A value that is not in the graph is an error
// that lists similar names, and leaves the model as it was.
func (m *Model) Expose(tensor string) (Value, error) {
	if err := m.editable(); err != nil {
		return Value{}, fmt.Errorf("expose a tensor: %w", err)
	}
	if names := m.valueNames(); !slices.Contains(names, tensor) {
		return Value{}, fmt.Errorf("expose a tensor: %w: %q; similar: %s", ErrNoTensor, tensor, strings.Join(nearest(tensor, names, 5), ", "))
	}
	v := m.describe(tensor)
	b := Edit(m)
	// A node even where nothing is cast: an input cannot be an output as it is.
	op, attrs := "Identity", []Attr(nil)
	if v.DType != Float32 {
		op, attrs = "Cast", []Attr{Int("to", int64(Float32))}
	}
	v.Name, v.DType = b.Node(op, "sela_"+tensor, []string{tensor}, attrs...), Float32
	b.Output(v)
	return v, nil
}
