package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// Runner performs the tasks of a stage.
type Runner struct {
	// Parallel is the number of tasks done at once; 0 is 1. Stages are parallel
	// inside a task, so that more is only for stages whose tasks are not.
	Parallel int
	// Shard and Shards select the tasks whose index is Shard modulo Shards, so
	// that n machines can share a stage; Shards 0 or 1 selects all.
	Shard, Shards int
	// Stop, when closed, lets tasks in flight end but starts no other.
	Stop <-chan struct{}
	// Pause is the first pause before a task is tried again; 0 is one second.
	Pause time.Duration
}

// ErrStopped ends a stage that was asked to stop between two tasks. Its class
// is [Interrupted].
var ErrStopped = fmt.Errorf("stopped before the stage was complete: %w", context.Canceled)

// Totals say what a stage did.
type Totals struct {
	Tasks   int           // in the plan, of this shard
	Skipped int           // committed before
	Rows    int64         // of the tasks done now
	Elapsed time.Duration // wall time
}

// Run performs every selected task of the stage that is not committed. The
// first task that fails for good cancels the others; what they had committed
// stays.
func (r *Runner) Run(ctx context.Context, run *Run, stage Stage) (Totals, error) {
	start := time.Now()
	plan, err := stage.Plan(ctx, run)
	if err != nil {
		return Totals{}, wrap(err, "%s", stage.Name())
	}
	done, err := run.Committed(ctx, stage.Name())
	if err != nil {
		return Totals{}, err
	}
	var totals Totals
	var todo []Task
	var rows int64
	for _, t := range plan {
		if r.Shards > 1 && t.Index%r.Shards != r.Shard {
			continue
		}
		totals.Tasks++
		if done[t.ID] {
			totals.Skipped++
			continue
		}
		todo = append(todo, t)
		rows += t.Rows
	}
	run.Observe(Event{Kind: StageStarted, Stage: stage.Name(), Tasks: totals.Tasks, Skipped: totals.Skipped, Total: rows})
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(r.Parallel, 1))
	var ended, endedRows atomic.Int64
	for _, t := range todo {
		if r.stopped(gctx) {
			break
		}
		group.Go(func() error {
			// The limit may have held this task back for a long time.
			if r.stopped(gctx) {
				return nil
			}
			err := r.task(gctx, run, stage, t)
			if err == nil {
				ended.Add(1)
				endedRows.Add(t.Rows)
			}
			return err
		})
	}
	err = group.Wait()
	totals.Rows, totals.Elapsed = endedRows.Load(), time.Since(start)
	if err == nil && int(ended.Load()) < len(todo) {
		err = ErrStopped
	}
	if err != nil {
		return totals, wrap(err, "%s", stage.Name())
	}
	run.Observe(Event{Kind: StageDone, Stage: stage.Name(), Rows: totals.Rows, Tasks: totals.Tasks, Skipped: totals.Skipped, Elapsed: totals.Elapsed})
	return totals, nil
}

func (r *Runner) stopped(ctx context.Context) bool {
	select {
	case <-r.Stop:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// task tries a task until it is committed, fails for good, or has used its
// attempts.
func (r *Runner) task(ctx context.Context, run *Run, stage Stage, t Task) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = max(r.Pause, time.Millisecond)
	if r.Pause == 0 {
		pauses.InitialInterval = time.Second
	}
	pauses.MaxInterval = time.Minute
	for try := 1; ; try++ {
		err := r.attempt(ctx, run, stage, t)
		if err == nil {
			return nil
		}
		err = wrap(err, "task %s", t.ID)
		class := ClassOf(err)
		if ctx.Err() != nil && (class == Bug || class == Transient) {
			// What was running may report its end in words of its own: a killed
			// program, a terminated session.
			return fmt.Errorf("%w (%v)", ctx.Err(), err)
		}
		if class != Transient {
			return err
		}
		// Another process may have done it, or a commit whose answer was lost.
		if _, missing := run.Commit(ctx, stage.Name(), t); missing == nil {
			run.Observe(Event{Kind: TaskDiscarded, Stage: stage.Name(), Task: t.ID})
			return nil
		}
		if try >= run.Job.Retries.Task {
			return err
		}
		run.Observe(Event{Kind: TaskRetried, Stage: stage.Name(), Task: t.ID, Err: err, Attrs: attrs([]any{"attempt", try})})
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-r.Stop:
			return fmt.Errorf("%w (%v)", ErrStopped, err)
		case <-ctx.Done():
			return fmt.Errorf("%w (%v)", ctx.Err(), err)
		}
	}
}

// attempt does a task once. The time limit runs while the task works, not while
// it waits for scratch that other tasks hold.
func (r *Runner) attempt(ctx context.Context, run *Run, stage Stage, t Task) error {
	a, release, err := run.begin(ctx, stage.Name(), t)
	if err != nil {
		return err
	}
	defer release()
	run.Observe(Event{Kind: TaskStarted, Stage: stage.Name(), Task: t.ID})
	limit := cmp.Or(t.Timeout, time.Duration(run.Job.Timeouts.Task))
	tctx := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		tctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	start := time.Now()
	first := false
	if err = stage.Do(tctx, t, a); err == nil {
		first, err = a.commit(tctx, elapsed(start))
	}
	if err != nil {
		if ctx.Err() == nil && tctx.Err() != nil {
			err = overtime(err, limit)
		}
		return err
	}
	kind := TaskCommitted
	if !first {
		kind = TaskDiscarded
	}
	run.Observe(Event{Kind: kind, Stage: stage.Name(), Task: t.ID, Rows: t.Rows, Elapsed: time.Since(start)})
	return nil
}

// overtime explains an error that came after the end of the task's time. One
// whose class is known for other reasons stays as it is.
func overtime(err error, limit time.Duration) error {
	switch ClassOf(err) {
	case Bug, Transient, Interrupted:
		return Retryable(fmt.Errorf("took longer than timeouts.task (%s), or what the stage has in its place: %w", Duration(limit), err))
	default:
		return err
	}
}

func attrs(pairs []any) []slog.Attr {
	var out []slog.Attr
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, slog.Any(fmt.Sprint(pairs[i]), pairs[i+1]))
	}
	return out
}
