package onnx_test

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// trainer runs training steps of two cosine heads on an export.
type trainer struct {
	step    *grad.Step
	stepper *ort.Stepper
	feed    *ort.Feed
}

func newTrainer(t *testing.T, m *onnx.Model, heads []string, batch, clusters int) *trainer {
	t.Helper()
	step, err := grad.NewStep(m, grad.Options{Input: "images", Heads: heads, Batch: batch, Loss: grad.CrossEntropy, SGD: grad.SGD{Momentum: 0.9}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "step.onnx")
	if err := step.Model.Save(path); err != nil {
		t.Fatal(err)
	}
	spec := ort.StepperSpec{Results: []ort.TensorInfo{{Name: step.Losses, Type: ort.Float32, Dims: []int64{int64(len(heads))}}}}
	feeds := []string{step.Images, step.Labels, step.Weights, step.LearningRate}
	for _, v := range step.Model.Inputs() {
		if slices.Contains(feeds, v.Name) {
			info := ort.TensorInfo{Name: v.Name, Type: ort.ElementType(v.DType.String())}
			for _, d := range v.Shape {
				info.Dims = append(info.Dims, d.Size)
			}
			spec.Feeds = append(spec.Feeds, info)
		}
	}
	for _, s := range step.State {
		spec.State = append(spec.State, ort.State{In: s.In, Out: s.Out, Dims: s.Dims})
	}
	tr := &trainer{step: step}
	if tr.stepper, err = orttest.Open(t).NewStepper(path, spec, ort.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.stepper.Close() })
	for i, s := range step.State {
		copy(tr.stepper.State(i), s.Initial)
	}
	if tr.feed, err = tr.stepper.NewFeed(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 3))
	for i, info := range spec.Feeds {
		for j := range tr.feed.Tensors[i].Int64() {
			tr.feed.Tensors[i].Int64()[j] = int64(r.IntN(clusters))
		}
		for j := range tr.feed.Tensors[i].Float32() {
			x := float32(1) // weights
			switch info.Name {
			case step.Images:
				x = float32(r.NormFloat64())
			case step.LearningRate:
				x = 0.05
			}
			tr.feed.Tensors[i].Float32()[j] = x
		}
	}
	return tr
}

// losses runs one step.
func (tr *trainer) losses(t *testing.T) []float32 {
	t.Helper()
	if err := tr.stepper.Step(context.Background(), tr.feed); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(tr.stepper.Result(0))
}

// Cosine heads are trained: every weight of theirs is a parameter, and two of
// them learn the labels of a batch by heart.
func TestRunCosineHeadsLearn(t *testing.T) {
	const clusters = 5
	m := load(t, "resnet-13")
	heads, err := m.ReplaceHeads("", onnx.HeadOptions{Heads: 2, Clusters: clusters, Kind: onnx.CosineHead, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrainer(t, m, heads, 16, clusters)
	kinds := map[string]grad.Kind{}
	for _, s := range tr.step.State {
		if s.Kind != grad.Momentum {
			kinds[s.Name] = s.Kind
		}
	}
	for _, name := range []string{"projection.0.weight", "projection.1.weight", "projection.1.bias", "projection.3.weight", "projection.3.bias", "head_0.weight", "head_1.weight"} {
		if kinds[name] != grad.Parameter {
			t.Errorf("%s is a %q", name, kinds[name])
		}
	}
	if kinds["projection.1.running_mean"] != grad.Statistic {
		t.Error("the projection's running mean is no statistic")
	}
	first := tr.losses(t)
	var last []float32
	for range 40 {
		last = tr.losses(t)
	}
	for i := range last {
		if !(last[i] < first[i]/4) {
			t.Errorf("head %d: loss %g after 40 steps, %g before", i, last[i], first[i])
		}
	}
}

// At projections and prototypes of zero, logits are 0 and gradients finite.
func TestRunCosineOfNothing(t *testing.T) {
	const clusters = 4
	for _, zero := range [][]string{{"projection.3.weight"}, {"head_0.weight"}, {"projection.3.weight", "head_0.weight"}} {
		m := load(t, "resnet-13")
		heads, err := m.ReplaceHeads("", onnx.HeadOptions{Heads: 1, Clusters: clusters, Kind: onnx.CosineHead})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range m.Proto.Graph.Initializer {
			if slices.Contains(zero, w.GetName()) {
				clear(w.RawData)
			}
		}
		for _, x := range run(t, m, 3, noise(1), "head_0")[0] {
			if x != 0 {
				t.Errorf("%q: logit %g", zero, x)
			}
		}
		tr := newTrainer(t, m, heads, 4, clusters)
		for range 3 {
			values := map[string][]float32{"the loss": tr.losses(t)}
			for i, s := range tr.step.State {
				values[string(s.Kind)+" "+s.Name] = tr.stepper.State(i)
			}
			for what, list := range values {
				for _, x := range list {
					if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
						t.Fatalf("%q: %s holds %g", zero, what, x)
					}
				}
			}
		}
	}
}
