package grad

import (
	"fmt"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// A loop of steps gives the bits of the steps taken singly, wherever in the stack
// they lie.
func TestLoop(t *testing.T) {
	const steps = 5
	for _, name := range []string{"alexnet-s", "resnet-s"} {
		t.Run(name, func(t *testing.T) {
			m, heads := network(t, name, onnx.NetworkOptions{ImageSize: 32, Heads: 2, Clusters: 4, Seed: 1})
			s, err := NewStep(m, Options{Input: "images", Heads: heads, Batch: 4, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9, WeightDecay: 1e-3, Nesterov: true, ClipNorm: 1}})
			if err != nil {
				t.Fatal(err)
			}
			l, err := s.Loop(steps)
			if err != nil {
				t.Fatal(err)
			}
			stack := map[string]any{}
			var want []map[string][]float32
			single := newRunner(t, s.Model, 1)
			feeds := initial(s)
			for i := range steps {
				batch(s, feeds, 4, 0.01*float32(i+1), uint64(i))
				feeds[s.Weights].([]float32)[i] = 0
				for _, mask := range s.Masks {
					feeds[mask.Input] = slices.Repeat([]float32{float32(i % 2), 2}, int(elements(mask.Dims)/2))
				}
				for name, v := range feeds {
					if slices.ContainsFunc(s.State, func(state State) bool { return state.In == name }) {
						continue
					}
					switch v := v.(type) {
					case []float32:
						before, _ := stack[name].([]float32)
						stack[name] = append(slices.Clone(before), v...)
					case []int64:
						before, _ := stack[name].([]int64)
						stack[name] = append(slices.Clone(before), v...)
					}
				}
				got := single.run(feeds)
				want = append(want, got)
				advance(s, feeds, got)
			}
			loop := newRunner(t, l.Model, 1)
			for name, v := range initial(s) {
				stack[name] = v
			}
			for _, run := range [][2]int{{0, 1}, {1, 3}, {4, 1}} {
				first, count := run[0], run[1]
				stack[l.First], stack[l.Count] = []int64{int64(first)}, []int64{int64(count)}
				got := loop.run(stack)
				last := want[first+count-1]
				for _, state := range s.State {
					if !slices.Equal(got[state.Out], last[state.Out]) {
						t.Errorf("steps %d to %d: %s %s differs", first, first+count, state.Kind, state.Name)
					}
				}
				for _, result := range []string{s.Losses, s.Correct} {
					for i := range steps {
						row := []float32{0, 0}
						if i >= first && i < first+count {
							row = want[i][result]
						}
						if g := got[result][2*i : 2*i+2]; !slices.Equal(g, row) {
							t.Errorf("steps %d to %d: %s of step %d is %v, want %v", first, first+count, result, i, g, row)
						}
					}
				}
				advance(s, stack, got)
			}
		})
	}
	if _, err := (&Step{}).Loop(0); err == nil || fmt.Sprint(err) != "make a loop of 0 training steps" {
		t.Errorf("a loop of no steps: %v", err)
	}
}
