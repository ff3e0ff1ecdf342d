package extract

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

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
// listing. A task uses all cores while it runs the model, and few when it checks
// and uploads its files. Two tasks at a time therefore leave no core idle, and
// more gain nothing.
type Stage struct {
	Images *bucket.Bucket
	// Open returns the classifier; it is called when the first task needs one.
	Open func(ctx context.Context) (*Classifier, error)

	// Earlier opens the run whose rows may be taken over for images that have not
	// changed since, or returns nil; where it is nil, every image is extracted.
	Earlier func(ctx context.Context) (*pipeline.Run, error)

	listing   *list.Listing
	preflight *Preflight
	earlier   *earlier // nil to extract every image

	mu         sync.Mutex
	classifier *Classifier
	lane       *lane            // nil before the first task
	rejected   map[string]int64 // by task, of those this process did
}

// Result is what an extract commit records.
type Result struct {
	Heads       []Head           `json:"heads"`
	FeatureDim  int              `json:"feature_dim,omitempty"`
	Determinism *ort.Determinism `json:"determinism,omitempty"` // measured on the process's first batch
	Timing      *Timing          `json:"timing"`
	TakenFrom   string           `json:"taken_from,omitempty"` // run whose rows were taken over, as many as the count taken_over says
}

// Name implements [pipeline.Stage].
func (s *Stage) Name() string { return Name }

// Plan implements [pipeline.Stage]. Only the model tells how much scratch a task
// needs: it is opened, unless every task is done.
func (s *Stage) Plan(ctx context.Context, run *pipeline.Run) ([]pipeline.Task, error) {
	listing, err := list.Open(ctx, run)
	if err != nil {
		return nil, err
	}
	s.listing = listing
	all := tasks(run.Job, listing)
	done, err := run.Committed(ctx, Name)
	if err != nil || len(done) == len(all) {
		return all, err
	}
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Scratch = scratchBytes(c, all[i].Rows)
	}
	s.earlier, err = s.openEarlier(ctx, run, c)
	return all, err
}

func tasks(job *pipeline.Job, l *list.Listing) []pipeline.Task {
	n := (l.Images + job.Extract.ShardRows - 1) / job.Extract.ShardRows
	all := make([]pipeline.Task, n)
	for i := range all {
		from, to := shardRange(job, l, i)
		all[i] = pipeline.Task{ID: fmt.Sprintf("%05d", i), Index: i, Inputs: l.Snapshot, Rows: to - from}
	}
	return all
}

func shardRange(job *pipeline.Job, l *list.Listing, i int) (from, to int64) {
	from = int64(i) * job.Extract.ShardRows
	return from, min(from+job.Extract.ShardRows, l.Images)
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

// open opens the classifier.
func (s *Stage) open(ctx context.Context) (*Classifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.classifier != nil {
		return s.classifier, nil
	}
	c, err := s.Open(ctx)
	if err == nil {
		s.classifier, s.rejected = c, map[string]int64{}
	}
	return c, err
}

// enter makes the lane, once.
func (s *Stage) enter(ctx context.Context, c *Classifier, job *pipeline.Job) (*lane, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.lane == nil {
		s.lane, err = newLane(ctx, c, job)
	}
	return s.lane, err
}

// Do implements [pipeline.Stage].
func (s *Stage) Do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	out, err := createOutput(a, c, s.listing.Images, metadata(a.Run, s.listing))
	if err == nil {
		err = s.do(ctx, t, a, c, out)
	}
	if err != nil {
		_ = out.abort() // err says more
	}
	return err
}

func (s *Stage) do(ctx context.Context, t pipeline.Task, a *pipeline.Attempt, c *Classifier, out *output) error {
	images, rows, err := s.split(ctx, t, a, out)
	if err != nil {
		return err
	}
	timing, err := s.extract(ctx, a, images, rows, out)
	if err != nil {
		return err
	}
	rejected := out.quarantine.Rows()
	if err := s.checkRejects(a, rejected); err != nil {
		return fmt.Errorf("%w; in this shard: %s", err, out.quarantine.Summary())
	}
	begin := time.Now()
	if err := out.finish(ctx); err != nil {
		return err
	}
	timing.Finish.since(begin)
	a.Count("images", t.Rows)
	a.Count("rejected", rejected)
	if rejected > 0 {
		a.Run.Notice(Name, "images were quarantined", "shard", t.ID, "images", rejected, "why", out.quarantine.Summary())
	}
	result := Result{Heads: c.Heads, FeatureDim: c.FeatureDim, Timing: timing}
	if len(rows) > 0 {
		a.Count("taken_over", int64(len(rows)))
		result.TakenFrom = s.earlier.run.Run
	}
	if s.preflight != nil {
		result.Determinism = &s.preflight.Probe
	}
	return a.Result(result)
}

// split parts the images of a task into those to extract and the rows of the
// earlier run that are taken over. Where those cannot be read, all are extracted.
func (s *Stage) split(ctx context.Context, t pipeline.Task, a *pipeline.Attempt, out *output) (images []schemas.Image, rows []taken, err error) {
	if s.earlier != nil {
		images, rows, err = s.earlier.split(ctx, t.Index, out)
		if err == nil || ctx.Err() != nil || pipeline.ClassOf(err) == pipeline.Transient {
			return images, rows, err
		}
		a.Run.Notice(Name, "the images of a shard are extracted: rows of the earlier run cannot be read", "shard", t.ID, "run", s.earlier.run.Run, "why", err.Error())
	}
	from, to := shardRange(a.Run.Job, s.listing, t.Index)
	images = make([]schemas.Image, 0, to-from)
	err = s.listing.Read(ctx, from, to, func(img schemas.Image) error {
		images = append(images, img)
		return nil
	})
	return images, nil, err
}

// extract takes images, and rows of the earlier run, to a task's tables.
func (s *Stage) extract(ctx context.Context, a *pipeline.Attempt, images []schemas.Image, rows []taken, out *output) (*Timing, error) {
	lane, err := s.enter(ctx, out.classifier, a.Run.Job)
	if err != nil {
		return nil, badModel(err)
	}
	if len(rows) == 0 {
		flow := newFlow(lane, s.Images, out)
		return &flow.timing, flow.run(ctx, images)
	}
	over := newTakeover(ctx, out, s.earlier, rows)
	defer over.close()
	flow := newFlow(lane, s.Images, over)
	if err := flow.run(ctx, images); err != nil {
		return nil, err
	}
	return &flow.timing, over.finish()
}

// checkRejects stops the stage once this process alone has rejected more images
// than the job allows; the solve stage counts those of all processes.
func (s *Stage) checkRejects(a *pipeline.Attempt, rows int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[a.Task.ID] = rows
	all := s.listing.Rejected
	for _, n := range s.rejected {
		all += n
	}
	return quarantine.Check(all, s.listing.Images+s.listing.Rejected, a.Run.Job.Images.MaxRejected)
}

// metadata is what makes shards of one run recognise each other: shards whose
// metadata differ never meet in one solve.
func metadata(run *pipeline.Run, l *list.Listing) map[string]string {
	p := run.Provenance
	return map[string]string{"model": p.Model, "preprocessing": p.Preprocessing, "library": p.Library, "processor": p.Processor, "listing": l.Digest}
}

// Close gives the batches and the classifier back. No task may be under way.
func (s *Stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.classifier == nil {
		return nil
	}
	if s.lane != nil {
		s.lane.close()
	}
	err := s.classifier.Close()
	s.classifier, s.lane = nil, nil
	return err
}

// Shards is a run's complete log-probabilities.
type Shards struct {
	Result
	Listing  *list.Listing
	Rejected int64 // images in quarantine, at listing and after
	commits  []*pipeline.Commit
}

// OpenShards reads the commits of a complete extract stage. It fails when a task is
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
		if !slices.Equal(r.Heads, s.Heads) || r.FeatureDim != s.FeatureDim {
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

// Features returns the features' files, in row order. It is an error if the run
// has none: see FeatureDim.
func (s *Shards) Features() ([]pipeline.Output, error) { return s.files("features/part-") }

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
