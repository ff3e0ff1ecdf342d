package extract

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/ort"
	"sela/stages/internal/quarantine"
	"sela/stages/list"
)

// Name is the stage's name.
const Name = "extract"

// Stage turns images into log-probability shards: one task per shard of the
// listing. Its tasks run one at a time, since each uses all cores.
type Stage struct {
	Images *bucket.Bucket
	// Open returns the classifier; it is called when the first task needs one.
	Open func(ctx context.Context) (*Classifier, error)

	mu         sync.Mutex
	classifier *Classifier
	slots      []*ort.Slot
	preflight  *Preflight
	rejected   atomic.Int64 // by this process
	listing    *list.Listing
}

// Result is what an extract commit records.
type Result struct {
	Heads       []Head           `json:"heads"`
	FeatureDim  int              `json:"feature_dim,omitempty"`
	Determinism *ort.Determinism `json:"determinism,omitempty"` // measured on the process's first batch
	Timing      *Timing          `json:"timing"`
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage].
func (s *Stage) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	listing, err := list.Open(ctx, run)
	if err != nil {
		return nil, err
	}
	s.listing = listing
	return tasks(run.Job, listing), nil
}

func tasks(job *pipeline.Job, l *list.Listing) []pipeline.Task {
	n := (l.Images + job.Extract.ShardRows - 1) / job.Extract.ShardRows
	all := make([]pipeline.Task, n)
	for i := range all {
		from, to := shardRange(job, l, i)
		all[i] = pipeline.Task{ID: fmt.Sprintf("%05d", i), Index: i, Inputs: l.Digest, Rows: to - from, Scratch: scratchBytes(job, to-from)}
	}
	return all
}

func shardRange(job *pipeline.Job, l *list.Listing, i int) (from, to int64) {
	from = int64(i) * job.Extract.ShardRows
	return from, min(from+job.Extract.ShardRows, l.Images)
}

// scratchBytes bounds the local files of a task, where the job states the size
// of its heads; a job that leaves it to the model is bounded by `sela plan`.
func scratchBytes(job *pipeline.Job, rows int64) int64 {
	values := int64(job.Model.Heads) * int64(job.Model.Clusters) * 4
	return rows*(values+values/4+128) + 1<<20
}

// Preflight opens the classifier and runs the first batch, from the first
// images of the listing-to-be. See [Classifier.Preflight].
func (s *Stage) Preflight(ctx context.Context, candidates []schemas.Image) (*Preflight, error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	p, err := c.Preflight(ctx, s.Images, candidates)
	s.preflight = p
	return p, err
}

// Classifier returns the open classifier, or nil.
func (s *Stage) Classifier() *Classifier {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.classifier
}

func (s *Stage) open(ctx context.Context) (*Classifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.classifier != nil {
		return s.classifier, nil
	}
	c, err := s.Open(ctx)
	if err == nil {
		s.classifier = c
	}
	return c, err
}

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	from, to := shardRange(a.Run.Job, s.listing, t.Index)
	images := make([]schemas.Image, 0, to-from)
	if err := s.listing.Read(ctx, from, to, func(img schemas.Image) error {
		images = append(images, img)
		return nil
	}); err != nil {
		return err
	}
	slots, err := s.takeSlots(ctx, c, a.Run.Job)
	if err != nil {
		return err
	}
	out, err := createOutput(a, c, s.listing.Images, metadata(a.Run, s.listing))
	if err != nil {
		_ = out.abort() // err says more
		return err
	}
	timing := &Timing{}
	if err := newFlow(c, slots, s.Images, out, a.Run.Job, timing).run(ctx, images); err != nil {
		_ = out.abort() // err says more
		return err
	}
	if err := s.checkRejects(a, out.quarantine.Rows()); err != nil {
		_ = out.abort() // err says more
		return err
	}
	if err := out.finish(ctx); err != nil {
		_ = out.abort() // err says more
		return err
	}
	a.Count("images", t.Rows)
	a.Count("rejected", out.quarantine.Rows())
	result := Result{Heads: c.Heads, FeatureDim: c.FeatureDim, Timing: timing}
	if s.preflight != nil {
		result.Determinism = &s.preflight.Probe
	}
	return a.Result(result)
}

// checkRejects stops the stage once this process alone has rejected more images
// than the job allows; the solve stage counts those of all processes.
func (s *Stage) checkRejects(a *pipeline.Attempt, rows int64) error {
	l := s.listing
	all := s.rejected.Add(rows)
	err := quarantine.Check(l.Rejected+all, l.Images+l.Rejected, a.Run.Job.Images.MaxRejected)
	if err != nil {
		s.rejected.Add(-rows)
	}
	return err
}

// takeSlots returns the stage's slots, making them for the first task: enough
// that decoding, inference and writing each have one in hand.
func (s *Stage) takeSlots(ctx context.Context, c *Classifier, job *pipeline.Job) (*slotPool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for want := 2*orCores(job.Runtime.Threads) + 2; len(s.slots) < want; {
		slot, err := c.NewSlot(ctx)
		if err != nil {
			return nil, err
		}
		s.slots = append(s.slots, slot)
	}
	pool := &slotPool{free: make(chan *ort.Slot, len(s.slots))}
	for _, slot := range s.slots {
		pool.free <- slot
	}
	return pool, nil
}

// metadata is what makes shards of one run recognise each other: shards whose
// metadata differ never meet in one solve.
func metadata(run *pipeline.Run, l *list.Listing) map[string]string {
	p := run.Provenance
	return map[string]string{"model": p.Model, "preprocessing": p.Preprocessing, "library": p.Library, "processor": p.Processor, "listing": l.Digest}
}

// Close gives the slots and the classifier back.
func (s *Stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range s.slots {
		_ = slot.Close() // memory only
	}
	s.slots = nil
	if s.classifier == nil {
		return nil
	}
	err := s.classifier.Close()
	s.classifier = nil
	return err
}

// Shards is a run's complete log-probabilities.
type Shards struct {
	Result
	Listing  *list.Listing
	Rejected int64 // images in quarantine, at listing and after
	commits  []*pipeline.Commit
}

// Shards reads the commits of a complete extract stage. It fails when a task is
// missing, when shards contradict each other, or when more images are
// quarantined than the job allows.
func OpenShards(ctx context.Context, run *pipeline.Run) (*Shards, error) {
	listing, err := list.Open(ctx, run)
	if err != nil {
		return nil, err
	}
	commits, err := run.Commits(ctx, Name, tasks(run.Job, listing))
	if err != nil {
		return nil, err
	}
	s := &Shards{Listing: listing, Rejected: listing.Rejected, commits: commits}
	for i, c := range commits {
		var r Result
		if err := json.Unmarshal(c.Result, &r); err != nil {
			return nil, pipeline.BadData(fmt.Errorf("commit of extract task %s is damaged: %w", c.Task, err))
		}
		if i == 0 {
			s.Result = r
		}
		if fmt.Sprint(r.Heads, r.FeatureDim) != fmt.Sprint(s.Heads, s.FeatureDim) {
			return nil, pipeline.BadData(fmt.Errorf("extract tasks %s and %s have different heads: start a new run", commits[0].Task, c.Task))
		}
		s.Rejected += c.Counts["rejected"]
	}
	return s, quarantine.Check(s.Rejected, listing.Images+listing.Rejected, run.Job.Images.MaxRejected)
}

// Usable returns the number of images that have log-probabilities.
func (s *Shards) Usable() int64 { return s.Listing.Images - (s.Rejected - s.Listing.Rejected) }

// LogProbs returns the files of a head, in row order.
func (s *Shards) LogProbs(head int) ([]pipeline.Output, error) {
	return s.files(fmt.Sprintf("logprobs/head-%d/part-", head))
}

// Sample returns the sample's files of a head, in row order.
func (s *Shards) Sample(head int) ([]pipeline.Output, error) {
	return s.files(fmt.Sprintf("sample/head-%d/part-", head))
}

func (s *Shards) files(prefix string) ([]pipeline.Output, error) {
	var files []pipeline.Output
	for _, c := range s.commits {
		name := prefix + c.Task + ".parquet"
		found := false
		for _, o := range c.Outputs {
			if o.Name == name {
				files, found = append(files, o), true
			}
		}
		if !found {
			return nil, pipeline.BadData(fmt.Errorf("commit of extract task %s lists no %s: damaged", c.Task, name))
		}
	}
	return files, nil
}
