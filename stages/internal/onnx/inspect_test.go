package onnx_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
)

func describe(t *testing.T, m *onnx.Model) string {
	t.Helper()
	i, err := onnx.Inspect(m)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("in %v out %v opsets %v ir %d by %q parameters %d in %d ops %v files %q",
		i.Inputs, i.Outputs, i.Opsets, i.IRVersion, i.Producer, i.Parameters, i.ParameterTensors, i.Ops, i.ExternalFiles)
}

func TestInspect(t *testing.T) {
	for name, want := range map[string]string{
		"plain-7":     `in [x float32 [N 4]] out [y float32 [N 5]] opsets map[:7] ir 3 by "make.py 1" parameters 25 in 2 ops [{Gemm 1} {Tanh 1}] files []`,
		"stacked-11":  `in [x float16 [N 4]] out [y float16 [N 3 5]] opsets map[:11] ir 10 by "make.py 1" parameters 60 in 1 ops [{MatMul 1} {Reshape 1}] files []`,
		"branches-21": `in [x float32 [N 4] flag bool []] out [y float32 [N 5]] opsets map[:21] ir 10 by "make.py 1" parameters 20 in 1 ops [{Add 1} {Constant 1} {If 1} {MatMul 1} {Sub 1}] files ["b.bin" "weights/a.bin"]`,
		// All its constants serve as statistics too, so none counts.
		"norms-15": `in [x float32 [N 2 3 3]] out [y float32 [N 18]] opsets map[:15] ir 8 by "make.py 1" parameters 0 in 0 ops [{BatchNormalization 2} {Flatten 1} {Relu 1}] files []`,
	} {
		if got := describe(t, load(t, name)); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestInspectStatedAndUnstated(t *testing.T) {
	for _, c := range []struct {
		value onnx.Value
		want  string
	}{
		{onnx.Value{Name: "a", DType: onnx.Uint8, Shape: []onnx.Dim{{Size: 2}, {Name: "H"}, {}}}, "a uint8 [2 H ?]"},
		{onnx.Value{Name: "b", DType: onnx.BFloat16}, "b bfloat16 […]"},
		{onnx.Value{Name: "c"}, "c (type not stated)"},
		{onnx.Value{Name: "d", DType: onnx.Float64, Shape: []onnx.Dim{}}, "d float64 []"},
	} {
		b := onnx.NewBuilder("g")
		b.Output(c.value)
		m, err := onnx.Parse(encode(t, b.Model()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := onnx.Inspect(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Outputs[0].String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestInspectRefusesImpossibleShapes(t *testing.T) {
	b := onnx.NewBuilder("g")
	huge := onnx.NewTensor(nil, 1<<40, 1<<40)
	b.Const("w", huge)
	b.Output(onnx.Value{Name: "w"})
	if _, err := onnx.Inspect(b.Model()); !errors.Is(err, onnx.ErrNotModel) {
		t.Errorf("error %v, want ErrNotModel", err)
	}
	if _, err := b.Model().Floats("w"); !errors.Is(err, onnx.ErrUnsupported) {
		t.Errorf("error %v, want ErrUnsupported", err)
	}
}

// A small model's bytes are a contract: they decide a run's identity.
func TestGoldenBytes(t *testing.T) {
	m, data := onnxtest.Classifier{Size: 2, Channels: 1, Hidden: 2, Clusters: []int{2, 3}, Stacked: false, NHWC: true,
		DType: onnx.Uint8, OutputDType: onnx.Float16, Kind: onnx.Probabilities, External: "w.bin", Seed: 1}.Build()
	heads, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Probabilities})
	if err != nil {
		t.Fatal(err)
	}
	if len(heads) != 2 || len(data) != 4*(4*2+2*2+2*3) {
		t.Fatalf("%d heads, %d bytes", len(heads), len(data))
	}
	path := filepath.Join("testdata", "edited.onnx")
	got := encode(t, m)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%d bytes differ from the %d of %s", len(got), len(want), path)
	}
}

func TestFloats(t *testing.T) {
	m := load(t, "plain-7")
	v, err := m.Floats("b")
	if err != nil || len(v) != 5 {
		t.Errorf("%v, %v", v, err)
	}
	for name, want := range map[string]string{"nothing": "nothing", "w": "float16"} {
		if _, err := load(t, "stacked-11").Floats(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
