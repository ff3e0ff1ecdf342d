package label_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/solve"
)

const lambda = 7

// synthetic describes a run whose images are names and whose log-probabilities
// and potentials are drawn at random: everything that the label stage reads, in
// any shape, without a model. The draws depend on head and row alone.
type synthetic struct {
	images   int64
	clusters []int
	usable   func(head int, row int64) bool // nil: all
	key      func(row int64) (key, member string)
	job      func(*pipeline.Job)
	work     *bucket.Bucket // nil: in memory, which waits for no disk
	labels   *bucket.Bucket
	id       string // "run-1" if empty
	parent   string
}

func (s *synthetic) isUsable(head int, row int64) bool { return s.usable == nil || s.usable(head, row) }

func (s *synthetic) name(row int64) (key, member string) {
	if s.key != nil {
		return s.key(row)
	}
	return fmt.Sprintf("train/n%08d/n%08d_%d.JPEG", row/1300, row/1300, 1_000_000+row), ""
}

func (s *synthetic) sum(row int64) [32]byte {
	key, member := s.name(row)
	return sha256.Sum256([]byte(key + "\x00" + member))
}

// logProbs draws a row: some clusters have probability 0.
func (s *synthetic) logProbs(dst []float32, head int, row int64) {
	r := rand.New(rand.NewPCG(uint64(head), uint64(row)))
	sum := 0.0
	for k := range dst {
		z := r.NormFloat64()
		dst[k] = float32(z)
		sum += math.Exp(z)
	}
	for k := range dst {
		dst[k] -= float32(math.Log(sum))
		if k > 0 && r.IntN(64) == 0 {
			dst[k] = float32(math.Inf(-1))
		}
	}
}

func (s *synthetic) potentials(head int) []float64 {
	r, v := rand.New(rand.NewPCG(99, uint64(head))), make([]float64, s.clusters[head])
	for k := range v {
		v[k] = r.NormFloat64() * 2
	}
	return v
}

// open makes the run with everything up to solve committed.
func (s *synthetic) open(t testing.TB) *pipeline.Run {
	t.Helper()
	job := pipeline.DefaultJob()
	job.Extract.ShardRows, job.Label.PartRows = 1024, 2048
	job.Images.MaxRejected = 1
	job.Solve.Lambda = lambda
	job.Local = pipeline.Local{Dir: t.TempDir(), Bytes: 1 << 30}
	// A task that waits for itself fails.
	job.Timeouts.Task, job.Retries.Task = pipeline.Duration(time.Minute), 1
	if s.job != nil {
		s.job(job)
	}
	if s.work == nil {
		s.work = memory(t)
	}
	if s.id == "" {
		s.id = "run-1"
	}
	run := s.reopen(t, job)
	for _, stage := range []pipeline.Stage{&listing{synthetic: s}, &extraction{synthetic: s}, &solution{synthetic: s}} {
		if _, err := runner(1).Run(t.Context(), run, stage); err != nil {
			t.Fatal(err)
		}
	}
	return run
}

// reopen opens the run as another process does.
func (s *synthetic) reopen(t testing.TB, job *pipeline.Job) *pipeline.Run {
	t.Helper()
	run, err := pipeline.Open(t.Context(), s.work, pipeline.Options{Job: job, RunID: s.id, Parent: s.parent,
		Provenance: pipeline.Provenance{Model: "model digest", Library: "library digest", Preprocessing: "fingerprint", Code: "code", Processor: "processor"}})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func runner(parallel int) *pipeline.Runner {
	return &pipeline.Runner{Parallel: parallel, Pause: time.Millisecond}
}

func folder(t testing.TB) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "file://"+t.TempDir(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func memory(t testing.TB) *bucket.Bucket {
	t.Helper()
	b := bucket.New(memblob.OpenBucket(nil), "mem://bucket", bucket.Options{})
	t.Cleanup(func() { b.Close() })
	return b
}

// listing does what the stage list does, with names from nowhere.
type listing struct {
	list.Stage
	*synthetic
}

func (s *listing) Name() string { return list.Name }

func (s *listing) Do(ctx context.Context, _ pipeline.Task, a *pipeline.Attempt) error {
	path := filepath.Join(a.Dir, "images.parquet")
	w, err := schemas.CreateImages(path, schemas.ImagesMeta{})
	if err != nil {
		return err
	}
	for row := range s.images {
		key, member := s.name(row)
		if err := w.Write(schemas.Image{Row: row, Key: key, Member: member, Size: 1, ETag: "tag"}); err != nil {
			return err
		}
	}
	stats, err := w.Commit()
	if err != nil {
		return err
	}
	if err := a.Upload(ctx, path, list.PartName(0), stats); err != nil {
		return err
	}
	return a.Result(list.Result{Digest: "listing digest", Snapshot: "snapshot", Images: s.images})
}

// extraction does what the stage extract does, without images and model.
type extraction struct{ *synthetic }

func (s *extraction) Name() string { return extract.Name }

func (s *extraction) Plan(_ context.Context, run *pipeline.Run) (tasks []pipeline.Task, err error) {
	for i := range int((s.images + run.Job.Extract.ShardRows - 1) / run.Job.Extract.ShardRows) {
		tasks = append(tasks, pipeline.Task{ID: fmt.Sprintf("%05d", i), Index: i, Inputs: "snapshot"})
	}
	return tasks, nil
}

func (s *extraction) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	shard := a.Run.Job.Extract.ShardRows
	from := int64(t.Index) * shard
	to := min(from+shard, s.images)
	result := extract.Result{}
	var rejected int64
	for h, k := range s.clusters {
		result.Heads = append(result.Heads, extract.Head{Name: fmt.Sprintf("output-%d", h), Clusters: k})
		var rows []int64
		var sums [][32]byte
		var values []float32
		for row := from; row < to; row++ {
			if s.isUsable(h, row) {
				rows, sums = append(rows, row), append(sums, s.sum(row))
				values = append(values, make([]float32, k)...)
				s.logProbs(values[len(values)-k:], h, row)
			}
		}
		rejected = to - from - int64(len(rows))
		if h > 0 {
			sums = nil
		}
		path := filepath.Join(a.Dir, "blocks.parquet")
		w, err := schemas.CreateBlocks(path, schemas.BlocksMeta{Kind: schemas.KindLogprobs, Head: h, Width: k, WithSHA256: h == 0, BlockRows: 700})
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			b := schemas.NewBatch(rows, values, sums, k, nil)
			err = w.Write(b)
			b.Release()
		}
		if err != nil {
			return err
		}
		stats, err := w.Commit()
		if err != nil {
			return err
		}
		if err := a.Upload(ctx, path, fmt.Sprintf("logprobs/head-%d/part-%s.parquet", h, t.ID), stats); err != nil {
			return err
		}
	}
	a.Count("rejected", rejected)
	return a.Result(result)
}

// solution does what the stage solve does, without solving.
type solution struct {
	solve.Stage
	*synthetic
}

func (s *solution) Name() string { return solve.Name }

func (s *solution) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	path := filepath.Join(a.Dir, "potentials.parquet")
	stats, err := schemas.WritePotentials(path, s.potentials(t.Index), nil)
	if err != nil {
		return err
	}
	if err := a.Upload(ctx, path, solve.PotentialsName(t.Index), stats); err != nil {
		return err
	}
	return a.Result(solve.Result{Head: t.Index, Certificate: sinkhorn.Certificate{Lambda: a.Run.Job.Solve.Lambda, Tol: 1e-6, MarginalL1: 0.125, MaxCountRatio: 1}})
}

// label performs the stage and returns its files.
func (s *synthetic) label(t testing.TB, run *pipeline.Run, parallel int) []pipeline.Output {
	t.Helper()
	if _, err := runner(parallel).Run(t.Context(), run, &label.Stage{Labels: s.labels}); err != nil {
		t.Fatal(err)
	}
	return labelFiles(t, run)
}

// labelFiles returns the files of a run's label stage, by head and part.
func labelFiles(t testing.TB, run *pipeline.Run) []pipeline.Output {
	t.Helper()
	shards, err := extract.OpenShards(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	solutions, err := solve.Solutions(t.Context(), run, shards)
	if err != nil {
		t.Fatal(err)
	}
	files, err := label.Files(t.Context(), run, shards, solutions)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// rows returns the rows of all parts of a head, in their order.
func rows(t testing.TB, run *pipeline.Run, files []pipeline.Output, head int) (all []schemas.Label) {
	t.Helper()
	for _, f := range files {
		if !strings.HasPrefix(f.Name, fmt.Sprintf("labels/head=%d/", head)) {
			continue
		}
		local, release, err := run.Fetch(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		err = schemas.ReadLabels(local, func(l *schemas.Label) error {
			row := *l
			prob := *l.Prob
			row.Prob = &prob
			if l.PrevLabel != nil {
				prev := *l.PrevLabel
				row.PrevLabel = &prev
			}
			row.TopK = slices.Clone(l.TopK)
			all = append(all, row)
			return nil
		})
		release()
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// want is the label of a row by its definition; ok tells whether the image is
// usable.
func (s *synthetic) want(head int, row int64, topK int) (l schemas.Label, ok bool) {
	if !s.isUsable(head, row) {
		return l, false
	}
	x, v := make([]float32, s.clusters[head]), s.potentials(head)
	s.logProbs(x, head, row)
	chosen, prob := sinkhorn.Assign(x, lambda, v)
	model := 0
	for k := range x {
		if x[k] > x[model] {
			model = k
		}
	}
	p, sum := float32(prob), s.sum(row)
	l = schemas.Label{Row: row, SHA256: hex.EncodeToString(sum[:]), Label: chosen, Prob: &p, ModelLabel: int32(model), ModelProb: float32(math.Exp(float64(x[model])))}
	l.Key, l.Member = s.name(row)
	candidates := make([]sinkhorn.Candidate, min(topK, len(v)))
	for _, c := range candidates[:sinkhorn.TopK(candidates, x, lambda, v)] {
		l.TopK = append(l.TopK, schemas.TopK{Label: c.Label, Prob: float32(c.Prob)})
	}
	return l, true
}
