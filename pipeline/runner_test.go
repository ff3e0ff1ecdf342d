package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

const quick = time.Millisecond // between attempts

func TestCommittedTasksAreSkipped(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		run, events := openRun(t, work, "r")
		var done atomic.Int64
		stage := newFake("s", 5, func(_ context.Context, _ Task, a *Attempt) error {
			done.Add(1)
			a.Count("n", 2)
			a.Count("n", 1)
			a.Progress(10)
			return a.Result(map[string]int{"x": 1})
		})
		first := &fake{name: "s", tasks: stage.tasks[1:3], do: stage.do}
		if _, err := (&Runner{}).Run(t.Context(), run, first); err != nil {
			t.Fatal(err)
		}
		totals, err := (&Runner{Parallel: 3}).Run(t.Context(), run, stage)
		if err != nil || totals.Tasks != 5 || totals.Skipped != 2 || totals.Rows != 30 || done.Load() != 5 {
			t.Errorf("totals are %+v, %v after %d tasks", totals, err, done.Load())
		}
		totals, err = (&Runner{}).Run(t.Context(), run, stage)
		if err != nil || totals.Skipped != 5 || totals.Rows != 0 || done.Load() != 5 {
			t.Errorf("totals are %+v, %v after %d tasks", totals, err, done.Load())
		}
		for kind, want := range map[Kind]int{StageStarted: 3, TaskStarted: 5, RowsDone: 5, TaskCommitted: 5, StageDone: 3, TaskRetried: 0, TaskDiscarded: 0} {
			if n := events.count(kind); n != want {
				t.Errorf("%d events %q, want %d", n, kind, want)
			}
		}
		commits, err := run.Commits(t.Context(), "s", stage.tasks)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range commits {
			if c.Task != stage.tasks[i].ID || c.Counts["n"] != 3 || string(c.Result) != "{\n    \"x\": 1\n  }" || len(c.Outputs) != 1 {
				t.Errorf("commit is %+v", c)
			}
		}
		if all, err := run.AllCommits(t.Context()); err != nil || len(all) != 5 {
			t.Errorf("%d commits, %v", len(all), err)
		}
		if n := len(outputs(t, run)); n != 5 {
			t.Errorf("%d outputs", n)
		}
		local, release, err := run.Fetch(t.Context(), commits[3].Outputs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if raw, err := os.ReadFile(local); err != nil || string(raw) != "content of s 00003" {
			t.Errorf("fetched %q, %v", raw, err)
		}
	})
}

func TestRetries(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		attempts int64 // that a task gets which always fails
	}{
		"transient": {Retryable(errors.New("lost")), 3},
		"data":      {BadData(errors.New("broken")), 1},
		"config":    {BadConfig(errors.New("wrong")), 1},
		"bug":       {errors.New("surprise"), 1},
		"wrapped":   {fmt.Errorf("a: %w", context.DeadlineExceeded), 3},
	} {
		t.Run(name, func(t *testing.T) {
			run, events := openRun(t, memory(t), "r")
			var tried atomic.Int64
			_, err := (&Runner{Pause: quick}).Run(t.Context(), run, newFake("s", 1, func(context.Context, Task, *Attempt) error {
				tried.Add(1)
				return c.err
			}))
			if !errors.Is(err, c.err) || ClassOf(err) != ClassOf(c.err) || !strings.HasPrefix(err.Error(), "s: task 00000: ") {
				t.Errorf("error is %v", err)
			}
			if tried.Load() != c.attempts || events.count(TaskRetried) != int(c.attempts)-1 {
				t.Errorf("%d attempts, %d retries", tried.Load(), events.count(TaskRetried))
			}
			if left := scratchFiles(t, run.Job); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	t.Run("until it succeeds", func(t *testing.T) {
		run, _ := openRun(t, memory(t), "r")
		var tried atomic.Int64
		_, err := (&Runner{Pause: quick}).Run(t.Context(), run, newFake("s", 1, func(context.Context, Task, *Attempt) error {
			if tried.Add(1) < 3 {
				return Retryable(errors.New("lost"))
			}
			return nil
		}))
		if err != nil || len(outputs(t, run)) != 1 {
			t.Errorf("error is %v", err)
		}
	})
}

func TestPermanentFailureCancelsTheOthers(t *testing.T) {
	run, events := openRun(t, memory(t), "r")
	broken := errors.New("broken")
	var ended atomic.Int64
	waiting := make(chan struct{}, 3)
	_, err := (&Runner{Parallel: 4}).Run(t.Context(), run, newFake("s", 100, func(ctx context.Context, task Task, _ *Attempt) error {
		if task.Index == 3 {
			for range 3 {
				<-waiting
			}
			return BadData(broken)
		}
		waiting <- struct{}{}
		<-ctx.Done()
		ended.Add(1)
		return ctx.Err()
	}))
	if !errors.Is(err, broken) || ClassOf(err) != Data || !strings.Contains(err.Error(), "task 00003") {
		t.Errorf("error is %v", err)
	}
	if ended.Load() != 3 || events.count(TaskStarted) != 4 || events.count(StageDone) != 0 {
		t.Errorf("%d others were cancelled, %d tasks started", ended.Load(), events.count(TaskStarted))
	}
	if left := scratchFiles(t, run.Job); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestZombie lets another attempt commit the task while one is at it.
func TestZombie(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		run, _ := openRun(t, work, "r")
		other, otherEvents := openRun(t, work, "r")
		plain := newFake("s", 1, nil)
		slow := newFake("s", 1, func(ctx context.Context, _ Task, _ *Attempt) error {
			_, err := (&Runner{}).Run(ctx, run, plain)
			return err
		})
		if _, err := (&Runner{}).Run(t.Context(), other, slow); err != nil {
			t.Fatal(err)
		}
		if otherEvents.count(TaskDiscarded) != 1 || otherEvents.count(TaskCommitted) != 0 {
			t.Errorf("events are %v", otherEvents.events)
		}
		objects := keys(t, work, run.Path("s/"))
		m, err := run.Manifest(t.Context())
		if err != nil || len(objects) != 2 || len(m.Files) != 1 {
			t.Errorf("objects %v, manifest %v, %v", objects, m, err)
		}
		if err := run.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		garbage, err := FindGarbage(t.Context(), work, run.Job, false)
		if err != nil || len(garbage) != 1 || garbage[0].Objects != 1 || garbage[0].keys[0] == run.Path(m.Files[0].Path) {
			t.Errorf("garbage is %+v, %v", garbage, err)
		}
	})
}

// TestLostAnswers commits through a store whose writes take effect but report
// failure. With requests repeated, the commit counts as success at once;
// without, the task's next attempt finds it.
func TestLostAnswers(t *testing.T) {
	for _, attempts := range []int{3, 1} {
		inner := memblob.OpenBucket(nil)
		run, _ := openRun(t, bucket.New(inner, "mem://", bucket.Options{}), "r", func(o *Options) { o.Job.Retries.Task = 20 })
		faults := &buckettest.Faults{Applied: 2}
		run.Work = faulty(t, inner, faults, attempts)
		var done atomic.Int64
		stage := newFake("s", 10, func(context.Context, Task, *Attempt) error { done.Add(1); return nil })
		if _, err := (&Runner{Pause: quick, Parallel: 3}).Run(t.Context(), run, stage); err != nil {
			t.Fatal(err)
		}
		if faults.Injected() == 0 {
			t.Fatal("no fault was injected")
		}
		if attempts > 1 && done.Load() != 10 {
			t.Errorf("%d attempts at 10 tasks", done.Load())
		}
		if n := len(outputs(t, run)); n != 10 {
			t.Errorf("%d outputs", n)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	inner := memblob.OpenBucket(nil)
	run, _ := openRun(t, bucket.New(inner, "mem://", bucket.Options{}), "r")
	run.Work = faulty(t, inner, &buckettest.Faults{Refuse: 3}, 5)
	if _, err := (&Runner{Pause: quick, Parallel: 2}).Run(t.Context(), run, newFake("s", 10, nil)); err != nil {
		t.Fatal(err)
	}
	if n := len(outputs(t, run)); n != 10 {
		t.Errorf("%d outputs", n)
	}
}

func TestTaskTimeout(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context) error{
		"context's error": context.Cause,
		"own words":       func(context.Context) error { return errors.New("signal: killed") },
	} {
		run, _ := openRun(t, memory(t), "r", func(o *Options) { o.Job.Timeouts.Task, o.Job.Retries.Task = Duration(20*time.Millisecond), 2 })
		var tried atomic.Int64
		_, err := (&Runner{Pause: quick}).Run(t.Context(), run, newFake("s", 1, func(ctx context.Context, _ Task, _ *Attempt) error {
			tried.Add(1)
			<-ctx.Done()
			return end(ctx)
		}))
		if ClassOf(err) != Transient || !strings.Contains(err.Error(), "timeouts.task (20ms)") || !strings.Contains(err.Error(), "task 00000") || tried.Load() != 2 {
			t.Errorf("%s: %v after %d attempts", name, err, tried.Load())
		}
	}
	run, _ := openRun(t, memory(t), "r", func(o *Options) { o.Job.Timeouts.Task = Duration(time.Millisecond) })
	_, err := (&Runner{}).Run(t.Context(), run, newFake("s", 1, func(ctx context.Context, _ Task, _ *Attempt) error {
		<-ctx.Done()
		return BadData(errors.New("known"))
	}))
	if ClassOf(err) != Data {
		t.Errorf("a known class is lost: %v", err)
	}
}

func TestStopDrains(t *testing.T) {
	run, events := openRun(t, memory(t), "r")
	stop := make(chan struct{})
	var once sync.Once
	stage := newFake("s", 10, func(context.Context, Task, *Attempt) error {
		once.Do(func() { close(stop) })
		return nil
	})
	totals, err := (&Runner{Parallel: 2, Stop: stop}).Run(t.Context(), run, stage)
	if !errors.Is(err, ErrStopped) || ClassOf(err) != Interrupted || ExitCode(err, 15) != 143 {
		t.Errorf("error is %v", err)
	}
	done := len(outputs(t, run))
	if done == 0 || done > 3 || events.count(TaskStarted) != done || totals.Rows != int64(10*done) {
		t.Errorf("%d of %d started tasks were committed; totals %+v", done, events.count(TaskStarted), totals)
	}
	if _, err := (&Runner{}).Run(t.Context(), run, stage); err != nil || len(outputs(t, run)) != 10 {
		t.Errorf("after resuming: %v", err)
	}
	// Asked to stop when nothing is left to do, the stage is complete.
	if _, err := (&Runner{Stop: stop}).Run(t.Context(), run, stage); err != nil {
		t.Errorf("a complete stage: %v", err)
	}
}

func TestStopInTheLastTask(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	stop := make(chan struct{})
	_, err := (&Runner{Stop: stop}).Run(t.Context(), run, newFake("s", 1, func(context.Context, Task, *Attempt) error {
		close(stop)
		return nil
	}))
	if err != nil {
		t.Errorf("a complete stage: %v", err)
	}
}

func TestStopEndsPauses(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	stop := make(chan struct{})
	_, err := (&Runner{Stop: stop, Pause: time.Hour}).Run(t.Context(), run, newFake("s", 1, func(context.Context, Task, *Attempt) error {
		close(stop)
		return Retryable(errors.New("lost"))
	}))
	if !errors.Is(err, ErrStopped) || ClassOf(err) != Interrupted || !strings.Contains(err.Error(), "lost") {
		t.Errorf("error is %v", err)
	}
}

func TestCancelEndsPromptly(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context) error{
		"at work":    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"own words":  func(ctx context.Context) error { <-ctx.Done(); return errors.New("signal: killed") },
		"in a pause": func(context.Context) error { return Retryable(errors.New("lost")) },
	} {
		run, _ := openRun(t, memory(t), "r")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := (&Runner{Parallel: 2, Pause: time.Hour}).Run(ctx, run, newFake("s", 50, func(ctx context.Context, _ Task, _ *Attempt) error {
			time.AfterFunc(5*time.Millisecond, cancel)
			return do(ctx)
		}))
		if ClassOf(err) != Interrupted || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if left := scratchFiles(t, run.Job); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}

func TestShardsCoverEveryTaskOnce(t *testing.T) {
	for shards := 1; shards <= 7; shards++ {
		run, _ := openRun(t, memory(t), "r")
		done := map[string]int{}
		for shard := range shards {
			stage := newFake("s", 20, func(_ context.Context, task Task, _ *Attempt) error { done[task.ID]++; return nil })
			totals, err := (&Runner{Shard: shard, Shards: shards}).Run(t.Context(), run, stage)
			if err != nil || totals.Skipped != 0 || totals.Tasks < 20/shards || totals.Tasks > 20/shards+1 {
				t.Errorf("shard %d/%d: %+v, %v", shard, shards, totals, err)
			}
		}
		for id, n := range done {
			if n != 1 {
				t.Errorf("task %s was done %d times by %d shards", id, n, shards)
			}
		}
		if len(done) != 20 {
			t.Errorf("%d tasks were done by %d shards", len(done), shards)
		}
	}
}

func TestScratchIsBounded(t *testing.T) {
	run, _ := openRun(t, memory(t), "r", func(o *Options) { o.Job.Local.Bytes = 2 * 100 })
	var used, most atomic.Int64
	stage := newFake("s", 40, func(_ context.Context, task Task, a *Attempt) error {
		now := used.Add(task.Scratch)
		defer used.Add(-task.Scratch)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		info, err := os.Stat(a.Dir)
		if err != nil || !info.IsDir() {
			t.Errorf("no scratch folder: %v", err)
		}
		time.Sleep(time.Millisecond)
		return nil
	})
	for i := range stage.tasks {
		stage.tasks[i].Scratch = int64(20 + i)
	}
	if _, err := (&Runner{Parallel: 8}).Run(t.Context(), run, stage); err != nil {
		t.Fatal(err)
	}
	if most.Load() > 100 || most.Load() < 40 {
		t.Errorf("at most %d bytes were reserved, of 100", most.Load())
	}
	if left := scratchFiles(t, run.Job); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	large := newFake("large", 1, nil)
	large.tasks[0].Scratch = 101
	_, err := (&Runner{}).Run(t.Context(), run, large)
	if ClassOf(err) != Config || !strings.Contains(err.Error(), "task 00000: needs 101 of scratch") {
		t.Errorf("error is %v", err)
	}
}

// TestPanic checks that a panic takes the scratch folder with it on its way up.
func TestPanic(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	stage := newFake("s", 1, func(context.Context, Task, *Attempt) error { panic("boom") })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = (&Runner{}).attempt(t.Context(), run, stage, stage.tasks[0])
	}()
	if left := scratchFiles(t, run.Job); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestFailedPlan(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	_, err := (&Runner{}).Run(t.Context(), run, dependent{newFake("after", 1, nil), newFake("before", 3, nil)})
	if ClassOf(err) != Transient || !strings.Contains(err.Error(), "sela before") {
		t.Errorf("error is %v", err)
	}
}

// dependent is a stage that needs another one.
type dependent struct {
	*fake
	needs *fake
}

func (s dependent) Plan(ctx context.Context, run *Run) ([]Task, error) {
	_, err := run.Commits(ctx, s.needs.name, s.needs.tasks)
	return s.tasks, err
}

func TestOtherInputsAreRefused(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	stage := newFake("s", 1, nil)
	if _, err := (&Runner{}).Run(t.Context(), run, stage); err != nil {
		t.Fatal(err)
	}
	stage.tasks[0].Inputs = "changed"
	_, err := run.Commits(t.Context(), "s", stage.tasks)
	if ClassOf(err) != Data || !strings.Contains(err.Error(), "other inputs") {
		t.Errorf("error is %v", err)
	}
}

func TestDamagedCommits(t *testing.T) {
	for name, c := range map[string]struct {
		json string
		want Class
	}{
		"cut off":       {`{"version": 1, "stage"`, Data},
		"trailing":      {`{"version": 1, "stage": "s", "task": "00000"} x`, Data},
		"other version": {`{"version": 2, "stage": "s", "task": "00000"}`, Config},
		"other task":    {`{"version": 1, "stage": "s", "task": "00001"}`, Data},
		"foreign path":  {`{"version": 1, "stage": "s", "task": "00000", "attempt": "aa", "inputs": "inputs", "outputs": [{"name": "x.p", "path": "x.bb.p"}]}`, Data},
	} {
		work := memory(t)
		run, _ := openRun(t, work, "r")
		if err := work.Put(t.Context(), run.Path("commits/s/00000.json"), []byte(c.json)); err != nil {
			t.Fatal(err)
		}
		_, err := run.Commits(t.Context(), "s", newFake("s", 1, nil).tasks)
		_, errAll := run.AllCommits(t.Context())
		for _, err := range []error{err, errAll} {
			if ClassOf(err) != c.want || !strings.Contains(err.Error(), "commits/s/00000.json") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestNamesServeOnce(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	_, err := (&Runner{}).Run(t.Context(), run, newFake("s", 1, func(ctx context.Context, task Task, a *Attempt) error {
		return put(ctx, a, "s/part-"+task.ID+".txt", "content of s "+task.ID)
	}))
	if ClassOf(err) != Bug || !strings.Contains(err.Error(), "s/part-00000.txt") {
		t.Errorf("error is %v", err)
	}
}

func TestMissingLocalFile(t *testing.T) {
	run, _ := openRun(t, memory(t), "r")
	_, err := (&Runner{}).Run(t.Context(), run, newFake("s", 1, func(ctx context.Context, _ Task, a *Attempt) error {
		return a.Upload(ctx, filepath.Join(a.Dir, "absent"), "s/x", stats(""))
	}))
	if err == nil || !strings.Contains(err.Error(), "upload s/x") {
		t.Errorf("error is %v", err)
	}
}
