package onnx_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/onnx/onnxtest"
)

// exports are PyTorch's, with the number of features of each.
var exports = map[string]int{"resnet-9": 32, "resnet-13": 32, "transformer-16": 16}

// Heads of an export are replaced: the features keep their bits, and the new
// outputs are the heads of these.
func TestRunReplaceHeads(t *testing.T) {
	const n, k = 5, 7
	for name, width := range exports {
		for _, o := range []onnx.HeadOptions{
			{Heads: 3, Clusters: k, Seed: 4, Gain: 2},
			{Heads: 2, Clusters: k, Seed: 4, Kind: onnx.CosineHead, Temperature: 0.2},
		} {
			t.Run(fmt.Sprintf("%s/%s", name, o.Kind), func(t *testing.T) {
				m := load(t, name)
				v, err := m.Features("")
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("float32 [batch %d]", width); !strings.HasSuffix(v.String(), want) {
					t.Errorf("features %v, want %s", v, want)
				}
				whole := m.Clone()
				onnx.Edit(whole).Output(onnx.Value{Name: v.Name, DType: onnx.Float32})
				want := run(t, whole, n, noise(6), v.Name)[0]

				heads, err := m.ReplaceHeads("", o)
				if err != nil {
					t.Fatal(err)
				}
				orderIsValid(t, m)
				if len(heads) != o.Heads || heads[0] != "head_0" {
					t.Fatalf("heads %q", heads)
				}
				trunk, err := m.Trunk("")
				if err != nil {
					t.Fatal(err)
				}
				checkTrunk(t, trunk, width)
				if got := run(t, trunk, n, noise(6), "features")[0]; !slices.Equal(got, want) {
					t.Error("the trunk's features are not the export's, bit for bit")
				}
				probe := m.Clone()
				onnx.Edit(probe).Output(onnx.Value{Name: v.Name, DType: onnx.Float32})
				out := run(t, probe, n, noise(6), append(heads, v.Name)...)
				if !slices.Equal(out[len(heads)], want) {
					t.Error("the features are not the export's, bit for bit")
				}
				for i, h := range heads {
					checkHead(t, m, h, o, want, out[i], n, width, k)
				}

				// Heads that were put on are replaced likewise, and leave nothing behind.
				if _, err := m.ReplaceHeads("", onnx.HeadOptions{Heads: 1, Clusters: 4, Seed: 9}); err != nil {
					t.Fatal(err)
				}
				fresh := load(t, name)
				if _, err := fresh.ReplaceHeads(v.Name, onnx.HeadOptions{Heads: 1, Clusters: 4, Seed: 9}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(encode(t, m), encode(t, fresh)) {
					t.Error("replacing heads twice is not replacing them once")
				}
			})
		}
	}
}

func checkTrunk(t *testing.T, trunk *onnx.Model, width int) {
	t.Helper()
	orderIsValid(t, trunk)
	info, err := onnx.Inspect(trunk)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(info.Outputs, info.Metadata), fmt.Sprintf("[features float32 [batch %d]] map[sela.features:features]", width); got != want {
		t.Errorf("the trunk has %s, want %s", got, want)
	}
}

// checkHead computes a head's logits from the features in float64.
func checkHead(t *testing.T, m *onnx.Model, name string, o onnx.HeadOptions, features, got []float32, n, width, k int) {
	t.Helper()
	floats := func(name string) []float32 {
		v, err := m.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	w := floats(name + ".weight")
	for row := range n {
		x := make([]float64, width)
		for i := range x {
			x[i] = float64(features[row*width+i])
		}
		want := affine(x, w, nil)
		if o.Kind == onnx.CosineHead {
			h := affine(x, floats("projection.0.weight"), floats("projection.0.bias"))
			for i := range h { // statistics of a fresh layer: 0 and 1
				h[i] = max(h[i]/math.Sqrt(1+1e-5), 0)
			}
			z := affine(h, floats("projection.3.weight"), floats("projection.3.bias"))
			want = make([]float64, k)
			for j := range k {
				prototype := make([]float64, len(z))
				for i := range prototype {
					prototype[i] = float64(w[i*k+j])
				}
				want[j] = dot(z, prototype) / math.Sqrt(dot(z, z)*dot(prototype, prototype)) / o.Temperature
			}
		}
		for j, y := range want {
			if g := float64(got[row*k+j]); math.Abs(g-y) > 1e-4*(1+math.Abs(y)) {
				t.Fatalf("%s, row %d: logit %d is %g, want %g", name, row, j, g, y)
			}
		}
	}
}

// affine is w·x + b for w [len(w)/len(x), len(x)].
func affine(x []float64, w, b []float32) []float64 {
	y := make([]float64, len(w)/len(x))
	for i := range y {
		for j, v := range x {
			y[i] += v * float64(w[i*len(x)+j])
		}
		if b != nil {
			y[i] += float64(b[i])
		}
	}
	return y
}

func dot(a, b []float64) (sum float64) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// layers builds a model of nodes behind an input x, [N, 4]; w is a matrix [4, 3]
// and b a vector of 3.
func layers(d onnx.DType, outputs []string, add func(b *onnx.Builder)) *onnx.Model {
	b := onnx.NewBuilder("layers")
	b.Input(onnx.Value{Name: "x", DType: d, Shape: []onnx.Dim{{Name: "N"}, {Size: 4}}})
	b.Const("w", onnx.NewTensor([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 4, 3))
	b.Const("b", onnx.NewTensor([]float32{1, 2, 3}, 3))
	add(b)
	for _, o := range outputs {
		b.Output(onnx.Value{Name: o, DType: d, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}}})
	}
	return b.Model()
}

func TestFeatures(t *testing.T) {
	for name, c := range map[string]struct {
		add  func(b *onnx.Builder)
		want string // the value, or a part of the error
	}{
		"bias and softmax": {func(b *onnx.Builder) {
			b.Node("Relu", "h", []string{"x"})
			b.Node("Softmax", "y", []string{b.Node("Add", "", []string{"b", b.Node("MatMul", "", []string{"h", "w"})})})
		}, "h float32 [N 4]"},
		"transposed by a node": {func(b *onnx.Builder) {
			b.Node("Relu", "h", []string{"x"})
			b.Node("Gemm", "y", []string{"h", b.Node("Transpose", "", []string{b.Node("Transpose", "", []string{"w"})}), "b"})
		}, "h float32 [N 4]"},
		"stacked": {func(b *onnx.Builder) {
			b.Node("Relu", "h", []string{"x"})
			var parts []string
			for range 2 {
				parts = append(parts, b.Node("Unsqueeze", "", []string{b.Node("Gemm", "", []string{"h", "w"}), b.Const("", onnx.NewInts([]int64{1}, 1))}))
			}
			b.Node("Concat", "y", parts, onnx.Int("axis", 1))
		}, "h float32 [N 4]"},
		"of the images": {func(b *onnx.Builder) { b.Node("MatMul", "y", []string{"x", "w"}) }, "x float32 [N 4]"},
		"no linear layer": {func(b *onnx.Builder) {
			b.Node("Relu", "y", []string{b.Node("MatMul", "", []string{"x", "w"})})
		}, `output "y": unsupported by this edit: node "y" (Relu) makes it`},
		"a product of two": {func(b *onnx.Builder) {
			h := b.Node("MatMul", "h", []string{"x", "w"})
			b.Node("MatMul", "y", []string{h, b.Node("Transpose", "", []string{h})})
		}, "(MatMul) makes it"},
		"a sum of two": {func(b *onnx.Builder) {
			h := b.Node("MatMul", "h", []string{"x", "w"})
			b.Node("Add", "y", []string{h, h})
		}, "(Add) makes it"},
		"transposed rows": {func(b *onnx.Builder) {
			b.Node("Gemm", "y", []string{"x", "w"}, onnx.Int("transA", 1))
		}, "(Gemm) makes it"},
		"another domain": {func(b *onnx.Builder) {
			b.Node("Gemm", "y", []string{"x", "w"})
			domain := "com.example"
			b.Model().Proto.Graph.Node[0].Domain = &domain
		}, "(Gemm) makes it"},
		"an input": {func(b *onnx.Builder) { b.Node("Identity", "y", []string{"x"}) }, "no result of a linear layer"},
		"a constant": {func(b *onnx.Builder) {
			b.Node("Identity", "y", []string{"w"})
		}, "no linear layer before its outputs"},
		"a circle": {func(b *onnx.Builder) {
			b.Node("Identity", "y", []string{"z"})
			b.Node("Identity", "z", []string{"y"})
			b.Model().Proto.Graph.Node[0].Input = []string{"z", "x"}
		}, "no result of a linear layer"},
	} {
		v, err := layers(onnx.Float32, []string{"y"}, c.add).Features("")
		if err != nil && strings.Contains(err.Error(), c.want) && errors.Is(err, onnx.ErrUnsupported) {
			continue
		}
		if err != nil || v.String() != c.want {
			t.Errorf("%s: %v, %v; want %q", name, v, err, c.want)
		}
	}
	two := layers(onnx.Float32, []string{"y", "z"}, func(b *onnx.Builder) {
		b.Node("MatMul", "y", []string{"x", "w"})
		b.Node("MatMul", "z", []string{b.Node("Relu", "h", []string{"x"}), "w"})
	})
	if _, err := two.Features(""); err == nil || !strings.Contains(err.Error(), `"y" is a linear layer on "x", output "z" one on "h"`) {
		t.Errorf("two tensors: error %v", err)
	}
	if v, err := two.Features("h"); err != nil || v.String() != "h float32 [N 4]" {
		t.Errorf("named: %v, %v", v, err)
	}
	if _, err := two.Features("hh"); !errors.Is(err, onnx.ErrNoTensor) || !strings.Contains(err.Error(), "similar: h") {
		t.Errorf("misspelt: error %v", err)
	}
}

// Maps are flattened, half precision is cast, for heads and trunk.
func TestRunReplaceHeadsOfAnyType(t *testing.T) {
	for _, d := range []onnx.DType{onnx.Float32, onnx.Float16} {
		m, _ := onnxtest.Classifier{DType: d, OutputDType: d}.Build()
		// What the classifier's own layers read is not stated.
		f, err := m.Features("")
		if err != nil {
			t.Fatal(err)
		}
		onnx.Edit(m).Output(onnx.Value{Name: f.Name, DType: d})
		trunk, err := m.Trunk("")
		if err == nil {
			t.Error("an output that is no head was passed over")
		}
		if trunk, err = m.Trunk(f.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := m.ReplaceHeads(f.Name, onnx.HeadOptions{Heads: 1, Clusters: 2}); err != nil {
			t.Fatal(err)
		}
		features, logits := run(t, trunk, 2, noise(1), "features")[0], run(t, m, 2, noise(1), "head_0")[0]
		checkHead(t, m, "head_0", onnx.HeadOptions{}, features, logits, 2, len(features)/2, 2)
	}
	m := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3})
	if _, err := m.ReplaceHeads("conv4", onnx.HeadOptions{Heads: 1, Clusters: 2}); err != nil {
		t.Fatal(err)
	}
	if w, err := m.Floats("head_0.weight"); err != nil || len(w) != 2*256*4*4 {
		t.Errorf("a head on conv4 has %d weights, %v", len(w), err)
	}
	run(t, m, 2, noise(1), "head_0")
}

func TestReplaceHeadsRefuses(t *testing.T) {
	one := onnx.HeadOptions{Heads: 1, Clusters: 2}
	old := load(t, "plain-7")
	old.Proto.OpsetImport[0].Version = new(int64)
	unstated := load(t, "resnet-13")
	for want, c := range map[string]struct {
		m      *onnx.Model
		tensor string
		o      onnx.HeadOptions
	}{
		"0 heads":                       {load(t, "resnet-13"), "", onnx.HeadOptions{Clusters: 2}},
		"operator set 0":                {old, "", one},
		"does not state the shape":      {unstated, unstated.Proto.Graph.Node[20].Output[0], one},
		"similar: images":               {load(t, "resnet-13"), "imags", one},
		"(BatchNormalization) makes it": {load(t, "norms-15"), "", one},
		"no tensor of features":         {layers(onnx.Int64, []string{"x"}, func(*onnx.Builder) {}), "x", one},
		"exceed":                        {load(t, "resnet-13"), "", onnx.HeadOptions{Heads: 4096, Clusters: 1 << 20}},
		"a projection of 3145728":       {network(t, "resnet-s", onnx.NetworkOptions{ImageSize: 1024, Heads: 1, Clusters: 2}), "images", onnx.HeadOptions{Heads: 1, Clusters: 2, Kind: onnx.CosineHead}},
	} {
		before := encode(t, c.m)
		if _, err := c.m.ReplaceHeads(c.tensor, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if !bytes.Equal(before, encode(t, c.m)) {
			t.Errorf("%s: the model was changed", want)
		}
	}
	// Once stated, the shape serves.
	onnx.Edit(unstated).Describe(onnx.Value{Name: unstated.Proto.Graph.Node[20].Output[0], DType: onnx.Float32,
		Shape: []onnx.Dim{{Name: "batch"}, {Size: 4}, {Size: 8}, {Size: 8}}})
	if _, err := unstated.ReplaceHeads(unstated.Proto.Graph.Node[20].Output[0], one); err != nil {
		t.Error(err)
	}
	if w, err := unstated.Floats("head_0.weight"); err != nil || len(w) != 2*4*8*8 {
		t.Errorf("%d weights, %v", len(w), err)
	}
}

// The cosine head of a fresh network puts rows out that differ, once its
// normalisation is calibrated; that of the trunk stays as it is.
func TestRunHeadCalibration(t *testing.T) {
	const n = 64
	m := load(t, "resnet-13")
	if _, err := m.ReplaceHeads("", onnx.HeadOptions{Heads: 1, Clusters: 20, Kind: onnx.CosineHead}); err != nil {
		t.Fatal(err)
	}
	trunk, err := m.Trunk("")
	if err != nil {
		t.Fatal(err)
	}
	before := encode(t, trunk)
	cal, err := onnx.NewHeadCalibration(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := cal.Add(run(t, cal.Graph, n, smooth, cal.Output)[0]); err != nil {
		t.Fatal(err)
	}
	if err := cal.Apply(m); err != nil {
		t.Fatal(err)
	}
	if trunk, err = m.Trunk(""); err != nil || !bytes.Equal(before, encode(t, trunk)) {
		t.Errorf("calibrating the head changed the trunk, %v", err)
	}
	probe := m.Clone()
	onnx.Edit(probe).Output(onnx.Value{Name: "projection.1.out", DType: onnx.Float32})
	out := run(t, probe, n, smooth, "projection.1.out")[0]
	width := len(out) / n
	kept, err := m.Floats("projection.1.running_var")
	if err != nil {
		t.Fatal(err)
	}
	for c := range width {
		var sum, squares float64
		for row := range n {
			x := float64(out[row*width+c])
			sum += x / n
			squares += x * x / n
		}
		// The variance kept is n/(n−1) times the batch's, and ε counts beside it.
		want := float64(kept[c]) / (float64(kept[c]) + 1e-5) * (n - 1) / n
		if v := squares - sum*sum; math.Abs(sum) > 1e-3 || math.Abs(v-want) > 1e-3 {
			t.Fatalf("channel %d of the projection has mean %g and variance %g, want %g", c, sum, v, want)
		}
	}
	if _, err := m.ReplaceHeads("", onnx.HeadOptions{Heads: 1, Clusters: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.NewHeadCalibration(m); !errors.Is(err, onnx.ErrNoBatchNorm) {
		t.Errorf("linear heads: error %v", err)
	}
}

// Dropout is in the graph for training to find and does nothing in evaluation.
func TestRunDropoutIsIdentity(t *testing.T) {
	m := network(t, "alexnet-small", onnx.NetworkOptions{Heads: 1, Clusters: 4, Seed: 3})
	var dropped []string
	for _, n := range m.Proto.Graph.Node {
		if n.GetOpType() == "Dropout" {
			dropped = append(dropped, n.Input[0])
		}
	}
	if want := []string{"flatten.out", "classifier.2.out"}; !slices.Equal(dropped, want) {
		t.Fatalf("Dropout of %q, want of %q", dropped, want)
	}
	// Heads behind the first one leave the large layers out.
	if _, err := m.ReplaceHeads("classifier.0.out", onnx.HeadOptions{Heads: 1, Clusters: 4}); err != nil {
		t.Fatal(err)
	}
	step, err := grad.NewStep(m, grad.Options{Input: "images", Heads: []string{"head_0"}, Batch: 2, Loss: grad.CrossEntropy})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(step.Masks[0].Dims, step.Masks[0].Ratio), "[2 9216] 0.5"; len(step.Masks) != 1 || got != want {
		t.Errorf("masks %v, want one of %s", step.Masks, want)
	}
	without := m.Clone()
	for _, n := range without.Proto.Graph.Node {
		if n.GetOpType() == "Dropout" {
			*n.OpType, n.Input = "Identity", n.Input[:1]
		}
	}
	want := run(t, without, 2, noise(8), "head_0")[0]
	for range 2 {
		if got := run(t, m, 2, noise(8), "head_0")[0]; !slices.Equal(got, want) {
			t.Errorf("with Dropout %v, without %v", got, want)
		}
	}
}
