package onnx

import (
	"fmt"
	"slices"
	"strings"

	"sela/stages/internal/onnx/onnxpb"
)

// Normalisation is what [Model.PrependNormalise] puts before a model.
type Normalisation struct {
	Input         string // of the model: images, float32 or float16
	Height, Width int    // of the images in pixels
	ChannelsLast  bool   // the model takes [N, H, W, 3], else [N, 3, H, W]
	// Mean and Std are per channel on the scale 0 to 1.
	Mean, Std [3]float32
}

// PrependNormalise replaces an image input of the model by one of bytes, and
// returns it: uint8 [N, H, W, 3], named like the old one with _bytes behind. Nodes
// in front of the graph make of it what the model had as its input, under the
// name it had: (x/255 − mean)/std, each operation rounded to float32 as on the
// host, transposed where the channels come first, and for a float16 model rounded
// once to that. N is fixed or named as it was. Other inputs stay.
//
// On ONNX Runtime's CPU provider the values are the host's, bit for bit, under
// every level of optimisation. Two things see to that. The division stays a
// division: x·(1/255) rounds differently for half the samples. And the constants
// are not scalars but one value for each element of a plane's first axis
// ([3, 1, 1], or [W, 3] with channels last), since ONNX Runtime multiplies a scalar
// into a MatMul that follows and drops a scalar 0 or 1. [W, 3] also leaves whole
// rows to be added at once, where [3] would leave runs of three.
//
// The cast comes first, because TensorRT takes bytes for nothing else.
//
// A model or an input that cannot be handled is an error, and is left as it was.
func (m *Model) PrependNormalise(s Normalisation) (Value, error) {
	old, err := m.normalisable(s)
	if err != nil {
		return Value{}, fmt.Errorf("prepend normalisation: %w", err)
	}
	g := m.Proto.Graph
	b := Edit(m)
	nodes, inputs := g.Node, g.Input
	g.Node, g.Input = nil, nil

	in := Value{Name: s.Input + "_bytes", DType: Uint8,
		Shape: []Dim{old.Shape[0], {Size: int64(s.Height)}, {Size: int64(s.Width)}, {Size: 3}}}
	in.Name = b.Input(in)
	x := b.Node("Cast", "sela_float32", []string{in.Name}, Int("to", int64(Float32)))
	if !s.ChannelsLast {
		x = b.Node("Transpose", "sela_planes", []string{x}, Ints("perm", 0, 3, 1, 2))
	}
	scaled := b.Node("Div", "sela_scaled", []string{x, b.perChannel(s, "sela_levels", [3]float32{255, 255, 255})})
	centred := b.Node("Sub", "sela_centred", []string{scaled, b.perChannel(s, "sela_mean", s.Mean)})
	x = b.Node("Div", "sela_normalised", []string{centred, b.perChannel(s, "sela_std", s.Std)})
	if old.DType == Float16 {
		x = b.Node("Cast", "sela_float16", []string{x}, Int("to", int64(Float16)))
	}
	// The last node takes the name that the rest of the graph reads.
	g.Node[len(g.Node)-1].Output[0] = s.Input
	g.Node = append(g.Node, nodes...)

	added := g.Input
	at := slices.IndexFunc(inputs, func(v *onnxpb.ValueInfoProto) bool { return v.GetName() == s.Input })
	g.ValueInfo = append(g.ValueInfo, inputs[at])
	inputs[at] = added[0]
	g.Input = append(inputs, added[1:]...) // initialisers of an old model
	return in, nil
}

// perChannel adds a constant with a value for each channel.
func (b *Builder) perChannel(s Normalisation, name string, v [3]float32) string {
	if !s.ChannelsLast {
		return b.Const(name, NewTensor(v[:], 3, 1, 1))
	}
	return b.Const(name, NewTensor(slices.Repeat(v[:], s.Width), int64(s.Width), 3))
}

// normalisable returns the input that is to be replaced.
func (m *Model) normalisable(s Normalisation) (Value, error) {
	if err := m.editable(); err != nil {
		return Value{}, err
	}
	inputs := m.Inputs()
	at := slices.IndexFunc(inputs, func(v Value) bool { return v.Name == s.Input })
	if at < 0 {
		names := make([]string, len(inputs))
		for i, v := range inputs {
			names[i] = v.Name
		}
		return Value{}, fmt.Errorf("no input %q: the model has %s", s.Input, strings.Join(names, ", "))
	}
	v := inputs[at]
	wants := []int64{3, int64(s.Height), int64(s.Width)}
	if s.ChannelsLast {
		wants = []int64{int64(s.Height), int64(s.Width), 3}
	}
	if v.DType != Float32 && v.DType != Float16 || len(v.Shape) != 4 || s.Height < 1 || s.Width < 1 {
		return v, fmt.Errorf("input %s: %w: need float32 or float16 images of four dimensions", v, ErrUnsupported)
	}
	for i, want := range wants {
		if d := v.Shape[i+1]; d.Size != 0 && d.Size != want {
			return v, fmt.Errorf("input %s: it does not take images of %d×%d pixels with channels last %v", v, s.Width, s.Height, s.ChannelsLast)
		}
	}
	return v, nil
}
