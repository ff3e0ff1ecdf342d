// Package solve finds, for each head, the potentials that give every cluster
// its share of the images. The mathematics is package sinkhorn's; this stage
// brings it the log-probabilities, keeps its checkpoints and writes what it
// finds. To compare with, it makes labels by other methods, too: those of k-means
// on the features that the heads read, whitened first for DeepCluster (package
// clusters), random ones and the truth. These have no potentials: what is written
// are the labels themselves and a [Labelling].
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
	"sync"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/internal/ort"
	"sela/stages/label/published"
	"sela/stages/solve/clusters"
)

// Name is the stage's name.
const Name = "solve"

// Stage solves one head per task. A solve uses all cores, so its tasks run one
// at a time.
type Stage struct {
	// Labels is where the runs named by solve.from and solve.start were
	// published.
	Labels *bucket.Bucket
	// Runtime returns ONNX Runtime for solve.device: cuda and for methods that
	// cluster features.
	Runtime func() (*ort.Runtime, error)
	// SaveEvery is how often a solve keeps its state: 0 is every two seconds,
	// which spares a store a request for each of hundreds of short passes.
	SaveEvery time.Duration

	shards   *extract.Shards
	previous *published.Run // whose clusters those of features are matched with

	whitenOnce sync.Mutex
	whitening  *clusters.Whitening // of deepcluster, nil until a head needs it
}

// Result is what a solve commit records: a certificate, or a labelling where
// labels are not those of a transport.
type Result struct {
	Head        int                  `json:"head"`
	Certificate sinkhorn.Certificate `json:"certificate,omitzero"`
	Labelling   *Labelling           `json:"labelling,omitempty"`
	Stored      *Stored              `json:"stored,omitempty"`
	// Trace has the passes of the solve, thinned if they are many; nil of a
	// labelling.
	Trace []Pass `json:"trace,omitempty"`
}

// Stored says what the compact form of the log-probabilities changes: of so
// many sampled rows, so many have another label than in float32.
type Stored struct {
	Form  string `json:"form"`
	Flips int64  `json:"label_flips"`
	Rows  int64  `json:"rows"`
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
	if run.Parent != "" && run.Job.Solve.Clusters() {
		if s.previous, err = published.Open(ctx, s.Labels, run.Parent); err != nil {
			return nil, fmt.Errorf("label.previous: %w", err)
		}
	}
	return tasks(run.Job, shards)
}

func tasks(job *pipeline.Job, shards *extract.Shards) ([]pipeline.Task, error) {
	all := make([]pipeline.Task, len(shards.Heads))
	for h := range all {
		files, err := shards.LogProbs(h)
		if err != nil {
			return nil, err
		}
		if job.Solve.Clusters() && shards.FeatureDim > 0 {
			features, err := shards.Features()
			if err != nil {
				return nil, err
			}
			files = append(files, features...)
		}
		all[h] = pipeline.Task{ID: fmt.Sprintf("head-%d", h), Index: h, Inputs: digest(files), Rows: shards.Usable(),
			Scratch: 1<<20 + 16*int64(shards.Heads[h].Clusters) + assignmentBytes(job, shards.Usable()) + spillBytes(job, shards.Usable(), shards.Heads[h].Clusters)}
	}
	return all, nil
}

// assignmentBytes bounds a file of labels without potentials.
func assignmentBytes(job *pipeline.Job, rows int64) int64 {
	if job.Solve.Transports() {
		return 0
	}
	return 16 * min(rows, job.Label.PartRows)
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
	if a.Run.Job.Solve.Transports() {
		return s.transport(ctx, t, a)
	}
	return s.assign(ctx, t, a)
}

// transport solves a head for its potentials.
func (s *Stage) transport(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	head := t.Index
	v, err := s.open(ctx, t, a)
	if err != nil {
		return err
	}
	defer v.Close()
	result, err := sinkhorn.Solve(ctx, v.evaluator, v.options)
	if err != nil {
		return s.explain(ctx, err)
	}
	if err := result.Status.Err(); err != nil {
		c := result.Certificate
		return pipeline.BadConfig(fmt.Errorf("head %d: %w after %d passes (marginal error %.3g): raise solve.max_iterations and run the same command again, which goes on from there, or take a larger solve.tolerance in a new run; no labels are made from it", head, err, result.Passes, c.MarginalL1))
	}
	if a.Run.Job.Solve.Balance == "exact" {
		if err := v.balance(ctx, a, head, result); err != nil {
			return s.explain(ctx, err)
		}
	}
	outcome := Result{Head: head, Certificate: result.Certificate, Trace: v.trace.upTo(&result.Certificate)}
	if outcome.Stored, err = v.stored(ctx, a.Run.Job, result.V); err != nil {
		return err
	}
	if err := s.write(ctx, a, &outcome, result.V); err != nil {
		return err
	}
	for _, w := range result.Certificate.Warnings {
		a.Run.Notice(Name, "warning about the labels", "head", head, "warning", w)
	}
	a.Progress(t.Rows)
	a.Count("passes", int64(result.Passes))
	return a.Result(outcome)
}

// write uploads a head's potentials with their certificate.
func (s *Stage) write(ctx context.Context, a *pipeline.Attempt, r *Result, v []float64) error {
	meta := map[string]string{
		"head": fmt.Sprint(r.Head), "model": a.Run.Provenance.Model,
		"preprocessing": a.Run.Provenance.Preprocessing, "listing": s.shards.Listing.Digest,
	}
	texts := map[string]any{metaCertificate: r.Certificate}
	if r.Labelling != nil {
		texts = map[string]any{metaLabelling: r.Labelling}
	}
	if r.Stored != nil {
		texts["stored"] = r.Stored
	}
	for key, value := range texts {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		meta[key] = string(text)
	}
	path := filepath.Join(a.Dir, "potentials.parquet")
	stats, err := schemas.WritePotentials(path, v, meta)
	if err != nil {
		return err
	}
	return a.Upload(ctx, path, PotentialsName(r.Head), stats)
}

// explain gives an error of the solver its class and its image.
func (s *Stage) explain(ctx context.Context, err error) error {
	var row *sinkhorn.RowError
	var features *clusters.RowError
	switch {
	case errors.As(err, &row):
		return s.ofImage(ctx, row.Row, err)
	case errors.As(err, &features):
		return s.ofImage(ctx, features.Row, err)
	case errors.Is(err, clusters.ErrTooFewRows):
		return s.tooFew(err)
	case errors.Is(err, clusters.ErrMemory):
		return pipeline.BadConfig(fmt.Errorf("%w: raise solve.memory", err))
	case errors.Is(err, clusters.ErrNoVariance):
		return pipeline.BadData(fmt.Errorf("%w: deepcluster has nothing to whiten", err))
	case errors.As(err, new(*sinkhorn.ColumnError)), errors.Is(err, sinkhorn.ErrNoRows), errors.Is(err, sinkhorn.ErrSource):
		return pipeline.BadData(err)
	case errors.Is(err, sinkhorn.ErrTooFewRows):
		return pipeline.BadData(fmt.Errorf("%w (%d images, %d rejected): a balanced labelling needs at least one image per cluster", err, s.shards.Usable(), s.shards.Rejected))
	case errors.Is(err, sinkhorn.ErrListsFull):
		return pipeline.BadConfig(fmt.Errorf("%w: raise local.bytes or solve.memory", err))
	case errors.As(err, new(*sinkhorn.UnplacedError)):
		return pipeline.BadData(fmt.Errorf("%w: too many images are alike for solve.balance: exact; take balance: none or fewer clusters in a new run", err))
	case errors.Is(err, sinkhorn.ErrOptions), errors.Is(err, sinkhorn.ErrState):
		return pipeline.BadConfig(err)
	}
	return err
}

// ofImage names the image of a row that is unusable.
func (s *Stage) ofImage(ctx context.Context, number int64, err error) error {
	key := "unknown image"
	_ = s.shards.Listing.Read(ctx, number, number+1, func(img schemas.Image) error {
		key = img.Key + " " + img.Member
		return nil
	}) // the row number alone must do if the listing cannot be read
	return pipeline.BadData(fmt.Errorf("%s: %w", key, err))
}

// recorder turns the solver's progress into events.
type recorder struct {
	attempt *pipeline.Attempt
	trace   *trace
}

func (r *recorder) Record(p sinkhorn.Progress) {
	r.trace.add(p)
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

func (s *Stage) checkpoint(t pipeline.Task, a *pipeline.Attempt) checkpoint {
	return checkpoint{run: a.Run, key: a.Run.Path("checkpoints/" + t.ID + ".json"), every: cmp.Or(s.SaveEvery, 2*time.Second)}
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
	// Assignments are the labels by label part, where they are not what the
	// potentials alone say; nil where they are.
	Assignments map[int]pipeline.Output
}

// Solutions reads the commits of a complete solve stage, in order of heads.
func Solutions(ctx context.Context, run *pipeline.Run, shards *extract.Shards) ([]Solution, error) {
	all, err := tasks(run.Job, shards)
	if err != nil {
		return nil, err
	}
	commits, err := run.Commits(ctx, Name, all)
	if err != nil {
		return nil, err
	}
	out := make([]Solution, len(commits))
	for h, c := range commits {
		damaged := json.Unmarshal(c.Result, &out[h].Result) != nil
		for _, o := range c.Outputs {
			part := 0
			if o.Name == PotentialsName(h) {
				out[h].Potentials = o
			} else if _, err := fmt.Sscanf(o.Name, assignmentsFormat, new(int), &part); err == nil && o.Name == AssignmentsName(h, part) {
				if out[h].Assignments == nil {
					out[h].Assignments = map[int]pipeline.Output{}
				}
				out[h].Assignments[part] = o
			} else {
				damaged = true
			}
		}
		if damaged || out[h].Potentials.Name == "" {
			return nil, pipeline.BadData(fmt.Errorf("commit of solve task %s is damaged", c.Task))
		}
	}
	return out, nil
}
