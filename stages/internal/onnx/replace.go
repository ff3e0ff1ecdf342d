package onnx

import "fmt"

// ReplaceHeads puts new heads on the features of the model, which are the tensor
// named, or found as [Model.Features] does where that is "". The model's outputs
// and all that only they need go; what the features are computed from stays as
// it is, weights and all. Features are cast to float32 and flattened behind the
// batch dimension, unless the model says that they need neither. It returns the names of the new
// outputs, logits float32 [N, K], which are head_0, head_1, … where these names
// are free.
//
// A model that cannot be handled is an error, and is left as it was. So is one
// that does not tell the features' number, D: [Builder.Describe] states it.
func (m *Model) ReplaceHeads(tensor string, o HeadOptions) ([]string, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("replace heads: %w", err)
	}
	f, err := m.features(tensor)
	if err == nil && f.width == 0 {
		err = fmt.Errorf("%w: the model does not state the shape of %q", ErrUnsupported, f.name)
	}
	if err == nil {
		err = o.fits(f.width)
	}
	if err != nil {
		return nil, fmt.Errorf("replace heads: %w", err)
	}
	m.cut(f.name)
	n := &network{Builder: Edit(m), seed: o.Seed}
	n.forgetHeads()
	n.recordHeads(f.name, o)
	return n.heads(n.matrixOf(f), f.width, f.batch, o), nil
}

// matrixOf adds what makes features a float32 matrix, if anything.
func (b *Builder) matrixOf(f featureTensor) string {
	x := f.name
	if f.dtype != Float32 {
		x = b.Node("Cast", f.name+"_float32", []string{x}, Int("to", int64(Float32)))
	}
	if !f.flat {
		x = b.Node("Flatten", f.name+"_flat", []string{x}, Int("axis", 1))
	}
	return x
}

// Trunk returns a copy of the model up to its features, the tensor named or
// found as [Model.Features] does. Its one output, features, is float32 [N, D].
func (m *Model) Trunk(tensor string) (*Model, error) {
	f, err := m.features(tensor)
	if err != nil {
		return nil, fmt.Errorf("cut off heads: %w", err)
	}
	trunk := m.Clone()
	trunk.cut(f.name)
	b := Edit(trunk)
	x := b.matrixOf(f)
	if x != "features" {
		x = b.Node("Identity", "features", []string{x})
	}
	b.Output(Value{Name: x, DType: Float32, Shape: []Dim{f.batch, {Size: f.width}}})
	b.forgetHeads()
	b.SetMetadata(metaFeatures, x)
	return trunk, nil
}
