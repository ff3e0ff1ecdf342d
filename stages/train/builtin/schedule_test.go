package builtin

import (
	"math"
	"testing"

	"sela/pipeline"
)

func TestRates(t *testing.T) {
	b := func(change func(*pipeline.Builtin)) pipeline.Builtin {
		spec := pipeline.DefaultJob().Train.Builtin
		spec.Epochs, spec.Rate = 10, 0.4
		change(&spec)
		return spec
	}
	for name, c := range map[string]struct {
		spec pipeline.Builtin
		want map[int64]float64 // of 10 epochs of 10 steps
	}{
		"cosine": {b(func(s *pipeline.Builtin) {}), map[int64]float64{0: 0.4, 50: 0.2, 25: 0.2 * (1 + math.Sqrt(0.5)), 99: 0.2 * (1 + math.Cos(math.Pi*0.99))}},
		"cosine, warm-up": {b(func(s *pipeline.Builtin) { s.Warmup = 0.2 }),
			map[int64]float64{0: 0.02, 9: 0.2, 19: 0.4, 20: 0.4, 60: 0.2}},
		"constant": {b(func(s *pipeline.Builtin) { s.Schedule = "steps" }), map[int64]float64{0: 0.4, 99: 0.4}},
		"steps": {b(func(s *pipeline.Builtin) { s.Schedule, s.Milestones, s.Factor = "steps", []float64{3, 6.5}, 0.5 }),
			map[int64]float64{0: 0.4, 29: 0.4, 30: 0.2, 64: 0.2, 65: 0.1, 99: 0.1}},
		"steps, warm-up": {b(func(s *pipeline.Builtin) { s.Schedule, s.Milestones, s.Warmup = "steps", []float64{5}, 0.1 }),
			map[int64]float64{0: 0.04, 9: 0.4, 10: 0.4, 50: 0.04}},
	} {
		s := newSchedule(&c.spec, 10)
		for step, want := range c.want {
			if got := s.rate(step); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: the rate of step %d is %g, want %g", name, step, got, want)
			}
		}
	}
}
