package grad

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

func load(t testing.TB, name string) *onnx.Model {
	t.Helper()
	m, err := onnx.Load(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func outputs(m *onnx.Model) []string {
	var names []string
	for _, o := range m.Proto.GetGraph().GetOutput() {
		names = append(names, o.GetName())
	}
	return names
}

func find(m *onnx.Model, op string) *onnxpb.NodeProto {
	for _, n := range m.Proto.Graph.Node {
		if n.GetOpType() == op {
			return n
		}
	}
	panic("no " + op)
}

// What cannot be trained is refused with an error that says where.
func TestRefused(t *testing.T) {
	const resnet, transformer, alexnet = "resnet-13.onnx", "transformer-16.onnx", "alexnet-14.onnx"
	for name, c := range map[string]struct {
		model string
		edit  func(m *onnx.Model, o *Options)
		want  string
	}{
		"operator": {resnet, func(m *onnx.Model, _ *Options) { find(m, "Relu").OpType = proto.String("Einsum") }, `node "Relu_`},
		"domain":   {resnet, func(m *onnx.Model, _ *Options) { find(m, "Relu").Domain = proto.String("com.microsoft") }, "operator com.microsoft.Relu is not supported"},
		"attribute": {resnet, func(m *onnx.Model, _ *Options) {
			n := find(m, "Relu")
			n.Attribute = append(n.Attribute, onnx.Int("mood", 1))
		}, "attribute mood is not supported"},
		"attribute type": {resnet, func(m *onnx.Model, _ *Options) { find(m, "Flatten").Attribute = []onnx.Attr{onnx.Float("axis", 1)} }, "attribute axis is of type FLOAT"},
		"opset":          {resnet, func(m *onnx.Model, _ *Options) { m.Proto.OpsetImport[0].Version = proto.Int64(99) }, "operator set 99; supported are 7 to 22"},
		"cycle": {resnet, func(m *onnx.Model, _ *Options) {
			n := find(m, "Add")
			n.Input[0] = n.Output[0]
		}, `nor made by a node before it`},
		"missing input":  {resnet, func(m *onnx.Model, _ *Options) { find(m, "Gemm").Input[1] = "nobody" }, `its input "nobody" is neither`},
		"input left out": {resnet, func(m *onnx.Model, _ *Options) { find(m, "Gemm").Input[1] = "" }, "input 1 is left out"},
		"rank":           {resnet, func(m *onnx.Model, _ *Options) { m.Proto.Graph.Initializer[0].Dims = []int64{1} }, "cannot be trained"},
		"made twice": {resnet, func(m *onnx.Model, _ *Options) {
			m.Proto.Graph.Node = append(m.Proto.Graph.Node, proto.CloneOf(m.Proto.Graph.Node[len(m.Proto.Graph.Node)-1]))
		}, "is made twice"},
		"free size": {resnet, func(m *onnx.Model, _ *Options) {
			m.Proto.Graph.Input[0].Type.TensorType.Shape.Dim[2] = &onnxpb.TensorShapeProto_Dimension{}
		}, "only its first dimension may be free"},
		"padding": {resnet, func(m *onnx.Model, _ *Options) {
			for _, a := range find(m, "Conv").Attribute {
				if a.GetName() == "pads" {
					a.Ints[0] = -1
				}
			}
		}, "attribute pads is"},
		"reshape": {transformer, func(m *onnx.Model, _ *Options) {
			n := find(m, "Reshape")
			n.Input[1] = n.Input[0]
		}, "depend on the images or are no list of integers"},
		"one image": {alexnet, func(_ *onnx.Model, o *Options) { o.Batch = 0 }, "a batch of 0 images"},
		"no heads":  {alexnet, func(_ *onnx.Model, o *Options) { o.Heads = nil }, "no heads"},
		"head":      {alexnet, func(_ *onnx.Model, o *Options) { o.Heads = []string{"head_9"} }, `no output "head_9"`},
		"same head": {alexnet, func(_ *onnx.Model, o *Options) { o.Heads = []string{"head_0", "head_0"} }, "named twice"},
		"input":     {alexnet, func(_ *onnx.Model, o *Options) { o.Input = "pictures" }, `no input "pictures"`},
		"loss":      {alexnet, func(_ *onnx.Model, o *Options) { o.Loss = "hinge" }, `no loss "hinge"`},
		"binary":    {alexnet, func(_ *onnx.Model, o *Options) { o.Loss = Binary }, "2 heads"},
		"momentum":  {alexnet, func(_ *onnx.Model, o *Options) { o.SGD.Momentum = -1 }, "want finite numbers"},
		"nesterov":  {alexnet, func(_ *onnx.Model, o *Options) { o.SGD.Nesterov = true }, "Nesterov needs a momentum"},
		"frozen":    {alexnet, func(_ *onnx.Model, o *Options) { o.Frozen = func(string) bool { return true } }, "no parameters that are not frozen"},
		"form": {alexnet, func(m *onnx.Model, o *Options) {
			s, err := NewStep(m, *o)
			if err != nil {
				t.Fatal(err)
			}
			o.Forms = Forms{s.Problems[0].Key: "magic"}
		}, `no form "magic"`},
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, c.model)
			o := Options{Input: "images", Heads: outputs(m), Batch: 4, Loss: CrossEntropy}
			c.edit(m, &o)
			before := proto.CloneOf(m.Proto)
			_, err := NewStep(m, o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if !proto.Equal(m.Proto, before) {
				t.Error("the model was changed")
			}
		})
	}
}

// An export for one size of batch serves no other, and the error says so.
func TestFixedBatch(t *testing.T) {
	m := load(t, "transformer-16.onnx")
	g := m.Proto.Graph
	for _, n := range g.Node {
		if n.GetOpType() == "Reshape" {
			n.Input[1] = onnx.Edit(m).Const("fixed", onnx.NewInts([]int64{2, -1, 16}, 3))
			break
		}
	}
	_, err := NewStep(m, Options{Input: "images", Heads: outputs(m), Batch: 4, Loss: CrossEntropy})
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}

// damage changes one thing about the graph.
func damage(m *onnx.Model, r *rand.Rand) {
	g := m.Proto.Graph
	n := g.Node[r.IntN(len(g.Node))]
	number := func() int64 {
		return []int64{0, -1, 1, 2, 3, 7, 64, 1 << 20, 1 << 33, 1<<63 - 1, -1 << 63, -5}[r.IntN(12)]
	}
	anyName := func() string {
		switch r.IntN(4) {
		case 0:
			return g.Initializer[r.IntN(len(g.Initializer))].GetName()
		case 1:
			return ""
		}
		return g.Node[r.IntN(len(g.Node))].Output[0]
	}
	switch r.IntN(9) {
	case 0:
		i := r.IntN(len(g.Node))
		g.Node = append(g.Node[:i], g.Node[i+1:]...)
	case 1:
		n.OpType = g.Node[r.IntN(len(g.Node))].OpType
	case 2:
		if len(n.Input) > 0 {
			n.Input[r.IntN(len(n.Input))] = anyName()
		}
	case 3:
		if r.IntN(2) == 0 && len(n.Input) > 0 {
			n.Input = n.Input[:len(n.Input)-1]
		} else {
			n.Input = append(n.Input, anyName())
		}
	case 4:
		if len(n.Attribute) > 0 {
			a := n.Attribute[r.IntN(len(n.Attribute))]
			switch {
			case len(a.Ints) > 0 && r.IntN(3) == 0:
				a.Ints = a.Ints[1:]
			case len(a.Ints) > 0:
				a.Ints[r.IntN(len(a.Ints))] = number()
			case a.I != nil:
				a.I = proto.Int64(number())
			default:
				a.T, a.F = nil, nil
			}
		}
	case 5:
		if len(n.Attribute) > 0 {
			n.Attribute = n.Attribute[1:]
		}
	case 6:
		t := g.Initializer[r.IntN(len(g.Initializer))]
		if len(t.Dims) > 0 && r.IntN(2) == 0 {
			t.Dims[r.IntN(len(t.Dims))] = number()
		} else {
			t.Dims = append(t.Dims, number())
		}
	case 7:
		t := g.Initializer[r.IntN(len(g.Initializer))]
		switch r.IntN(3) {
		case 0:
			t.DataType = proto.Int32(int32(r.IntN(18)))
		case 1:
			t.RawData = t.RawData[:len(t.RawData)/2]
		default:
			for i := range t.RawData {
				t.RawData[i] = byte(r.Uint32())
			}
		}
	default:
		v := number()
		for _, n := range g.Node {
			for _, a := range n.Attribute {
				if d := a.GetT(); d != nil && r.IntN(10) == 0 {
					proto.Reset(d)
					proto.Merge(d, onnx.NewInts([]int64{v}, 1))
				}
			}
		}
	}
}

// Damaged graphs are refused or trained, but never end the program.
func TestDamaged(t *testing.T) {
	refused := 0
	for _, name := range []string{"alexnet-14.onnx", "resnet-11.onnx", "transformer-12.onnx", "transformer-16.onnx"} {
		whole := load(t, name)
		for seed := range uint64(400) {
			r := rand.New(rand.NewPCG(seed, 3))
			m := whole.Clone()
			for range 1 + r.IntN(3) {
				damage(m, r)
			}
			if _, err := NewStep(m, Options{Input: "images", Heads: outputs(m), Batch: 3, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9, ClipNorm: 1}}); err != nil {
				refused++
			}
		}
	}
	if refused < 400 {
		t.Errorf("only %d damaged models were refused", refused)
	}
}

func FuzzNewStep(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.onnx")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no models (%v)", err)
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		m, err := onnx.Parse(data)
		if err != nil {
			return
		}
		names := outputs(m)
		if inputs := m.Inputs(); len(inputs) > 0 {
			_, _ = NewStep(m, Options{Input: inputs[0].Name, Heads: names, Batch: 2, Loss: CrossEntropy})
		}
	})
}
