package grad

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

func network(t testing.TB, name string, o onnx.NetworkOptions) (*onnx.Model, []string) {
	t.Helper()
	m, err := onnx.NewNetwork(name, o)
	if err != nil {
		t.Fatal(err)
	}
	var heads []string
	for i := range o.Heads {
		heads = append(heads, fmt.Sprintf("head_%d", i))
	}
	return m, heads
}

// batch fills the inputs of a step with random images and labels.
func batch(s *Step, feeds map[string]any, clusters int, rate float32, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for _, v := range s.Model.Inputs() {
		n := int64(1)
		for _, d := range v.Shape {
			n *= d.Size
		}
		switch v.Name {
		case s.Images:
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			feeds[v.Name] = x
		case s.Labels:
			y := make([]int64, n)
			for i := range y {
				y[i] = int64(r.IntN(clusters))
			}
			feeds[v.Name] = y
		case s.Weights:
			feeds[v.Name] = slices.Repeat([]float32{1}, int(n))
		case s.LearningRate:
			feeds[v.Name] = []float32{rate}
		}
	}
}

// A network learns the labels of one batch by heart, with the same numbers
// whatever the number of threads.
func TestStepLearns(t *testing.T) {
	m, heads := network(t, "resnet-s", onnx.NetworkOptions{ImageSize: 16, Heads: 2, Clusters: 5, Seed: 1})
	s, err := NewStep(m, Options{Input: "images", Heads: heads, Batch: 8, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9, WeightDecay: 1e-4}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := newRunner(t, s.Model, 1), newRunner(t, s.Model, 2)
	feeds := initial(s)
	batch(s, feeds, 5, 0.02, 3)
	var first, last []float32
	for range 30 {
		got, again := one.run(feeds), two.run(feeds)
		for name, list := range got {
			if !slices.Equal(list, again[name]) {
				t.Fatalf("output %s: 1 and 2 threads differ", name)
			}
		}
		if first == nil {
			first = got[s.Losses]
		}
		last = got[s.Losses]
		advance(s, feeds, got)
	}
	for i := range last {
		if !(first[i] > 1 && last[i] < 0.1) {
			t.Errorf("head %d: loss %g after %g", i, last[i], first[i])
		}
	}
	got := one.run(feeds)
	for i, c := range got[s.Correct] {
		if c != 8 {
			t.Errorf("head %d: %g of 8 rows right after training", i, c)
		}
	}
}
