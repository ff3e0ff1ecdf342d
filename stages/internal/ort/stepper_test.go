package ort_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// stepperGraph saves a graph with two states: a ← a + x·float(n), b ← a·b, both
// of the values before the step, and the result a + b of those after it.
func stepperGraph(t *testing.T) string {
	t.Helper()
	b := onnx.NewBuilder("stepper")
	pair := []onnx.Dim{{Size: 2}}
	for _, in := range []onnx.Value{{Name: "x", DType: onnx.Float32, Shape: pair}, {Name: "n", DType: onnx.Int64, Shape: []onnx.Dim{{Size: 1}}},
		{Name: "a", DType: onnx.Float32, Shape: pair}, {Name: "b", DType: onnx.Float32, Shape: pair}} {
		b.Input(in)
	}
	n := b.Node("Cast", "n_float", []string{"n"}, onnx.Int("to", int64(onnx.Float32)))
	b.Node("Add", "a_next", []string{"a", b.Node("Mul", "change", []string{"x", n})})
	b.Node("Mul", "b_next", []string{"a", "b"})
	b.Node("Add", "sum", []string{"a_next", "b_next"})
	for _, name := range []string{"sum", "a_next", "b_next"} {
		b.Output(onnx.Value{Name: name, DType: onnx.Float32, Shape: pair})
	}
	path := filepath.Join(t.TempDir(), "stepper.onnx")
	if err := b.Model().Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func stepperSpec() ort.StepperSpec {
	return ort.StepperSpec{
		Feeds:   []ort.TensorInfo{{Name: "x", Type: ort.Float32, Dims: []int64{2}}, {Name: "n", Type: ort.Int64, Dims: []int64{1}}},
		State:   []ort.State{{In: "a", Out: "a_next", Dims: []int64{2}}, {In: "b", Out: "b_next", Dims: []int64{2}}},
		Results: []ort.TensorInfo{{Name: "sum", Type: ort.Float32, Dims: []int64{2}}},
	}
}

func newStepper(t *testing.T, spec ort.StepperSpec) (*ort.Stepper, error) {
	t.Helper()
	s, err := orttest.Open(t).NewStepper(stepperGraph(t), spec, ort.Options{Arena: true})
	if err == nil {
		t.Cleanup(func() {
			for range 2 {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	return s, err
}

func TestStepper(t *testing.T) {
	s, err := newStepper(t, stepperSpec())
	if err != nil {
		t.Fatal(err)
	}
	copy(s.State(0), []float32{1, 2})
	copy(s.State(1), []float32{3, 4})
	var feeds [2]*ort.Feed
	for i := range feeds {
		if feeds[i], err = s.NewFeed(); err != nil {
			t.Fatal(err)
		}
		copy(feeds[i].Tensors[0].Float32(), []float32{0.5, float32(i)})
		feeds[i].Tensors[1].Int64()[0] = int64(i + 1)
	}
	ctx := context.Background()
	want := [][3][]float32{ // a, b, sum after each step
		{{1.5, 2}, {3, 8}, {4.5, 10}},
		{{2.5, 4}, {4.5, 16}, {7, 20}},
		{{3, 4}, {11.25, 64}, {14.25, 68}},
	}
	check := func(step int) {
		t.Helper()
		got := [3][]float32{s.State(0), s.State(1), s.Result(0)}
		for i := range got {
			if !slices.Equal(got[i], want[step][i]) {
				t.Errorf("step %d: tensor %d is %v, want %v", step, i, got[i], want[step][i])
			}
		}
	}
	for step := range want {
		if err := s.Step(ctx, feeds[step%2]); err != nil {
			t.Fatal(err)
		}
		check(step)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Step(cancelled, feeds[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled step: %v", err)
	}
	check(len(want) - 1)
}

func TestStepperRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ort.StepperSpec)
		want   string
	}{
		"result of another type": {func(s *ort.StepperSpec) { s.Results[0].Type = ort.Uint8 }, "result sum"},
		"empty state":            {func(s *ort.StepperSpec) { s.State[0].Dims = []int64{0} }, "state a"},
	} {
		spec := stepperSpec()
		c.change(&spec)
		if _, err := newStepper(t, spec); !errors.Is(err, ort.ErrModel) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// ONNX Runtime looks at names and shapes when it runs.
	for name, c := range map[string]struct {
		change func(*ort.StepperSpec)
		want   string
	}{
		"a feed of another shape": {func(s *ort.StepperSpec) { s.Feeds[0].Dims = []int64{3} }, "x"},
		"no such output":          {func(s *ort.StepperSpec) { s.State[1].Out = "c_next" }, "c_next"},
	} {
		spec := stepperSpec()
		c.change(&spec)
		s, err := newStepper(t, spec)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.NewFeed()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Step(context.Background(), f); !errors.Is(err, ort.ErrRun) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
