package onnx_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

func TestExternalFloats(t *testing.T) {
	dir := t.TempDir()
	b := onnx.NewBuilder("external")
	b.Const("x", onnx.ExternalFloats("values.f32", 2, 3))
	b.Const("d", onnx.NewDoubles([]float64{math.Pi, math.Inf(-1)}, 2))
	b.Output(onnx.Value{Name: "x", DType: onnx.Float32})
	path := filepath.Join(dir, "m.onnx")
	if err := b.Model().Save(path); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "values.f32")
	if err := os.WriteFile(data, onnx.NewTensor([]float32{1, 2, 3, 4, 5, 6}, 6).RawData, 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := m.Floats("x"); err != nil || !slices.Equal(x, []float32{1, 2, 3, 4, 5, 6}) {
		t.Errorf("x is %v, %v", x, err)
	}
	if d, err := m.Floats("d"); err != nil || !slices.Equal(d, []float32{math.Pi, float32(math.Inf(-1))}) {
		t.Errorf("d is %v, %v", d, err)
	}
	if err := os.Truncate(data, 23); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(path); err == nil {
		t.Error("a file that is too short was accepted")
	}
}

func TestSubgraph(t *testing.T) {
	body := onnx.NewBuilder("body")
	body.Node("Neg", "body_y", []string{"x"})
	a := onnx.Subgraph("then_branch", body.Model())
	if a.GetName() != "then_branch" || a.GetType() != onnxpb.AttributeProto_GRAPH || a.G.GetName() != "body" || len(a.G.Node) != 1 {
		t.Errorf("attribute %v", a)
	}
	b := onnx.NewBuilder("outer")
	b.Nodes("If", []string{"y"}, []string{"flag"}, a)
	if again := onnx.Edit(b.Model()).Node("Neg", "body_y", []string{"y"}); again == "body_y" {
		t.Error("a name of the body was given again")
	}
}
