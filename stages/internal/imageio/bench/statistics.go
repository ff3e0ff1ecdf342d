//go:build linux

package main

import (
	"fmt"
	"slices"

	"sela/stages/internal/report"
)

// median returns the middle of some numbers, the mean of the middle two.
func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// ratio is a ratio of two candidates' times, taken in each round.
type ratio struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// ratios compares series of which each pair was taken in one round.
func ratios(of, to []float64) ratio {
	all := make([]float64, len(of))
	for i := range all {
		all[i] = of[i] / to[i]
	}
	return ratio{median(all), slices.Min(all), slices.Max(all)}
}

func (r ratio) String() string {
	return fmt.Sprintf("%s (%s–%s)", report.Number(r.Median), report.Number(r.Least), report.Number(r.Most))
}

// series picks one number of each round.
func (t *trial) series(pick func(measure) float64) (all []float64) {
	for _, m := range t.rounds {
		all = append(all, pick(m))
	}
	return all
}

// last is the round whose allocations count: buffers have grown by then.
func (t *trial) last() measure { return t.rounds[len(t.rounds)-1] }

func (t *trial) seconds() []float64 { return t.series(func(m measure) float64 { return m.seconds }) }

func (t *trial) step(pick func(*steps) float64) []float64 {
	if len(t.rounds) == 0 || t.rounds[0].steps == nil {
		return nil
	}
	return t.series(func(m measure) float64 { return pick(m.steps) })
}

func decodeStep(s *steps) float64    { return s.Decode }
func resizeStep(s *steps) float64    { return s.Resize }
func normaliseStep(s *steps) float64 { return s.Normalise }

// milliseconds is the median as a cell, empty if nothing was measured.
func milliseconds(seconds []float64) any {
	if seconds == nil {
		return nil
	}
	return 1e3 * median(seconds)
}

// difference is how far pixels are from the reference's.
type difference struct {
	max   int
	mean  float64 // levels
	equal float64 // share of the bytes
}

// compareImages compares the images of those numbers, each of size bytes.
func compareImages(got, want []byte, size int, images []int) *difference {
	d := &difference{}
	sum, equal := 0, 0
	for _, i := range images {
		want := want[i*size:][:size]
		for j, g := range got[i*size:][:size] {
			delta := int(g) - int(want[j])
			if delta == 0 {
				equal++
				continue
			}
			delta = max(delta, -delta)
			d.max = max(d.max, delta)
			sum += delta
		}
	}
	n := float64(size * len(images))
	d.mean, d.equal = float64(sum)/n, float64(equal)/n
	return d
}

// cells are max, mean and equal.
func (d *difference) cells() []any {
	if d == nil {
		return []any{nil, nil, nil}
	}
	// Not rounded up to all of them.
	equal := fmt.Sprintf("%.4g %%", 100*d.equal)
	if d.equal < 1 && equal == "100 %" {
		equal = "< 100 %"
	}
	return []any{d.max, d.mean, equal}
}
