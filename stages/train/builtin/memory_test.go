package builtin

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort/orttest"
)

// a and b live together at the second node, b and c at the third.
func TestEstimate(t *testing.T) {
	b := onnx.NewBuilder("chain")
	size := func(name string, n int64) onnx.Value {
		return onnx.Value{Name: name, DType: onnx.Float32, Shape: []onnx.Dim{{Size: n}}}
	}
	b.Input(size("x", 10))
	b.Input(size("w", 10))
	b.Node("Expand", "a", []string{"x", b.Const("dims_a", onnx.NewInts([]int64{10, 10}, 2))})
	b.Node("Expand", "b", []string{"a", b.Const("dims_b", onnx.NewInts([]int64{10, 10, 10}, 3))})
	b.Node("Cast", "c", []string{"b"}, onnx.Int("to", int64(onnx.Bool)))
	b.Node("Cast", "d", []string{"c"}, onnx.Int("to", int64(onnx.Float32)))
	b.Node("ReduceMax", "e", []string{"d"}, onnx.Ints("axes", 0, 1), onnx.Int("keepdims", 0))
	b.Node("Add", "w_next", []string{"e", "w"})
	b.Output(size("w_next", 10))
	step := &grad.Step{Model: b.Model(), State: []grad.State{{In: "w", Out: "w_next", Dims: []int64{10}}}}
	bytes, err := sizes(orttest.Open(t), step, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"x": 40, "a": 400, "b": 4000, "c": 1000, "d": 4000, "e": 40} {
		if bytes[name] != want {
			t.Errorf("%s has %d bytes, want %d", name, bytes[name], want)
		}
	}
	if m := estimate(step, bytes); m.State != 2*4*10 || m.Activations != 4000+1000 {
		t.Errorf("%+v", m)
	}
}

// A batch of a real network that does not fit is refused with one that does.
func TestBatchThatFits(t *testing.T) {
	small := func(batch int) *trainer {
		tr := newTrainer(t, network(1), newMade(), t.TempDir())
		tr.spec.Batch = batch
		if err := tr.shape(context.Background(), false, nil); err != nil {
			t.Fatal(err)
		}
		return tr
	}
	big, half := small(64), small(32)
	if big.estimate.State != half.estimate.State || big.estimate.Activations < 64*3*testSide*testSide*4 {
		t.Errorf("estimates %+v and %+v", big.estimate, half.estimate)
	}
	if ratio := float64(big.estimate.Activations) / float64(half.estimate.Activations); ratio < 1.8 || ratio > 2.2 {
		t.Errorf("twice the batch has %.2f times the activations", ratio)
	}
	big.memory = half.estimate.total() + 2000
	_, err := big.run(context.Background())
	if pipeline.ClassOf(err) != pipeline.Config || err == nil || !strings.Contains(err.Error(), "a batch of 32 would fit") {
		t.Errorf("error %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	m := memory{State: 1 << 20, Activations: 64 << 20}
	if err := m.fits(64, 0); err != nil {
		t.Errorf("an unknown limit: %v", err)
	}
	if err := m.fits(64, 65<<20); err != nil {
		t.Errorf("just enough: %v", err)
	}
	for limit, want := range map[int64]string{33 << 20: "a batch of 32 would fit", 30 << 20: "a batch of 24 would fit", 3 << 20: "a batch of 2 would fit", 1 << 20: "no batch would fit"} {
		err := m.fits(64, limit)
		if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "65 MiB") {
			t.Errorf("limit %d: %v, want %q", limit, err, want)
		}
	}
}

// What ONNX Runtime says when memory gives out becomes advice.
func TestExhausted(t *testing.T) {
	tr := &trainer{spec: testSpec(), memory: 1 << 30, estimate: memory{State: 1 << 20, Activations: 2 << 30}}
	for _, text := range []string{
		"Non-zero status code returned while running Conv node. Failed to allocate memory for requested buffer of size 8589934592",
		"std::bad_alloc", "CUDA failure 2: out of memory",
	} {
		err := tr.explain(errors.New(text))
		if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "try a batch of 7") || !strings.Contains(err.Error(), text) {
			t.Errorf("%q becomes %v", text, err)
		}
	}
	// Where the step seemed to fit, or nobody knows how much there is, the advice
	// stays clear of what failed.
	for _, limit := range []int64{0, 3 << 30, 1 << 40} {
		tr.spec.Batch, tr.memory = 64, limit
		if err := tr.explain(errors.New("std::bad_alloc")); !strings.Contains(err.Error(), "try a batch of 32 ") {
			t.Errorf("of %d bytes: %v", limit, err)
		}
	}
	other := errors.New("shape mismatch")
	if err := tr.explain(other); err != other {
		t.Errorf("another error becomes %v", err)
	}
}
