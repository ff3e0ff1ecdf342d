package grad

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// golden is a training run of PyTorch, as testdata/golden.py writes it.
type golden struct {
	Model       string
	Opset       int
	Seed        uint32
	Batch       int
	Heads       []string
	Clusters    []int64
	Loss        Loss
	Momentum    float64
	Nesterov    bool
	WeightDecay float64 `json:"weight_decay"`
	DecayAll    bool    `json:"decay_all"`
	Clip        float64
	Rate        float32
	Losses      [][]float64
	Correct     [][]float64
	Parameters  map[string]struct {
		Dims           []int64
		Initial, Final digest
	}
}

// digest is the norm of a tensor and some of its elements.
type digest struct {
	Norm   float64
	At     []int
	Values []float64
}

// draw repeats golden.py's numbers.
type draw uint32

func (d *draw) next() float64 {
	*d = 1664525**d + 1013904223
	return float64(*d>>8) / (1 << 24)
}

func (d *draw) list(n int64, f func(u float64) float32) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = f(d.next())
	}
	return out
}

func norm(list []float32) float64 {
	sum := 0.
	for _, x := range list {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// Ten steps of each network end where PyTorch's do: every loss, parameter and
// statistic within 1e-4 of its scale.
func TestAgainstPyTorch(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		t.Run(g.Model, func(t *testing.T) { g.check(t) })
	}
}

func (g golden) check(t *testing.T) {
	m, err := onnx.Load(filepath.Join("testdata", g.Model))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStep(m, Options{Input: "images", Heads: g.Heads, Batch: g.Batch, Loss: g.Loss,
		SGD: SGD{Momentum: g.Momentum, Nesterov: g.Nesterov, WeightDecay: g.WeightDecay, DecayAll: g.DecayAll, ClipNorm: g.Clip}})
	if err != nil {
		t.Fatal(err)
	}
	for name := range g.Parameters {
		if state, _ := g.find(s, name); state == nil {
			t.Errorf("%s: not in the step", name)
		}
	}
	run := newRunner(t, s.Model, 1)
	feeds := initial(s)
	d := draw(g.Seed)
	size := map[string]int64{}
	for _, v := range s.Model.Inputs() {
		size[v.Name] = 1
		for _, dim := range v.Shape {
			size[v.Name] *= dim.Size
		}
	}
	for step := range g.Losses {
		feeds[s.Images] = d.list(size[s.Images], func(u float64) float32 { return float32(2*u - 1) })
		weights := d.list(int64(g.Batch), func(u float64) float32 { return float32(truth(u < 0.8)) })
		weights[0] = 1
		feeds[s.Weights] = slices.Repeat(weights, len(g.Heads))
		for _, mask := range s.Masks {
			feeds[mask.Input] = d.list(elements(mask.Dims), func(u float64) float32 { return float32(truth(u >= mask.Ratio) / (1 - mask.Ratio)) })
		}
		if g.Loss == Binary {
			feeds[s.Labels] = d.list(size[s.Labels], func(u float64) float32 { return float32(truth(u < 0.5)) })
		} else {
			labels := make([]int64, size[s.Labels])
			for i := range labels {
				labels[i] = int64(d.next() * float64(g.Clusters[i/g.Batch]))
			}
			feeds[s.Labels] = labels
		}
		feeds[s.LearningRate] = []float32{g.Rate / float32(1+step%3)}
		got := run.run(feeds)
		for i, want := range g.Losses[step] {
			if l := float64(got[s.Losses][i]); !(math.Abs(l-want) < 1e-4) {
				t.Fatalf("step %d, head %d: loss %g, want %g", step, i, l, want)
			}
			if c := float64(got[s.Correct][i]); math.Abs(c-g.Correct[step][i]) > 1e-4 {
				t.Errorf("step %d, head %d: %g correct, want %g", step, i, c, g.Correct[step][i])
			}
		}
		advance(s, feeds, got)
	}

	trained := map[string][]float32{}
	for _, state := range s.State {
		if state.Kind != Momentum {
			trained[state.Name] = feeds[state.In].([]float32)
		}
	}
	if len(trained) != len(g.Parameters) {
		t.Errorf("%d parameters and statistics, want %d", len(trained), len(g.Parameters))
	}
	for name, want := range g.Parameters {
		state, transposed := g.find(s, name)
		if state == nil {
			continue
		}
		list := trained[state.Name]
		if math.Abs(norm(list)-want.Final.Norm) > 1e-4*want.Final.Norm {
			t.Errorf("%s: norm %g, want %g", name, norm(list), want.Final.Norm)
		}
		scale := max(want.Final.Norm/math.Sqrt(float64(len(list))), 1e-2)
		for i, at := range want.Final.At {
			if transposed {
				at = at%int(want.Dims[1])*int(want.Dims[0]) + at/int(want.Dims[1])
			}
			if x := float64(list[at]); math.Abs(x-want.Final.Values[i]) > 1e-4*scale {
				t.Errorf("%s[%d]: %g, want %g", name, at, x, want.Final.Values[i])
			}
		}
	}

	if err := s.Apply(m, trained); err != nil {
		t.Fatal(err)
	}
	for name, list := range trained {
		back, err := m.Floats(name)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(list) {
			t.Errorf("%s: not what was applied (%v)", name, err)
		}
	}
	again, err := NewStep(m, Options{Input: "images", Heads: g.Heads, Batch: g.Batch, Loss: g.Loss})
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range again.State {
		if state.Kind != Momentum && fmt.Sprint(state.Initial) != fmt.Sprint(trained[state.Name]) {
			t.Errorf("%s: a step of the trained model starts elsewhere", state.Name)
		}
	}
}

// find returns the state that is PyTorch's parameter of that name. Exports
// transpose the weights of linear layers in front of a MatMul and name them
// anew: these are known by their norm.
func (g golden) find(s *Step, name string) (state *State, transposed bool) {
	want := g.Parameters[name]
	for i := range s.State {
		if s.State[i].Kind != Momentum && s.State[i].Name == name {
			return &s.State[i], false
		}
	}
	for i, state := range s.State {
		if _, named := g.Parameters[state.Name]; named || state.Kind != Parameter || len(want.Dims) != 2 || len(state.Dims) != 2 {
			continue
		}
		if state.Dims[0] == want.Dims[1] && state.Dims[1] == want.Dims[0] && math.Abs(norm(state.Initial)-want.Initial.Norm) < 1e-6*want.Initial.Norm {
			return &s.State[i], true
		}
	}
	return nil, false
}
