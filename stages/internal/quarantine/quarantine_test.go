package quarantine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/quarantine"
)

// stage is one task that does what a test wants.
type stage struct {
	do func(context.Context, *pipeline.Attempt) error
}

func (s *stage) Name() string { return "extract" }
func (s *stage) Plan(context.Context, *pipeline.Run) ([]pipeline.Task, error) {
	return []pipeline.Task{{ID: "00007"}}, nil
}
func (s *stage) Do(ctx context.Context, _ pipeline.Task, a *pipeline.Attempt) error {
	return s.do(ctx, a)
}

// perform runs the task and returns the run.
func perform(t *testing.T, do func(context.Context, *pipeline.Attempt) error) *pipeline.Run {
	t.Helper()
	job := pipeline.DefaultJob()
	job.Local.Dir = t.TempDir()
	work := bucket.New(memblob.OpenBucket(nil), "mem://", bucket.Options{})
	t.Cleanup(func() { work.Close() })
	run, err := pipeline.Open(context.Background(), work, pipeline.Options{Job: job, RunID: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&pipeline.Runner{Pause: time.Millisecond}).Run(context.Background(), run, &stage{do}); err != nil {
		t.Fatal(err)
	}
	return run
}

func TestTable(t *testing.T) {
	row := int64(5)
	run := perform(t, func(ctx context.Context, a *pipeline.Attempt) error {
		q := quarantine.New(a, "extract-00007")
		if q.Rows() != 0 || q.Summary() != "none" {
			t.Errorf("%d rows at first: %s", q.Rows(), q.Summary())
		}
		for _, r := range []schemas.Quarantine{
			{Row: &row, Key: "a.png", Stage: "extract", Class: "format", Message: "begins with \xff\xfe, not an image"},
			{Key: "b.tar", Member: "c d.png", Stage: "extract", Class: "truncated", Message: "ends too early"},
			{Key: "b.tar", Member: "e.png", Stage: "extract", Class: "format", Message: "no image"},
		} {
			if err := q.Add(r); err != nil {
				return err
			}
		}
		for _, want := range []string{"format 2, truncated 1", `"a.png"`, "begins with"} {
			if !strings.Contains(q.Summary(), want) {
				t.Errorf("%q is not in %q", want, q.Summary())
			}
		}
		if q.Rows() != 3 {
			t.Errorf("%d rows, want 3", q.Rows())
		}
		err := q.Finish(ctx)
		q.Abort() // does nothing any more
		return err
	})
	commits, err := run.AllCommits(context.Background())
	if err != nil || len(commits) != 1 || len(commits[0].Outputs) != 1 {
		t.Fatalf("%v, %v", commits, err)
	}
	o := commits[0].Outputs[0]
	if o.Name != "quarantine/part-extract-00007.parquet" || o.Rows != 3 {
		t.Errorf("%+v", o)
	}
	local, release, err := run.Fetch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var got []schemas.Quarantine
	if err := schemas.ReadQuarantine(local, func(q schemas.Quarantine) error { got = append(got, q); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Row == nil || *got[0].Row != 5 || got[1].Row != nil || got[1].Member != "c d.png" {
		t.Fatalf("%+v", got)
	}
	if got[0].Message != "begins with \uFFFD, not an image" {
		t.Errorf("message %q", got[0].Message)
	}
}

// TestNothingRejected: then there is no file.
func TestNothingRejected(t *testing.T) {
	run := perform(t, func(ctx context.Context, a *pipeline.Attempt) error {
		q := quarantine.New(a, "list")
		defer q.Abort()
		return q.Finish(ctx)
	})
	commits, err := run.AllCommits(context.Background())
	if err != nil || len(commits) != 1 || len(commits[0].Outputs) != 0 {
		t.Errorf("%v, %v", commits, err)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	perform(t, func(_ context.Context, a *pipeline.Attempt) error {
		q := quarantine.New(a, "list")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 100 {
					if err := q.Add(schemas.Quarantine{Key: "k", Stage: "list", Class: "empty", Message: "m"}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if q.Rows() != 800 {
			t.Errorf("%d rows, want 800", q.Rows())
		}
		q.Abort()
		q.Abort()
		left, err := os.ReadDir(a.Dir)
		if err != nil || len(left) > 0 {
			t.Errorf("%v in %s, %v", left, filepath.Base(a.Dir), err)
		}
		return nil
	})
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		rejected, all int64
		max           float64
		ok            bool
	}{{0, 0, 0, true}, {0, 10, 0, true}, {1, 10, 0, false}, {1, 10, 0.1, true}, {2, 10, 0.1, false}, {10, 10, 1, true}, {5, 0, 0.5, true}} {
		err := quarantine.Check(c.rejected, c.all, c.max)
		if (err == nil) != c.ok || err != nil && pipeline.ClassOf(err) != pipeline.Data {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
