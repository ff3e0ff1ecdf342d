package grad

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// Loop is a graph that takes several steps in one run, for a device to which the
// state would else travel for every step, and back. Its inputs and outputs have
// the names of the step's. Those of the State are the same; all others, those of
// the masks and the results too, are stacked: their first dimension is Steps.
type Loop struct {
	Model *onnx.Model
	Steps int
	// First and Count are two more inputs, int64 [1]: the run takes the steps
	// First to First+Count of the stack, and the results of others are 0. There
	// must be at least one.
	First, Count string
}

// inside begins the names of all values of a loop's body, which must not be those
// of the values around it.
const inside = "body/"

// Loop puts the step into a loop (operator Loop) over up to so many steps. The
// step stays as it is, and so does the order of its nodes, so that a runtime that
// gives a step the same bits again gives the loop's steps these bits.
func (s *Step) Loop(steps int) (*Loop, error) {
	if steps < 1 {
		return nil, fmt.Errorf("make a loop of %d training steps", steps)
	}
	b, count := onnx.NewBuilder("steps"), int64(steps)
	body, l := onnx.Edit(s.body()), &Loop{Steps: steps}
	states := map[string]bool{}
	for _, state := range s.State {
		states[state.In] = true
	}

	iteration := onnx.Value{Name: "iteration", DType: onnx.Int64, Shape: []onnx.Dim{}}
	going := onnx.Value{Name: "going", DType: onnx.Bool, Shape: []onnx.Dim{}}
	body.Input(iteration)
	body.Input(going)
	var stacked []onnx.Value
	for _, v := range s.Model.Inputs() {
		if !states[v.Name] {
			v.Shape = append([]onnx.Dim{{Size: count}}, v.Shape...)
			stacked = append(stacked, v)
		}
		b.Input(v)
	}
	one := []onnx.Dim{{Size: 1}}
	l.First = b.Input(onnx.Value{Name: "first_step", DType: onnx.Int64, Shape: one})
	l.Count = b.Input(onnx.Value{Name: "steps", DType: onnx.Int64, Shape: one})
	first := b.Node("Squeeze", "first", []string{l.First, b.Const("axis", onnx.NewInts([]int64{0}, 1))})

	// What the step reads comes in front of its nodes.
	g := body.Model().Proto.Graph
	nodes := g.Node
	g.Node = nil
	at := body.Node("Add", "at", []string{iteration.Name, first})
	for _, v := range stacked {
		body.Node("Gather", inside+v.Name, []string{v.Name, at}, onnx.Int("axis", 0))
	}
	g.Node = append(g.Node, nodes...)

	// The loop's values: the states, then the results of all steps so far.
	in, out := []string{l.Count, ""}, []string{}
	body.Output(onnx.Value{Name: body.Node("Identity", "goes_on", []string{going.Name}), DType: going.DType, Shape: going.Shape})
	for _, state := range s.State {
		body.Input(onnx.Value{Name: inside + state.In, DType: onnx.Float32, Shape: shape(state.Dims)})
		body.Output(onnx.Value{Name: inside + state.Out, DType: onnx.Float32, Shape: shape(state.Dims)})
		in, out = append(in, state.In), append(out, state.Out)
	}
	numbers := make([]int64, steps)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	own := body.Node("Equal", "own", []string{body.Const("numbers", onnx.NewInts(numbers, count, 1)), at})
	for _, result := range []string{s.Losses, s.Correct} {
		dims := []int64{count, s.heads()}
		before := body.Input(onnx.Value{Name: inside + result + "/before", DType: onnx.Float32, Shape: shape(dims)})
		body.Output(onnx.Value{Name: body.Node("Where", inside+result+"/all", []string{own, inside + result, before}), DType: onnx.Float32, Shape: shape(dims)})
		in, out = append(in, b.Const(result+"/none", onnx.NewTensor(make([]float32, elements(dims)), dims...))), append(out, result)
	}
	b.Nodes("Loop", out, in, onnx.Subgraph("body", body.Model()))
	for _, state := range s.State {
		b.Output(onnx.Value{Name: state.Out, DType: onnx.Float32, Shape: shape(state.Dims)})
	}
	for _, result := range []string{s.Losses, s.Correct} {
		b.Output(onnx.Value{Name: result, DType: onnx.Float32, Shape: shape([]int64{count, s.heads()})})
	}
	l.Model = b.Model()
	return l, nil
}

// heads is T.
func (s *Step) heads() int64 {
	for _, v := range s.Model.Inputs() {
		if v.Name == s.Weights {
			return v.Shape[0].Size
		}
	}
	return 0
}

// body copies the step's nodes and constants under names of their own, without
// inputs and outputs.
func (s *Step) body() *onnx.Model {
	g := s.Model.Proto.GetGraph()
	own := &onnxpb.GraphProto{Name: proto.String("step")}
	rename := func(names []string) []string {
		names = slices.Clone(names)
		for i, name := range names {
			if name != "" {
				names[i] = inside + name
			}
		}
		return names
	}
	for _, t := range g.GetInitializer() {
		copied := proto.CloneOf(t)
		copied.Name = proto.String(inside + t.GetName())
		own.Initializer = append(own.Initializer, copied)
	}
	for _, n := range g.GetNode() {
		copied := proto.CloneOf(n)
		copied.Name = proto.String(inside + n.GetName())
		copied.Input, copied.Output = rename(n.Input), rename(n.Output)
		own.Node = append(own.Node, copied)
	}
	return &onnx.Model{Proto: &onnxpb.ModelProto{IrVersion: s.Model.Proto.IrVersion, OpsetImport: s.Model.Proto.OpsetImport, Graph: own}}
}
