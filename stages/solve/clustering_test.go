package solve_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

// publishRun publishes a run whose labels are made.
func publishRun(t testing.TB, r *runtest.Run, run *pipeline.Run) {
	t.Helper()
	r.Through(t, run, label.Name)
	for _, stage := range []pipeline.Stage{&publish.Stage{Labels: r.Labels}, &train.Stage{Labels: r.Labels, Trigger: train.None{}}} {
		if _, err := runtest.Runner().Run(context.Background(), run, stage); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClustersKeepTheirIDs: clusters of the same rows as without a previous run
// have the ids of the clusters there that they share most with.
func TestClustersKeepTheirIDs(t *testing.T) {
	for _, method := range []string{"kmeans", "deepcluster"} {
		r := extracted(t, images, gaps, false, by(method))
		publishRun(t, r, r.Run)
		open := func(id, parent string) *pipeline.Run {
			t.Helper()
			run, err := pipeline.Open(context.Background(), r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: id, Parent: parent})
			if err != nil {
				t.Fatal(err)
			}
			r.Through(t, run, label.Name)
			return run
		}
		r.Job.Solve.Seed = 8 // other centres, other ids
		alone, matched := open("alone", ""), open("matched", "run-1")
		for h, k := range clusters {
			_, before := bare(t, r.Run, h)
			_, free := bare(t, alone, h)
			_, now := bare(t, matched, h)
			overlap, renamed := make([][]int, k), map[int32]int32{}
			for i := range overlap {
				overlap[i] = make([]int, k)
			}
			kept := int64(0)
			for i, l := range now {
				if id, ok := renamed[free[i]]; ok && id != l {
					t.Fatalf("%s, head %d: cluster %d became %d and %d", method, h, free[i], id, l)
				}
				renamed[free[i]] = l
				overlap[l][before[i]]++
				if l == before[i] {
					kept++
				}
			}
			m := solutionsOf(t, matched)[h].Labelling.Centres.Matched
			if m == nil || m.Run != "run-1" || m.Rows != int64(len(now)) || m.Kept != kept {
				t.Errorf("%s, head %d: %+v, %d of %d labels are kept", method, h, m, kept, len(now))
			}
			for a := range k {
				for b := range a {
					if overlap[a][a]+overlap[b][b] < overlap[a][b]+overlap[b][a] {
						t.Errorf("%s, head %d: clusters %d and %d would rather have each other's id: %v", method, h, a, b, overlap)
					}
				}
			}
		}
		// Ids drawn at random would agree in 1/7; whitened, 50 kinds of images are all
		// equally far from each other, so that much more is not to be expected.
		if m := solutionsOf(t, matched)[1].Labelling.Centres.Matched; 4*m.Kept < m.Rows {
			t.Errorf("%s: %+v", method, m)
		}
		r.Job.Solve.Method, r.Job.Solve.From = "fixed", "run-1"
		fixed := r.Open(t, "fixed")
		r.Through(t, fixed, extract.Name)
		fails(t, do(t, r, fixed), pipeline.Config, "solve.from", "run-1", "by method "+method, "no potentials")
	}
}

// TestKilledClusteringResumes: stopped after any iteration it goes on from
// there, to the same bytes.
func TestKilledClusteringResumes(t *testing.T) {
	for _, method := range []string{"kmeans", "deepcluster"} {
		r := extracted(t, 1500, nil, false, by(method))
		if err := do(t, r, r.Run); err != nil {
			t.Fatal(err)
		}
		want := sums(t, r.Run)
		killed := r.Open(t, "killed")
		r.Through(t, killed, extract.Name)
		last := map[string]int64{}
		kills := 0
		for ; ; kills++ {
			ctx, cancel := context.WithCancel(context.Background())
			run, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: "killed",
				Observer: pipeline.ObserverFunc(func(e pipeline.Event) {
					if e.Kind != pipeline.PassDone {
						return
					}
					pass := e.Attrs[0].Value.Int64()
					if before := last[e.Task]; pass != before+1 && pass != before {
						t.Errorf("%s: %s was stopped after iteration %d and went on with %d", method, e.Task, before, pass)
					}
					if last[e.Task] = pass; pass > int64(kills) {
						cancel()
					}
				})})
			if err != nil {
				t.Fatal(err)
			}
			_, err = runtest.Runner().Run(ctx, run, &solve.Stage{Runtime: r.Runtime, SaveEvery: time.Nanosecond})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) || kills > 60 {
				t.Fatalf("kill %d: %v", kills, err)
			}
		}
		if kills < 1 || method == "kmeans" && kills < 3 {
			t.Errorf("%s: only %d kills before the end", method, kills)
		}
		if got := sums(t, killed); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", method, got, want)
		}
		spoiled := r.Open(t, "spoiled")
		r.Through(t, spoiled, extract.Name)
		if err := r.Work.Put(context.Background(), spoiled.Path("checkpoints/head-0.json"), []byte(`{"format": "something else"}`)); err != nil {
			t.Fatal(err)
		}
		fails(t, do(t, r, spoiled), pipeline.Config, "checkpoint", "head-0", "delete it")
	}
}

// TestUnclusterable: too few images, features that are not numbers, memory that
// holds no centres, a model without features, no ONNX Runtime.
func TestUnclusterable(t *testing.T) {
	for _, method := range []string{"kmeans", "deepcluster", "random"} {
		few := extracted(t, 5, func(i int) bool { return i == 2 }, false, by(method))
		fails(t, do(t, few, few.Run), pipeline.Data, "head-1", "at least one image per cluster", "1 rejected")
	}
	for _, method := range []string{"kmeans", "deepcluster"} {
		r := extracted(t, 1100, nil, false, by(method))
		_, err := runtest.Runner().Run(context.Background(), r.Run, &solve.Stage{Labels: r.Labels})
		if err == nil || !strings.Contains(err.Error(), "without ONNX Runtime") {
			t.Error(err)
		}
		number := spoilFeatures(t, r.Run)
		bad := listed(t, r.Run)[number]
		fails(t, do(t, r, r.Run), pipeline.Data, bad.Key, bad.Member, fmt.Sprintf("row %d", number), "NaN")
	}
	same := extracted(t, 100, nil, false, by("random"))
	same.Job.Solve.Method = "kmeans" // of a run that was listed and extracted without
	run := same.Open(t, "without")
	same.Through(t, run, extract.Name)
	fails(t, do(t, same, run), pipeline.Config, "kmeans", "model.features")
	small := extracted(t, 100, nil, false, func(j *pipeline.Job) { by("deepcluster")(j); j.Solve.Memory = 1 << 20 })
	fails(t, do(t, small, small.Run), pipeline.Config, "192 features", "solve.memory")
}

// spoilFeatures makes a feature NaN, which extract never writes, and returns the
// row.
func spoilFeatures(t testing.TB, run *pipeline.Run) int64 {
	t.Helper()
	files, err := shards(t, run).Features()
	if err != nil {
		t.Fatal(err)
	}
	o := files[1]
	local, release, err := run.Fetch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b, err := schemas.OpenBlocks(local)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	numbers, values := make([]int64, o.Rows), make([]float32, int(o.Rows)*b.Width())
	if _, err := b.ReadRows(0, 1<<40, numbers, values); err != nil {
		t.Fatal(err)
	}
	values[30*b.Width()+2] = float32(math.NaN())
	path := filepath.Join(t.TempDir(), "bad.parquet")
	w, err := schemas.CreateBlocks(path, b.Meta())
	if err != nil {
		t.Fatal(err)
	}
	batch := schemas.NewBatch(numbers, values, nil, b.Width(), nil)
	defer batch.Release()
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	stats, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, run, o, raw, stats)
	return numbers[30]
}
