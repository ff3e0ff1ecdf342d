package grad

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// toy has one of each use of a constant: images are normalised by two, a
// convolution, a scale, a position, a token and a product are trained.
func toy() *onnx.Model {
	b := onnx.NewBuilder("toy")
	ramp := func(name string, dims ...int64) string {
		list := make([]float32, elements(dims))
		for i := range list {
			list[i] = float32(i%5) - 1.5
		}
		return b.Const(name, onnx.NewTensor(list, dims...))
	}
	x := b.Input(onnx.Value{Name: "images", DType: onnx.Uint8, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}, {Size: 4}, {Size: 4}}})
	x = b.Node("Cast", "", []string{x}, onnx.Int("to", int64(onnx.Float32)))
	x = b.Node("Sub", "", []string{x, ramp("mean", 1, 3, 1, 1)})
	x = b.Node("Mul", "", []string{x, ramp("deviation", 1, 3, 1, 1)})
	x = b.Node("Conv", "", []string{x, ramp("filter", 2, 3, 2, 2), ramp("bias", 2)}, onnx.Ints("strides", 2, 2))
	x = b.Node("Mul", "", []string{x, ramp("scale", 1, 2, 1, 1)})
	x = b.Node("Add", "", []string{x, ramp("position", 1, 2, 2, 2)})
	x = b.Node("Reshape", "", []string{x, b.Const("rows", onnx.NewInts([]int64{0, 2, 4}, 3))})
	token := b.Node("Expand", "", []string{ramp("token", 1, 1, 4), b.Const("three", onnx.NewInts([]int64{3, 1, 1}, 3))})
	x = b.Node("Concat", "", []string{token, x}, onnx.Int("axis", 1))
	x = b.Node("Div", "", []string{x, b.Const("temperature", onnx.NewTensor([]float32{2}))})
	x = b.Node("Flatten", "", []string{x})
	w := b.Node("Transpose", "", []string{ramp("weight", 2, 12)}, onnx.Ints("perm", 1, 0))
	b.Output(onnx.Value{Name: b.Node("MatMul", "head", []string{x, w}), DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 2}}})
	return b.Model()
}

func toyOptions() Options {
	return Options{Input: "images", Heads: []string{"head"}, Batch: 3, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9}}
}

func TestRoles(t *testing.T) {
	want := map[string]bool{"filter": true, "bias": false, "scale": false, "position": true, "token": false, "weight": true}
	if got := roles(toy()); !maps.Equal(got, want) {
		t.Errorf("parameters and their decay: %v, want %v", got, want)
	}
}

// Frozen parameters are constants, in the graph and after the step.
func TestFrozen(t *testing.T) {
	o := toyOptions()
	o.Frozen = func(name string) bool { return name != "weight" && name != "token" }
	s, err := NewStep(toy(), o)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, state := range s.State {
		states = append(states, string(state.Kind)+" "+state.Name)
	}
	slices.Sort(states)
	if want := []string{"momentum token", "momentum weight", "parameter token", "parameter weight"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	for _, n := range s.Model.Proto.Graph.Node {
		if strings.HasPrefix(n.GetName(), "grad/Conv") {
			t.Errorf("node %s for the gradient of a frozen convolution", n.GetName())
		}
	}
}

// A frozen normalisation computes what it does in evaluation, and its scale is
// still trained.
func TestFrozenStatistics(t *testing.T) {
	m := load(t, "resnet-13.onnx")
	o := Options{Input: "images", Heads: outputs(m), Batch: 4, Loss: Binary, Frozen: func(name string) bool { return strings.Contains(name, "running_") }}
	s, err := NewStep(m, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range s.State {
		if state.Kind == Statistic {
			t.Errorf("statistic %s moves", state.Name)
		}
	}
	feeds := initial(s)
	batch(s, feeds, 1, 0, 1)
	feeds[s.Labels] = make([]float32, 4*6)
	got := newRunner(t, s.Model, 1).run(feeds)

	e := m.Clone()
	for _, v := range []*onnxpb.ValueInfoProto{e.Proto.Graph.Input[0], e.Proto.Graph.Output[0]} {
		v.Type.TensorType.Shape.Dim[0].Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: 4}
	}
	logits := newRunner(t, e, 1).run(map[string]any{"images": feeds["images"]})["head_0"]
	loss := 0.
	for _, x := range logits {
		loss += math.Log1p(math.Exp(float64(x))) / float64(len(logits))
	}
	if l := float64(got[s.Losses][0]); math.Abs(l-loss) > 1e-5 {
		t.Errorf("loss %g, that of the inference model is %g", l, loss)
	}
}

// Apply changes nothing on an error, and what it writes is what the step holds.
func TestApply(t *testing.T) {
	m := toy()
	s, err := NewStep(m, toyOptions())
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for _, state := range s.State {
		values[state.Name] = slices.Repeat([]float32{7}, int(elements(state.Dims)))
	}
	before := proto.CloneOf(m.Proto)
	short := maps.Clone(values)
	short["weight"] = []float32{1}
	if err := s.Apply(m, short); err == nil || !strings.Contains(err.Error(), `1 values for parameter "weight"`) {
		t.Errorf("too few values: error %v", err)
	}
	other, _ := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 2})
	if err := s.Apply(other, values); err == nil || !strings.Contains(err.Error(), `no initialiser "filter"`) {
		t.Errorf("another network: error %v", err)
	}
	if !proto.Equal(m.Proto, before) {
		t.Fatal("a failed Apply changed the model")
	}
	if err := s.Apply(m, values); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"filter", "bias", "scale", "position", "token", "weight"} {
		if list, err := m.Floats(name); err != nil || list[0] != 7 {
			t.Errorf("%s: %v (%v), want 7", name, list, err)
		}
	}
	for _, name := range []string{"mean", "deviation", "temperature"} {
		list, _ := m.Floats(name)
		if list[0] == 7 {
			t.Errorf("%s was written", name)
		}
	}
}

// Every form of every problem gives a model that ONNX Runtime loads and runs,
// with equal results.
func TestProblems(t *testing.T) {
	m := load(t, "alexnet-14.onnx")
	s, err := NewStep(m, Options{Input: "images", Heads: outputs(m), Batch: 2, Loss: CrossEntropy})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Problems) < 5 {
		t.Errorf("only %d problems", len(s.Problems))
	}
	for _, p := range s.Problems {
		var first []float32
		for _, form := range p.Forms {
			m, err := p.Model(form)
			if err != nil {
				t.Fatalf("%s: %v", p.Key, err)
			}
			feeds := map[string]any{}
			for _, v := range p.Inputs {
				n := int64(1)
				for _, d := range v.Shape {
					n *= d.Size
				}
				list := make([]float32, n)
				for i := range list {
					list[i] = float32(i%7) - 3
				}
				if feeds[v.Name] = list; v.DType == onnx.Int64 {
					feeds[v.Name] = make([]int64, n)
				}
			}
			got := newRunner(t, m, 1).run(feeds)["out"]
			if first == nil {
				first = got
			}
			for i := range got {
				if math.Abs(float64(got[i]-first[i])) > 1e-3 {
					t.Fatalf("%s: %s gives %g where %s gives %g", p.Key, form, got[i], p.Forms[0], first[i])
				}
			}
		}
		if _, err := p.Model("magic"); err == nil {
			t.Errorf("%s: a form that does not exist", p.Key)
		}
	}
}
