package ort_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// newProgram opens a graph that returns weights·x + d where flag holds and d
// elsewhere, and removes its files. The weights, 2 and 3, are external data.
func newProgram(t *testing.T, opts ort.Options) *ort.Program {
	t.Helper()
	b := onnx.NewBuilder("program")
	b.Const("weights", onnx.ExternalFloats("weights.f32", 2))
	free := []onnx.Dim{{Name: "n"}, {Size: 2}}
	b.Input(onnx.Value{Name: "x", DType: onnx.Float32, Shape: free})
	b.Input(onnx.Value{Name: "d", DType: onnx.Float64, Shape: []onnx.Dim{{Size: 1}}})
	b.Input(onnx.Value{Name: "flag", DType: onnx.Bool, Shape: []onnx.Dim{{Size: 1}}})
	then, otherwise := onnx.NewBuilder("then"), onnx.NewBuilder("otherwise")
	then.Node("Mul", "then_product", []string{"x", "weights"})
	then.Node("Cast", "then_double", []string{"then_product"}, onnx.Int("to", int64(onnx.Float64)))
	then.Node("Add", "then_y", []string{"then_double", "d"})
	then.Output(onnx.Value{Name: "then_y", DType: onnx.Float64})
	otherwise.Node("Identity", "else_y", []string{"d"})
	otherwise.Output(onnx.Value{Name: "else_y", DType: onnx.Float64})
	b.Nodes("If", []string{"y"}, []string{"flag"}, onnx.Subgraph("then_branch", then.Model()), onnx.Subgraph("else_branch", otherwise.Model()))
	b.Output(onnx.Value{Name: "y", DType: onnx.Float64})
	b.Output(onnx.Value{Name: b.Node("Identity", "single", []string{"x"}), DType: onnx.Float32})
	dir := t.TempDir()
	path := filepath.Join(dir, "program.onnx")
	if err := b.Model().Save(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "weights.f32"), onnx.NewTensor([]float32{2, 3}, 2).RawData, 0o644); err != nil {
		t.Fatal(err)
	}
	opts.Inputs = []string{"x", "d", "flag"}
	if opts.Outputs == nil {
		opts.Outputs = []string{"y"}
	}
	p, err := orttest.Open(t).NewProgram(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.Remove(filepath.Join(dir, "weights.f32"))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

func arguments(x []float32, flag bool) []ort.Input {
	return []ort.Input{
		ort.Array[float32]{Dims: []int64{int64(len(x) / 2), 2}, Values: x},
		ort.Array[float64]{Dims: []int64{1}, Values: []float64{0.5}},
		ort.Array[bool]{Dims: []int64{1}, Values: []bool{flag}},
	}
}

func TestProgram(t *testing.T) {
	p := newProgram(t, ort.Options{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				out, err := p.Run(context.Background(), arguments([]float32{1, 2, 3, 4}, true)...)
				if err != nil || !slices.Equal(out[0].Dims, []int64{2, 2}) || !slices.Equal(out[0].Values, []float64{2.5, 6.5, 6.5, 12.5}) {
					t.Errorf("got %v, %v", out, err)
				}
				out, err = p.Run(context.Background(), arguments([]float32{1, 2}, false)...)
				if err != nil || !slices.Equal(out[0].Dims, []int64{1}) || !slices.Equal(out[0].Values, []float64{0.5}) {
					t.Errorf("got %v, %v", out, err)
				}
			}
		})
	}
	all.Wait()
}

func TestProgramErrors(t *testing.T) {
	p := newProgram(t, ort.Options{Arena: true})
	good := arguments([]float32{1, 2}, true)
	for name, c := range map[string]struct {
		inputs []ort.Input
		want   string
	}{
		"too few":   {good[:2], "2 inputs given"},
		"shape":     {[]ort.Input{ort.Array[float32]{Dims: []int64{3, 2}, Values: make([]float32, 5)}, good[1], good[2]}, "5 values for shape [3 2]"},
		"empty":     {[]ort.Input{ort.Array[float32]{Dims: []int64{0, 2}}, good[1], good[2]}, "input x"},
		"type":      {[]ort.Input{ort.Array[float64]{Dims: []int64{1, 2}, Values: make([]float64, 2)}, good[1], good[2]}, "double"},
		"dimension": {[]ort.Input{ort.Array[float32]{Dims: []int64{1, 3}, Values: make([]float32, 3)}, good[1], good[2]}, "x"},
	} {
		if _, err := p.Run(context.Background(), c.inputs...); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	single := newProgram(t, ort.Options{Outputs: []string{"single"}})
	if _, err := single.Run(context.Background(), good...); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), "not float64") {
		t.Errorf("a float32 output: %v", err)
	}
	if err := single.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := single.Run(context.Background(), good...); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a closed program: %v", err)
	}
	rt := orttest.Open(t)
	if _, err := rt.NewProgram(filepath.Join(t.TempDir(), "absent.onnx"), ort.Options{Inputs: []string{"x"}, Outputs: []string{"y"}}); !errors.Is(err, ort.ErrModel) {
		t.Errorf("no file: %v", err)
	}
	if _, err := rt.NewProgram("any.onnx", ort.Options{Providers: []ort.Provider{{Name: "gpu"}}}); !errors.Is(err, ort.ErrProvider) {
		t.Errorf("unknown provider: %v", err)
	}
}

func TestProgramCancelled(t *testing.T) {
	p, err := orttest.Open(t).NewProgram(filepath.Join("testdata", "loop.onnx"), ort.Options{Inputs: []string{"x", "trips"}, Outputs: []string{"y"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	run := func(ctx context.Context, trips float32) error {
		_, err := p.Run(ctx, ort.Array[float32]{Dims: []int64{64, 64}, Values: make([]float32, 64*64)},
			ort.Array[float32]{Dims: []int64{1}, Values: []float32{trips}})
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := run(ctx, 2e9); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ort.ErrRun) {
		t.Errorf("error %v", err)
	}
	if err := run(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "not float64") {
		t.Errorf("after a cancelled run: %v", err)
	}
}
