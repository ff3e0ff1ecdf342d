package solve_test

import (
	"slices"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
	"sela/stages/solve"
)

// TestCheck: what a solve would refuse is found before the images are read.
func TestCheck(t *testing.T) {
	rt := orttest.Open(t)
	job := pipeline.DefaultJob()
	if err := solve.Check(job, []int{3, 7}, rt); err != nil {
		t.Error(err)
	}
	job.Solve.Marginals = []float64{0.5, 0.25, 0.25}
	if err := solve.Check(job, []int{3, 3}, rt); err != nil {
		t.Error(err)
	}
	fails(t, solve.Check(job, []int{3, 7}, rt), pipeline.Config, "head 1", "solve.marginals", "3 shares", "7 clusters")
	job.Solve.Marginals, job.Solve.Device = nil, "cuda"
	cuda := slices.ContainsFunc(rt.Providers(), func(p ort.ProviderStatus) bool { return p.Name == ort.CUDA && p.Err == nil })
	if err := solve.Check(job, []int{3}, rt); cuda != (err == nil) {
		t.Errorf("cuda is there: %t; the check says %v", cuda, err)
	} else if !cuda {
		fails(t, err, pipeline.Config, "solve.device", "cuda")
	}
}
