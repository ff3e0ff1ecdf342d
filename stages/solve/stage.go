// Package solve finds, for each head, the potentials that give every cluster
// its share of the images. The mathematics is package sinkhorn's; this stage
// brings it the log-probabilities, keeps its checkpoints and writes what it
// finds.
package solve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
)

// Name is the stage's name.
const Name = "solve"

// Stage solves one head per task. A solve uses all cores, so its tasks run one
// at a time.
type Stage struct {
	// Labels is where the run named by solve.from was published.
	Labels *bucket.Bucket
	// SaveEvery is how often a solve keeps its state: 0 is every two seconds,
	// which spares a store a request for each of hundreds of short passes.
	SaveEvery time.Duration

	shards *extract.Shards
}

// Result is what a solve commit records.
type Result struct {
	Head        int                  `json:"head"`
	Certificate sinkhorn.Certificate `json:"certificate"`
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage].
func (s *Stage) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	shards, err := extract.OpenShards(ctx, run)
	if err != nil {
		return nil, err
	}
	s.shards = shards
	return tasks(shards)
}

func tasks(shards *extract.Shards) ([]pipeline.Task, error) {
	all := make([]pipeline.Task, len(shards.Heads))
	for h := range all {
		files, err := shards.LogProbs(h)
		if err != nil {
			return nil, err
		}
		all[h] = pipeline.Task{ID: fmt.Sprintf("head-%d", h), Index: h, Inputs: digest(files), Rows: shards.Usable(),
			Scratch: 1<<20 + 16*int64(shards.Heads[h].Clusters)}
	}
	return all, nil
}

func digest(files []pipeline.Output) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %s\n", f.Name, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// PotentialsName is the logical name of a head's potentials.
func PotentialsName(head int) string { return fmt.Sprintf("potentials/head-%d.parquet", head) }

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	head, spec := t.Index, a.Run.Job.Solve
	source, err := OpenSource(a.Run, s.shards, head, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	workers := spec.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	options := sinkhorn.Options{
		Method: sinkhorn.Method(spec.Method), Lambda: spec.Lambda, Tol: spec.Tolerance, MaxIterations: spec.MaxIterations,
		Recorder:   &recorder{attempt: a},
		Checkpoint: &checkpoint{run: a.Run, key: a.Run.Path("checkpoints/" + t.ID + ".json"), every: cmp.Or(s.SaveEvery, 2*time.Second)},
	}
	if options.Method == sinkhorn.MethodFixed {
		if options.Potentials, err = s.fixedPotentials(ctx, a, head); err != nil {
			return err
		}
	}
	result, err := sinkhorn.Solve(ctx, sinkhorn.NewCPU(source, workers), options)
	if err != nil {
		return s.explain(ctx, err)
	}
	if err := result.Status.Err(); err != nil {
		c := result.Certificate
		return pipeline.BadConfig(fmt.Errorf("head %d: %w after %d iterations (marginal error %.3g): raise solve.max_iterations and run the same command again, which goes on from there, or take a larger solve.tolerance in a new run; no labels are made from it", head, err, result.Iterations, c.MarginalL1))
	}
	certificate, err := json.Marshal(result.Certificate)
	if err != nil {
		return err
	}
	path := filepath.Join(a.Dir, "potentials.parquet")
	stats, err := schemas.WritePotentials(path, result.V, map[string]string{
		"certificate": string(certificate), "head": fmt.Sprint(head), "model": a.Run.Provenance.Model,
		"preprocessing": a.Run.Provenance.Preprocessing, "listing": s.shards.Listing.Digest,
	})
	if err != nil {
		return err
	}
	if err := a.Upload(ctx, path, PotentialsName(head), stats); err != nil {
		return err
	}
	for _, w := range result.Certificate.Warnings {
		a.Run.Notice(Name, "warning about the labels", "head", head, "warning", w)
	}
	a.Progress(t.Rows)
	a.Count("passes", int64(result.Passes))
	return a.Result(Result{Head: head, Certificate: result.Certificate})
}

// explain gives an error of the solver its class and its image.
func (s *Stage) explain(ctx context.Context, err error) error {
	var row *sinkhorn.RowError
	switch {
	case errors.As(err, &row):
		key := "unknown image"
		_ = s.shards.Listing.Read(ctx, row.Row, row.Row+1, func(img schemas.Image) error {
			key = img.Key + " " + img.Member
			return nil
		}) // the row number alone must do if the listing cannot be read
		return pipeline.BadData(fmt.Errorf("%s: %w", key, err))
	case errors.As(err, new(*sinkhorn.ColumnError)), errors.Is(err, sinkhorn.ErrNoRows), errors.Is(err, sinkhorn.ErrSource):
		return pipeline.BadData(err)
	case errors.Is(err, sinkhorn.ErrTooFewRows):
		return pipeline.BadData(fmt.Errorf("%w (%d images, %d rejected): a balanced labelling needs at least one image per cluster", err, s.shards.Usable(), s.shards.Rejected))
	case errors.Is(err, sinkhorn.ErrOptions), errors.Is(err, sinkhorn.ErrState):
		return pipeline.BadConfig(err)
	}
	return err
}

// fixedPotentials reads a head's potentials of the published run solve.from.
func (s *Stage) fixedPotentials(ctx context.Context, a *pipeline.Attempt, head int) ([]float64, error) {
	from := a.Run.Job.Solve.From
	raw, err := s.Labels.Get(ctx, "runs/"+from+"/_manifest.json")
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: run %s is not published in %s: %w", from, s.Labels.URL(), err))
	}
	manifest, err := pipeline.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("solve.from: %w", err)
	}
	file, ok := manifest.File(PotentialsName(head))
	if !ok {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: run %s has no potentials for head %d", from, head))
	}
	local, release, err := a.Run.FetchFrom(ctx, s.Labels, "runs/"+from+"/"+file.Path, file)
	if err != nil {
		return nil, fmt.Errorf("solve.from: %w", err)
	}
	defer release()
	v, meta, err := schemas.ReadPotentials(local)
	if err != nil {
		return nil, pipeline.BadData(fmt.Errorf("solve.from: %w", err))
	}
	if k := s.shards.Heads[head].Clusters; len(v) != k {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: run %s has %d clusters in head %d, this model %d", from, len(v), head, k))
	}
	p := a.Run.Provenance
	if meta["model"] != p.Model || meta["preprocessing"] != p.Preprocessing {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: the potentials of run %s belong to another model or preprocessing", from))
	}
	var certificate sinkhorn.Certificate
	if err := json.Unmarshal([]byte(meta["certificate"]), &certificate); err != nil {
		return nil, pipeline.BadData(fmt.Errorf("solve.from: potentials of run %s: certificate is damaged: %w", from, err))
	}
	if lambda := a.Run.Job.Solve.Lambda; certificate.Lambda != lambda {
		return nil, pipeline.BadConfig(fmt.Errorf("solve.from: the potentials of run %s were solved with λ = %g, solve.lambda is %g: set it to %g", from, certificate.Lambda, lambda, certificate.Lambda))
	}
	return v, nil
}

// recorder turns the solver's progress into events.
type recorder struct{ attempt *pipeline.Attempt }

func (r *recorder) Record(p sinkhorn.Progress) {
	e := pipeline.Event{Kind: pipeline.PassDone, Stage: Name, Task: r.attempt.Task.ID, Rows: p.Rows,
		Attrs: []slog.Attr{slog.Int("passes", p.Passes), slog.Float64("marginal_l1", p.MarginalL1)}}
	if p.Checked {
		e.Attrs = append(e.Attrs, slog.Float64("change", p.Change))
	}
	r.attempt.Run.Observe(e)
}

// checkpoint keeps the solver's state beside the potentials-to-be. States
// between two saves may be lost: the solver then repeats those passes, to the
// same bits.
type checkpoint struct {
	run   *pipeline.Run
	key   string
	every time.Duration
	saved time.Time
}

// Load implements [sinkhorn.Checkpoint].
func (c *checkpoint) Load(ctx context.Context) (sinkhorn.State, error) {
	c.saved = time.Now()
	raw, err := c.run.Work.Get(ctx, c.key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, nil
	}
	return raw, err
}

// Save implements [sinkhorn.Checkpoint].
func (c *checkpoint) Save(ctx context.Context, s sinkhorn.State) error {
	if time.Since(c.saved) < c.every {
		return nil
	}
	c.saved = time.Now()
	return c.run.Work.Put(ctx, c.key, s)
}

// Solution is the committed outcome of a head.
type Solution struct {
	Result
	Potentials pipeline.Output
}

// Solutions reads the commits of a complete solve stage, in order of heads.
func Solutions(ctx context.Context, run *pipeline.Run, shards *extract.Shards) ([]Solution, error) {
	all, err := tasks(shards)
	if err != nil {
		return nil, err
	}
	commits, err := run.Commits(ctx, Name, all)
	if err != nil {
		return nil, err
	}
	out := make([]Solution, len(commits))
	for h, c := range commits {
		if err := json.Unmarshal(c.Result, &out[h].Result); err != nil || len(c.Outputs) != 1 {
			return nil, pipeline.BadData(fmt.Errorf("commit of solve task %s is damaged", c.Task))
		}
		out[h].Potentials = c.Outputs[0]
	}
	return out, nil
}
