package extract_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"gocloud.dev/blob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/pipeline/bucket/filedriver"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// events counts what a run tells of the stage.
type events struct{ retried, rows atomic.Int64 }

func (e *events) Observe(ev pipeline.Event) {
	switch {
	case ev.Stage != extract.Name:
	case ev.Kind == pipeline.TaskRetried:
		e.retried.Add(1)
	case ev.Kind == pipeline.RowsDone:
		e.rows.Add(ev.Rows)
	}
}

// observed opens a run of r under an id, watched.
func observed(t testing.TB, r *runtest.Run, id string) (*pipeline.Run, *events) {
	t.Helper()
	e := &events{}
	run, err := pipeline.Open(context.Background(), r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: id, Observer: e})
	if err != nil {
		t.Fatal(err)
	}
	return run, e
}

// TestStoreThatStaysDown: the task is tried as often as the job says, its class
// is Transient, and the same stage does it once the store is back: no batch was
// lost and no turn was kept.
func TestStoreThatStaysDown(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Job.Extract.Decoders, r.Job.Runtime.Threads, r.Job.Retries.Task = 3, 2, 3
	r.Through(t, r.Run, extract.Name)
	plain, want := r.Images, digests(t, r.Run)

	run, seen := observed(t, r, "down")
	r.Through(t, run, list.Name)
	for _, f := range []*buckettest.Faults{{Refuse: 1}, {Refuse: 3, Break: 1}} {
		r.Images = down(t, r, f)
		stage := r.Stages()[1].(*extract.Stage)
		before := seen.retried.Load()
		_, err := runtest.Runner().Run(context.Background(), run, stage)
		fails(t, err, pipeline.Transient, "task 00000", "read image loose/")
		if n := seen.retried.Load() - before; n != 2 {
			t.Errorf("the task was tried again %d times, want 2", n)
		}
		allIdle(t, stage)
		stage.Images = plain
		if _, err := runtest.Runner().Run(context.Background(), run, stage); err != nil {
			t.Fatal(err)
		}
		if err := stage.Close(); err != nil {
			t.Error(err)
		}
		same(t, digests(t, run), want)
		run, seen = observed(t, r, fmt.Sprintf("down-%d", f.Refuse))
		r.Images = plain
		r.Through(t, run, list.Name)
	}
}

// allIdle checks that no batch and no room to read ahead was lost.
func allIdle(t testing.TB, stage *extract.Stage) {
	t.Helper()
	if idle, all, reading := stage.Idle(); idle != all || reading {
		t.Errorf("%d batches of %d are idle, read-ahead in use: %t", idle, all, reading)
	}
}

// down is the bucket of the images with faults that no repetition outlasts.
func down(t testing.TB, r *runtest.Run, f *buckettest.Faults) *bucket.Bucket {
	return over(t, filepath.Join(r.Dir, "mine"), func(b *blob.Bucket) *blob.Bucket { return buckettest.Faulty(b, f) })
}

// TestWorkStoreFails: answers that are lost and uploads that fail change no
// byte, and quarantine is not counted twice when a task is repeated.
func TestWorkStoreFails(t *testing.T) {
	files := pictures(t, 100)
	for i := range 10 {
		files[fmt.Sprintf("bad-%d.png", i)] = []byte("not an image")
	}
	r := world(t, files, classifierOfTwo, func(j *pipeline.Job) {
		withFeatures(j)
		j.Images.MaxRejected, j.Retries.Task = 0.1, 10
	})
	r.Through(t, r.Run, extract.Name)
	want := digests(t, r.Run)
	plain := r.Work
	for i, c := range []struct {
		faults   *buckettest.Faults
		attempts int // at a request; with one, it is the tasks that are repeated
	}{{&buckettest.Faults{Applied: 7}, 1}, {&buckettest.Faults{Refuse: 13}, 1}, {&buckettest.Faults{Refuse: 4, Applied: 3}, 6}} {
		f := c.faults
		r.Work = plain
		quiet := r.Open(t, fmt.Sprintf("faulty-%d", i))
		r.Through(t, quiet, list.Name)
		r.Work = bucket.New(buckettest.Faulty(inner(t, filepath.Join(r.Dir, "work")), f), "file://work", bucket.Options{Backoff: time.Microsecond, Attempts: c.attempts})
		run, seen := observed(t, r, fmt.Sprintf("faulty-%d", i))
		stage := r.Stages()[1].(*extract.Stage)
		_, err := runtest.Runner().Run(context.Background(), run, stage)
		for range 20 {
			if pipeline.ClassOf(err) == pipeline.Transient {
				_, err = runtest.Runner().Run(context.Background(), run, stage)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d faults, %d repetitions", f.Injected(), seen.retried.Load())
		if f.Injected() == 0 {
			t.Error("there were no faults")
		}
		if err := stage.Close(); err != nil {
			t.Error(err)
		}
		same(t, digests(t, quiet), want)
	}
}

func inner(t testing.TB, folder string) *blob.Bucket {
	t.Helper()
	b, err := filedriver.Open(folder, filedriver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCancelEndsPromptly: whatever the flow is waiting for, it ends with its
// context and leaves no goroutine, and the stage can be used again.
func TestCancelEndsPromptly(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Job.Extract.Decoders, r.Job.Runtime.Threads = 3, 2
	r.Through(t, r.Run, extract.Name)
	plain, want := r.Images, digests(t, r.Run)
	for i, c := range []struct {
		name   string
		faults *buckettest.Faults
		ahead  pipeline.Bytes
	}{
		{"while reading", &buckettest.Faults{Latency: 2 * time.Millisecond}, 64 << 20},
		{"while nothing comes", &buckettest.Faults{Stall: 50}, 64 << 20},
		{"while the budget is spent", &buckettest.Faults{Stall: 50}, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Images, r.Job.Extract.ReadAhead = plain, c.ahead
			run, seen := observed(t, r, fmt.Sprintf("cancelled-%d", i))
			r.Through(t, run, list.Name)
			r.Images = down(t, r, c.faults)
			stage := r.Stages()[1].(*extract.Stage)
			if _, err := stage.Preflight(context.Background(), nil); err == nil {
				t.Error("preflight without images")
			}
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			runner := runtest.Runner()
			runner.Parallel = 2
			go func() { _, err := runner.Run(ctx, run, stage); ended <- err }()
			waitFor(t, "the first rows, or a read that stalls", func() bool { return seen.rows.Load() > 0 || c.faults.Injected() > 0 })
			cancel()
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it goes on")
			}
			waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+extract.Workers(r.Job) })
			allIdle(t, stage)
			stage.Images = plain
			if _, err := runner.Run(context.Background(), run, stage); err != nil {
				t.Fatal(err)
			}
			if err := stage.Close(); err != nil {
				t.Error(err)
			}
			same(t, digests(t, run), want)
		})
	}
}

// waitFor waits until what is wanted is there, for as long as a test may take.
func waitFor(t testing.TB, what string, there func() bool) {
	t.Helper()
	for range 30_000 {
		if there() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
}

// TestTaskTimeout: an attempt that takes too long is tried again.
func TestTaskTimeout(t *testing.T) {
	r := world(t, pictures(t, 60), onnxtest.Classifier{}, nil)
	r.Through(t, r.Run, list.Name)
	r.Images = down(t, r, &buckettest.Faults{Stall: 20})
	r.Job.Timeouts.Task, r.Job.Retries.Task = pipeline.Duration(300*time.Millisecond), 2
	run, seen := observed(t, r, "run-1")
	err := attempt(context.Background(), t, r, run)
	fails(t, err, pipeline.Transient, "timeouts.task")
	if seen.retried.Load() != 1 {
		t.Errorf("%d repetitions, want 1", seen.retried.Load())
	}
}
