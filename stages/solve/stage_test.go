package solve_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

// memory gives the solver rows without files.
type memory struct {
	table
	clusters int
}

func (m *memory) Dims() (int64, int) { return int64(len(m.numbers)), m.clusters }
func (m *memory) Chunks() int        { return int(m.numbers[len(m.numbers)-1]/sinkhorn.ChunkRows) + 1 }
func (m *memory) ReadChunk(_ context.Context, i int, _ *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	from, _ := slices.BinarySearch(m.numbers, int64(i)*sinkhorn.ChunkRows)
	to, _ := slices.BinarySearch(m.numbers, int64(i+1)*sinkhorn.ChunkRows)
	return yield(&sinkhorn.Block{Rows: m.numbers[from:to], X: m.values[from*m.clusters : to*m.clusters]})
}

// TestSolve: what the stage commits is what the solver finds on the same rows
// in memory: with method sinkhorn to the bit, with the others, which start from
// the sample, as closely as the tolerance asks. Its certificate holds.
func TestSolve(t *testing.T) {
	for _, method := range []sinkhorn.Method{sinkhorn.MethodSinkhorn, sinkhorn.MethodLists, sinkhorn.MethodLBFGS} {
		t.Run(string(method), func(t *testing.T) {
			r := extracted(t, images, gaps, false, func(j *pipeline.Job) { j.Solve.Method = string(method) })
			if err := do(t, r, r.Run); err != nil {
				t.Fatal(err)
			}
			solutions, err := solve.Solutions(context.Background(), r.Run, shards(t, r.Run))
			if err != nil {
				t.Fatal(err)
			}
			for h, s := range solutions {
				checkSolution(t, r, method, h, s)
			}
		})
	}
}

func checkSolution(t *testing.T, r *runtest.Run, method sinkhorn.Method, head int, s solve.Solution) {
	t.Helper()
	spec, within := r.Job.Solve, 0.0
	o := sinkhorn.Options{Method: method, Lambda: spec.Lambda, Tol: spec.Tolerance, MaxIterations: spec.MaxIterations}
	if method != sinkhorn.MethodSinkhorn {
		o.Method, within = sinkhorn.MethodLBFGS, 1e-4
	}
	want, err := sinkhorn.Solve(context.Background(), sinkhorn.NewCPU(&memory{whole(t, r.Run, head), clusters[head]}, 3), o)
	if err != nil {
		t.Fatal(err)
	}
	local, release, err := r.Run.Fetch(context.Background(), s.Potentials)
	if err != nil {
		t.Fatal(err)
	}
	v, meta, err := schemas.ReadPotentials(local)
	release()
	if err != nil {
		t.Fatal(err)
	}
	shift := 0.0 // potentials of the semi-dual have no scale
	if within > 0 {
		shift = v[0] - want.V[0]
	}
	for k := range v {
		if !(math.Abs(v[k]-want.V[k]-shift) <= within) {
			t.Errorf("head %d: potentials %v, want %v", head, v, want.V)
			break
		}
	}
	if meta["head"] != fmt.Sprint(head) || meta["model"] != r.Provenance.Model || meta["listing"] == "" || meta["preprocessing"] == "" || !strings.Contains(meta["certificate"], "converged") {
		t.Errorf("head %d: metadata %v", head, meta)
	}
	c := s.Certificate
	if c.Status != sinkhorn.Converged || c.Method != method || c.Rows != int64(len(whole(t, r.Run, head).numbers)) || !(c.MarginalL1 < 0.01) {
		t.Errorf("head %d: certificate %+v", head, c)
	}
	if method == sinkhorn.MethodSinkhorn && c.Passes != want.Passes || method != sinkhorn.MethodSinkhorn && (c.MarginalL1 > 1e-6 || c.SamplePasses == 0) {
		t.Errorf("head %d: %d passes and %d over the sample, error %v", head, c.Passes, c.SamplePasses, c.MarginalL1)
	}
}

// TestLabelsAreInvariant: potentials and label files are the same bytes for any
// number of workers, any shards, and a remote store.
func TestLabelsAreInvariant(t *testing.T) {
	sums := func(r *runtest.Run, run *pipeline.Run) map[string]string {
		t.Helper()
		r.Through(t, run, label.Name)
		all := map[string]string{}
		commits, err := run.AllCommits(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commits {
			for _, o := range c.Outputs {
				if c.Stage == solve.Name || c.Stage == label.Name {
					all[o.Name] = o.SHA256
				}
			}
		}
		return all
	}
	r := extracted(t, images, gaps, false, func(j *pipeline.Job) { j.Solve.Workers = 1 })
	want := sums(r, r.Run)
	if len(want) != 2+2*3-2 { // a part of each head has no rows and no file
		t.Errorf("files %v", slices.Sorted(maps.Keys(want)))
	}
	for i, c := range []struct {
		name    string
		workers int
		shard   int64
	}{{"2 workers", 2, 1024}, {"7 workers", 7, 1024}, {"larger shards", 2, 2048}, {"one shard", 3, 8192}} {
		t.Run(c.name, func(t *testing.T) {
			r.Job.Solve.Workers, r.Job.Extract.ShardRows = c.workers, c.shard
			if got := sums(r, r.Open(t, fmt.Sprintf("variant-%d", i))); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// TestKilledSolveResumes: a solve that is stopped after any pass goes on from
// its last state, and commits the potentials of an undisturbed one.
func TestKilledSolveResumes(t *testing.T) {
	slow := func(j *pipeline.Job) { j.Solve.Tolerance, j.Solve.Lambda = 1e-9, 20 }
	r := extracted(t, 1500, nil, false, slow)
	if err := do(t, r, r.Run); err != nil {
		t.Fatal(err)
	}
	want := potentials(t, r.Run)

	killed := r.Open(t, "killed")
	r.Through(t, killed, extract.Name)
	last := map[string]int64{} // pass, by task
	for kills, after := 0, int64(3); ; kills, after = kills+1, after+9 {
		ctx, cancel := context.WithCancel(context.Background())
		begun := map[string]bool{}
		run, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: "killed",
			Observer: pipeline.ObserverFunc(func(e pipeline.Event) {
				if e.Kind != pipeline.PassDone {
					return
				}
				pass, before := e.Attrs[0].Value.Int64(), last[e.Task]
				// The state after the pass that was the last may not have been saved.
				if !begun[e.Task] && pass != before && pass != before+1 {
					t.Errorf("%s was stopped after pass %d and went on with pass %d", e.Task, before, pass)
				}
				begun[e.Task], last[e.Task] = true, pass
				if pass >= after {
					cancel()
				}
			})})
		if err != nil {
			t.Fatal(err)
		}
		_, err = runtest.Runner().Run(ctx, run, &solve.Stage{SaveEvery: time.Nanosecond})
		cancel()
		if err == nil {
			if kills < 2 {
				t.Errorf("only %d kills before the end", kills)
			}
			break
		}
		if !errors.Is(err, context.Canceled) || kills > 100 {
			t.Fatalf("kill %d: %v", kills, err)
		}
	}
	if got := potentials(t, killed); !slices.Equal(got, want) {
		t.Errorf("potentials %v, want %v", got, want)
	}
}

// TestUnusableCheckpoint says what to remove.
func TestUnusableCheckpoint(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, 200, nil, false, nil)
	key := r.Path("checkpoints/head-0.json")
	if err := r.Run.Work.Put(ctx, key, []byte(`{"format": "something else"}`)); err != nil {
		t.Fatal(err)
	}
	fails(t, do(t, r, r.Run), pipeline.Config, "checkpoint", "head-0")
	if err := r.Run.Work.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := do(t, r, r.Run); err != nil {
		t.Error(err)
	}
}

// TestIterationCap: no potentials come of a solve that did not converge.
func TestIterationCap(t *testing.T) {
	r := extracted(t, 300, nil, false, func(j *pipeline.Job) { j.Solve.Tolerance, j.Solve.MaxIterations = 1e-12, 4 })
	fails(t, do(t, r, r.Run), pipeline.Config, "head 0", "not converged", "after 4 passes", "raise solve.max_iterations", "solve.tolerance")
	done, err := r.Committed(context.Background(), solve.Name)
	if err != nil || len(done) > 0 || len(runtest.Objects(t, r.Run.Work, r.Path("potentials/"))) > 0 {
		t.Errorf("committed %v, %v", done, err)
	}
	r.Job.Solve.MaxIterations = pipeline.DefaultJob().Solve.MaxIterations
	if err := do(t, r, r.Open(t, "run-1")); err != nil {
		t.Errorf("with a higher cap: %v", err)
	}
}

// TestTooFewImages for the clusters.
func TestTooFewImages(t *testing.T) {
	r := extracted(t, 5, func(i int) bool { return i == 2 }, false, nil)
	fails(t, do(t, r, r.Run), pipeline.Data, "head-1", "fewer rows than clusters", "at least one image per cluster", "1 rejected")
}

// TestUnassignableRow names the image whose log-probabilities are unusable.
// Extract never writes such a row: this is a shard of a program with a defect.
func TestUnassignableRow(t *testing.T) {
	r := extracted(t, 1100, nil, false, nil)
	o := shardOf(t, r.Run, 1, 1)
	local, release, err := r.Run.Fetch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b, err := schemas.OpenBlocks(local)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	numbers, values := make([]int64, o.Rows), make([]float32, int(o.Rows)*clusters[1])
	if _, err := b.ReadRows(0, 1<<40, numbers, values); err != nil {
		t.Fatal(err)
	}
	values[30*clusters[1]+2] = float32(math.NaN())
	path := filepath.Join(t.TempDir(), "bad.parquet")
	w, err := schemas.CreateBlocks(path, b.Meta())
	if err != nil {
		t.Fatal(err)
	}
	batch := schemas.NewBatch(numbers, values, nil, clusters[1], nil)
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
	replace(t, r.Run, o, raw, stats)
	bad := listed(t, r.Run)[numbers[30]]
	fails(t, do(t, r, r.Run), pipeline.Data, bad.Key, bad.Member, fmt.Sprintf("row %d", bad.Row), "cluster 2 is NaN")
}

// TestFixedPotentials labels with a published run's potentials, and refuses
// those that do not belong to the model.
func TestFixedPotentials(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, 1200, nil, false, func(j *pipeline.Job) { j.Label.MaxCountRatio = 100 })
	r.Through(t, r.Run, label.Name)
	for _, stage := range []pipeline.Stage{&publish.Stage{Labels: r.Labels}, &train.Stage{Labels: r.Labels, Trigger: train.None{}}} {
		if _, err := runtest.Runner().Run(ctx, r.Run, stage); err != nil {
			t.Fatal(err)
		}
	}
	r.Job.Solve.Method, r.Job.Solve.From, r.Job.Images.Limit = "fixed", "run-1", 700
	fixed := r.Open(t, "fixed")
	r.Through(t, fixed, label.Name)
	solutions, err := solve.Solutions(ctx, fixed, shards(t, fixed))
	if err != nil {
		t.Fatal(err)
	}
	for h, s := range solutions {
		if s.Certificate.Status != sinkhorn.Evaluated || s.Certificate.Passes != 1 || s.Certificate.Rows != 700 {
			t.Errorf("head %d: %+v", h, s.Certificate)
		}
		if got, want := readPotentials(t, fixed, h), readPotentials(t, r.Run, h); !slices.Equal(got, want) {
			t.Errorf("head %d: potentials %v, want %v", h, got, want)
		}
	}
	again := func(id string) error {
		run := r.Open(t, id)
		r.Through(t, run, extract.Name)
		return do(t, r, run)
	}
	r.Job.Solve.From = "run-0"
	fails(t, again("of-nothing"), pipeline.Config, "solve.from", "run run-0 is not published", "labels")
	r.Job.Solve.From, r.Job.Solve.Lambda = "run-1", 2*r.Job.Solve.Lambda
	fails(t, again("of-another-lambda"), pipeline.Config, "solve.from", "solve.lambda")
	r.Job.Solve.Lambda /= 2
	r.Provenance.Model = strings.Repeat("2", 64)
	fails(t, again("of-another-model"), pipeline.Config, "solve.from", "another model or preprocessing")
	other := extracted(t, 100, nil, false, func(j *pipeline.Job) {
		j.Solve, j.Model.Outputs = r.Job.Solve, []string{"head_1", "head_0"}
	})
	other.Labels = r.Labels
	fails(t, do(t, other, other.Run), pipeline.Config, "has 3 clusters in head 0, this model 7")
	three := extracted(t, 100, nil, false, func(j *pipeline.Job) { j.Solve, j.Model.Outputs = r.Job.Solve, []string{"head_0"} })
	three.Labels, three.Provenance.Model = damaged(t, r.Labels), r.Provenance.Model
	fails(t, do(t, three, three.Run), pipeline.Data, "solve.from", "head-0")
}

func readPotentials(t testing.TB, run *pipeline.Run, head int) []float64 {
	t.Helper()
	solutions, err := solve.Solutions(context.Background(), run, shards(t, run))
	if err != nil {
		t.Fatal(err)
	}
	local, release, err := run.Fetch(context.Background(), solutions[head].Potentials)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	v, _, err := schemas.ReadPotentials(local)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// damaged is a copy of a bucket with a bit flipped in each table of potentials.
func damaged(t testing.TB, from *bucket.Bucket) *bucket.Bucket {
	t.Helper()
	to := runtest.Bucket(t, "file://"+t.TempDir())
	for key, data := range runtest.Objects(t, from, "") {
		raw := []byte(data)
		if strings.Contains(key, "/potentials/") {
			raw[len(raw)/2] ^= 1
		}
		if err := to.Put(context.Background(), key, raw); err != nil {
			t.Fatal(err)
		}
	}
	return to
}
