package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// Output is one object that a commit makes exist.
type Output struct {
	// Name is the object's logical name, the same for every attempt:
	// "logprobs/head-0/part-00003.parquet".
	Name string `json:"name"`
	// Path is where it lies, below the run's folder; it carries the attempt.
	Path string `json:"path"`
	schemas.FileStats
}

// Commit is the record that makes an attempt's output exist. A task is done if
// and only if its commit does.
type Commit struct {
	Version int              `json:"version"`
	Stage   string           `json:"stage"`
	Task    string           `json:"task"`
	Attempt string           `json:"attempt"`
	Inputs  string           `json:"inputs"`
	Outputs []Output         `json:"outputs"`
	Counts  map[string]int64 `json:"counts,omitempty"` // summed over tasks by status and report
	Result  json.RawMessage  `json:"result,omitempty"` // whatever the stage wants to tell later stages
	Seconds float64          `json:"seconds"`
}

// Attempt is one try at a task. Its methods may be called concurrently.
type Attempt struct {
	Run   *Run
	Stage string
	Task  Task
	ID    string
	// Dir is a local folder of the attempt's own, removed when it ends.
	Dir string

	mu      sync.Mutex
	outputs []Output
	counts  map[string]int64
	result  json.RawMessage
}

// Upload sends a finished local file to the run's folder under name, with the
// attempt's id put before the extension; a name serves once in an attempt.
// stats are those the file's writer returned: they were taken from the bytes
// that are on disk.
func (a *Attempt) Upload(ctx context.Context, local, name string, stats schemas.FileStats) error {
	out := Output{Name: name, Path: attemptPath(name, a.ID), FileStats: stats}
	if err := a.Run.Work.Upload(ctx, a.Run.Path(out.Path), local); err != nil {
		return wrap(err, "upload %s", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.outputs {
		if o.Name == name {
			return fmt.Errorf("upload %s: the attempt has an output of that name already", name)
		}
	}
	a.outputs = append(a.outputs, out)
	return nil
}

// Count adds n to one of the commit's counts.
func (a *Attempt) Count(name string, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[name] += n
}

// Result records v, as JSON, in the commit.
func (a *Attempt) Result(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.result = raw
	return nil
}

// Progress reports that so many more rows are done.
func (a *Attempt) Progress(rows int64) {
	a.Run.Observe(Event{Kind: RowsDone, Stage: a.Stage, Task: a.Task.ID, Rows: rows})
}

func attemptPath(name, attempt string) string {
	ext := path.Ext(name)
	return strings.TrimSuffix(name, ext) + "." + attempt + ext
}

// logical tells whether the output lies where [Attempt.Upload] puts it.
func (o Output) logical(attempt string) bool { return o.Path == attemptPath(o.Name, attempt) }

func commitPath(stage, task string) string { return "commits/" + stage + "/" + task + ".json" }

// commit creates the task's record. It returns false when another attempt was
// first; that attempt's outputs are the task's.
func (a *Attempt) commit(ctx context.Context, seconds float64) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := Commit{Version: 1, Stage: a.Stage, Task: a.Task.ID, Attempt: a.ID, Inputs: a.Task.Inputs,
		Outputs: a.outputs, Counts: a.counts, Result: a.result, Seconds: seconds}
	sortOutputs(c.Outputs)
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return false, err
	}
	err = a.Run.Work.Create(ctx, a.Run.Path(commitPath(a.Stage, a.Task.ID)), append(raw, '\n'))
	if errors.Is(err, bucket.ErrExists) {
		first, err := a.Run.Commit(ctx, a.Stage, a.Task)
		if err != nil {
			return false, err
		}
		return first.Attempt == a.ID, nil
	}
	if err != nil {
		return false, wrap(err, "commit")
	}
	return true, nil
}

// Commit reads the record of a task. It fails with bucket.ErrNotFound when the
// task is not done.
func (r *Run) Commit(ctx context.Context, stage string, task Task) (*Commit, error) {
	c, err := r.readCommit(ctx, r.Path(commitPath(stage, task.ID)))
	if err != nil {
		return nil, err
	}
	if c.Inputs != task.Inputs {
		return nil, BadData(fmt.Errorf("%s: task %s was committed from other inputs (%.12s, now %.12s): start a new run", stage, task.ID, c.Inputs, task.Inputs))
	}
	return c, nil
}

func (r *Run) readCommit(ctx context.Context, key string) (*Commit, error) {
	raw, err := r.Work.Get(ctx, key)
	if err != nil {
		return nil, wrap(err, "read commit %s", key)
	}
	var c Commit
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, BadData(fmt.Errorf("commit %s is damaged: %w", key, err))
	}
	if c.Version != 1 {
		return nil, BadConfig(fmt.Errorf("commit %s was written by another version of sela (record version %d)", key, c.Version))
	}
	if key != r.Path(commitPath(c.Stage, c.Task)) {
		return nil, BadData(fmt.Errorf("commit %s is that of %s task %s: damaged", key, c.Stage, c.Task))
	}
	for _, o := range c.Outputs {
		if !o.logical(c.Attempt) {
			return nil, BadData(fmt.Errorf("commit %s names %q as %q: damaged", key, o.Path, o.Name))
		}
	}
	return &c, nil
}

// Committed returns the ids of a stage's tasks that are done.
func (r *Run) Committed(ctx context.Context, stage string) (map[string]bool, error) {
	prefix := r.Path("commits/" + stage + "/")
	done := map[string]bool{}
	err := r.Work.List(ctx, prefix, func(o bucket.Object) error {
		done[strings.TrimSuffix(strings.TrimPrefix(o.Key, prefix), ".json")] = true
		return nil
	})
	return done, wrap(err, "list commits of %s", stage)
}

// Commits returns the records of all tasks, in their order. It fails with
// class [Transient] when a task is not done yet: another process may be at it,
// or the stage must run first.
func (r *Run) Commits(ctx context.Context, stage string, tasks []Task) ([]*Commit, error) {
	out := make([]*Commit, len(tasks))
	err := each(ctx, len(tasks), func(ctx context.Context, i int) error {
		c, err := r.Commit(ctx, stage, tasks[i])
		if errors.Is(err, bucket.ErrNotFound) {
			return Retryable(fmt.Errorf("stage %s of run %s is not complete (task %s, of %d, is not done): run `sela %s` first", stage, r.Run, tasks[i].ID, len(tasks), stage))
		}
		out[i] = c
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// AllCommits returns every commit of the run, in key order.
func (r *Run) AllCommits(ctx context.Context) ([]*Commit, error) {
	var keys []string
	err := r.Work.List(ctx, r.Path("commits/"), func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list commits of run %s", r.Run)
	}
	out := make([]*Commit, len(keys))
	err = each(ctx, len(keys), func(ctx context.Context, i int) (err error) {
		out[i], err = r.readCommit(ctx, keys[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// reading is how many small records are read at once: of a remote store each
// takes a round trip.
const reading = 16

// each calls do for every i from 0 to n-1, some at once, until one fails.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(reading)
	for i := range n {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return do(ctx, i)
		})
	}
	return group.Wait()
}

// Fetch makes a committed object available as a local file whose sha256 has
// been checked. The file is valid until release is called.
func (r *Run) Fetch(ctx context.Context, o Output) (local string, release func(), err error) {
	return r.FetchFrom(ctx, r.Work, r.Path(o.Path), o)
}

// FetchFrom is [Run.Fetch] for an object with the digest and size of o that
// lies elsewhere.
func (r *Run) FetchFrom(ctx context.Context, from *bucket.Bucket, key string, o Output) (local string, release func(), err error) {
	if r.scratch == nil {
		return "", nil, fmt.Errorf("fetch %s: run %s was opened to be read only", o.Name, r.Run)
	}
	local, release, err = r.scratch.cache.Fetch(ctx, from, key, o.SHA256, o.Bytes)
	return local, release, wrap(err, "fetch %s", o.Name)
}

// begin makes an attempt at a task, with a scratch folder of its own.
func (r *Run) begin(ctx context.Context, stage string, t Task) (*Attempt, func(), error) {
	a := &Attempt{Run: r, Stage: stage, Task: t, ID: randomHex(6), counts: map[string]int64{}}
	dir, release, err := r.scratch.reserve(ctx, t.Scratch, strings.Join([]string{r.Run, stage, t.ID, a.ID}, "-"))
	if err != nil {
		return nil, nil, err
	}
	a.Dir = dir
	return a, release, nil
}

// elapsed rounds to milliseconds: commits are read by people too.
func elapsed(since time.Time) float64 {
	return time.Since(since).Round(time.Millisecond).Seconds()
}
