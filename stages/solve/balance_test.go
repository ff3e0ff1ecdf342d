package solve_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/label"
	"sela/stages/solve"
)

// labelsOf returns the label rows of a head.
func labelsOf(t *testing.T, run *pipeline.Run, head int, solutions []solve.Solution) (all []schemas.Label) {
	t.Helper()
	files, err := label.Files(context.Background(), run, shards(t, run), solutions)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var h, part int
		if _, err := fmt.Sscanf(f.Name, "labels/head=%d/part-%05d.parquet", &h, &part); err != nil || h != head {
			continue
		}
		local, release, err := run.Fetch(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		err = schemas.ReadLabels(local, func(l *schemas.Label) error {
			one := *l
			prob := *l.Prob
			one.Prob = &prob
			all = append(all, one)
			return nil
		})
		release()
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestExactCounts: with balance exact every cluster has its share of the rows,
// rounded down or up, in the label tables too, for images that are mostly
// copies of each other, whatever the shares, the method and the stored
// precision; the certificate says what that cost.
func TestExactCounts(t *testing.T) {
	for name, change := range map[string]func(*pipeline.Job){
		"equal":    func(j *pipeline.Job) {},
		"power":    func(j *pipeline.Job) { j.Solve.Power = 0.7 },
		"uint16":   func(j *pipeline.Job) { j.Extract.Stored = "uint16" },
		"sinkhorn": func(j *pipeline.Job) { j.Solve.Method = "sinkhorn" },
	} {
		t.Run(name, func(t *testing.T) {
			r := extracted(t, images, gaps, false, func(j *pipeline.Job) {
				j.Solve.Balance, j.Label.PartRows = "exact", 1024
				change(j)
			})
			r.Through(t, r.Run, label.Name)
			solutions, err := solve.Solutions(context.Background(), r.Run, shards(t, r.Run))
			if err != nil {
				t.Fatal(err)
			}
			for h, s := range solutions {
				rows := labelsOf(t, r.Run, h, solutions)
				counts := make([]int64, clusters[h])
				for _, l := range rows {
					counts[l.Label]++
					if !(*l.Prob > 0 && *l.Prob <= 1) {
						t.Fatalf("row %d has prob %v", l.Row, *l.Prob)
					}
				}
				shares := sinkhorn.PowerMarginals(clusters[h], r.Job.Solve.Power)
				for k, n := range counts {
					if want := shares[k] * float64(len(rows)); math.Abs(float64(n)-want) > 1-1e-9 {
						t.Errorf("head %d: cluster %d has %d rows, want %v", h, k, n, want)
					}
				}
				c := s.Certificate
				if c.Exactly == nil || c.Rows != int64(len(rows)) || c.LargestCount != slices.Max(counts) || c.SmallestCount != slices.Min(counts) {
					t.Fatalf("head %d: certificate %+v", h, c)
				}
				if e := c.Exactly; !(e.Gap >= 0 && e.Gap < 1e-6) || e.Passes < 1 || math.Abs(e.Cost-e.Gap-e.DualBound) > 1e-9 {
					t.Errorf("head %d: %+v", h, *e)
				}
				if (s.Stored != nil) != (r.Job.Extract.Stored == "uint16" && r.Job.Solve.Method == "lists") {
					t.Errorf("head %d: stored precision %+v", h, s.Stored)
				}
			}
		})
	}
}
