package builtin

import (
	"math"

	"sela/pipeline"
)

// schedule is the learning rate as a function of the step alone, so that a
// resumed run has the rates of an uninterrupted one. Steps are counted from 0
// over all epochs.
type schedule struct {
	base       float64
	total      int64
	warmup     int64 // steps
	cosine     bool
	milestones []int64 // steps
	factor     float64
}

func newSchedule(b *pipeline.Builtin, stepsPerEpoch int) schedule {
	s := schedule{base: b.Rate, total: int64(b.Epochs) * int64(stepsPerEpoch), cosine: b.Schedule == "cosine", factor: b.Factor}
	s.warmup = int64(math.Round(b.Warmup * float64(s.total)))
	for _, m := range b.Milestones {
		s.milestones = append(s.milestones, int64(math.Round(m*float64(stepsPerEpoch))))
	}
	return s
}

// rate is the learning rate of a step. It rises linearly over the warm-up, of
// which it reaches the end in the last step; then it falls in steps, or as half
// a cosine from its base to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983,
// without restarts).
func (s schedule) rate(step int64) float64 {
	switch {
	case step < s.warmup:
		return s.base * float64(step+1) / float64(s.warmup)
	case s.cosine:
		done := float64(step-s.warmup) / float64(s.total-s.warmup)
		return s.base * (1 + math.Cos(math.Pi*done)) / 2
	}
	rate := s.base
	for _, m := range s.milestones {
		if step >= m {
			rate *= s.factor
		}
	}
	return rate
}
