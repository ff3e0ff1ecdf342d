package grad

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// Exports of large networks take a step: those in the folder that
// SELA_EXPORTS names, as testdata/export.py writes them.
func TestExports(t *testing.T) {
	dir := os.Getenv("SELA_EXPORTS")
	if dir == "" {
		t.Skip("SELA_EXPORTS names no folder of models")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models in %s (%v)", dir, err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			m, err := onnx.Load(p)
			if err != nil {
				t.Fatal(err)
			}
			s, err := NewStep(m, Options{Input: "images", Heads: outputs(m), Batch: 2, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9, WeightDecay: 1e-4}})
			if err != nil {
				t.Fatal(err)
			}
			var parameters int64
			decayed := map[Kind]int{}
			for _, state := range s.State {
				decayed[state.Kind]++
				if state.Kind == Parameter {
					parameters += elements(state.Dims)
				}
			}
			t.Logf("%d nodes, %d parameters in %d tensors, %d statistics, %d masks, %d problems", len(s.Model.Proto.Graph.Node),
				parameters, decayed[Parameter], decayed[Statistic], len(s.Masks), len(s.Problems))
			one, run := newRunner(t, s.Model, 1), newRunner(t, s.Model, 2)
			feeds := initial(s)
			batch(s, feeds, 1000, 0.01, 1)
			for _, mask := range s.Masks {
				feeds[mask.Input] = ones(elements(mask.Dims))
			}
			first := run.run(feeds)
			differ := 0
			for name, list := range one.run(feeds) {
				if !slices.Equal(list, first[name]) {
					differ++
				}
			}
			one.close()
			t.Logf("%d of %d outputs differ between 1 and 2 threads", differ, len(first))
			advance(s, feeds, first)
			second := run.run(feeds)
			a, b := first[s.Losses][0], second[s.Losses][0]
			if !(b < a) {
				t.Errorf("loss %g, then %g on the same images", a, b)
			}
			t.Logf("loss %g, then %g", a, b)
		})
	}
}

func ones(n int64) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = 1
	}
	return list
}
