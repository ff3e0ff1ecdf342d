package pipeline

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/pipeline/bucket"
)

// clock counts seconds.
func clock(seconds int) func(*Options) {
	return func(o *Options) {
		o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, seconds, 0, time.UTC) }
	}
}

func TestNewRun(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		run, _ := openRun(t, work, "", clock(5), func(o *Options) { o.Parent = "earlier" })
		if !strings.HasPrefix(run.Run, "20260102t030405z-") {
			t.Errorf("id is %s", run.Run)
		}
		raw, err := work.Get(t.Context(), run.Path("run.json"))
		if err != nil {
			t.Fatal(err)
		}
		rec, err := ParseRecord(raw, run.Run)
		if err != nil {
			t.Fatal(err)
		}
		if rec.JobDigest != run.Job.Digest() || rec.Provenance != testProvenance || rec.Parent != "earlier" || !rec.Created.Equal(run.Created) {
			t.Errorf("record is %+v", rec)
		}
		if diff := rec.Job.Difference(run.Job); len(diff) > 0 {
			t.Errorf("job differs: %v", diff)
		}
	})
}

func TestResume(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		first, _ := openRun(t, work, "", clock(1))
		second, _ := openRun(t, work, "newer", clock(2), func(o *Options) { o.Parent = "p" })
		again, _ := openRun(t, work, "", clock(3), func(o *Options) { o.Parent = "other" })
		if again.Run != "newer" || !again.Created.Equal(second.Created) || again.Parent != "p" || again.Finished {
			t.Errorf("resumes %s of %s with parent %s, finished %v", again.Run, again.Created, again.Parent, again.Finished)
		}
		if err := again.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		older, _ := openRun(t, work, "", clock(4))
		if older.Run != first.Run {
			t.Errorf("resumes %s, want the only unfinished one, %s", older.Run, first.Run)
		}
		finished, _ := openRun(t, work, "newer", clock(5))
		if !finished.Finished {
			t.Error("a finished run is not known to be finished")
		}
		if err := older.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		fresh, _ := openRun(t, work, "", clock(6))
		if fresh.Run == first.Run || fresh.Run == "newer" {
			t.Errorf("resumes finished run %s", fresh.Run)
		}
	})
}

func TestChangedSpecIsRefused(t *testing.T) {
	changes := map[string]struct {
		change func(*Options)
		want   string
	}{
		"field":         {func(o *Options) { o.Job.Solve.Lambda = 10 }, "solve.lambda: 25 → 10"},
		"size":          {func(o *Options) { o.Job.Preprocess.Crop = nil }, "preprocess.crop: 224 → 0"},
		"job":           {func(o *Options) { o.Job.Name = "other" }, "job: labels → other"},
		"model":         {func(o *Options) { o.Provenance.Model = "m2" }, "model digest: model → m2"},
		"library":       {func(o *Options) { o.Provenance.Library = "l2" }, "runtime library digest: library → l2"},
		"preprocessing": {func(o *Options) { o.Provenance.Preprocessing = "p2" }, "preprocessing fingerprint: pre → p2"},
		"code":          {func(o *Options) { o.Provenance.Code = "c2" }, "code version: code → c2"},
		"truth":         {func(o *Options) { o.Provenance.Truth = "t2" }, "digest of solve.truth:  → t2"},
		"processor":     {func(o *Options) { o.Provenance.Processor = "arm64" }, "processor class: amd64 → arm64"},
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			work := memory(t)
			openRun(t, work, "r", clock(1))
			opt := Options{Job: testJob(t), Provenance: testProvenance, RunID: "r"}
			c.change(&opt)
			_, err := Open(t.Context(), work, opt)
			if ClassOf(err) != Config || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "run r ") {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			left, events := openRun(t, work, "", clock(2), c.change)
			if left.Run == "r" {
				t.Error("a run of another identity is resumed")
			}
			if name != "job" && events.count(Notice) != 1 {
				t.Error("no notice of the run left behind")
			}
		})
	}
}

func TestFreeFieldsMayChange(t *testing.T) {
	work := memory(t)
	openRun(t, work, "r")
	run, _ := openRun(t, work, "", func(o *Options) {
		o.Job.Runtime.Threads, o.Job.Timeouts.Task, o.Job.Retries.Task = 7, Duration(time.Minute), 9
		o.Provenance.LibraryBuild = "its digest is the same"
	})
	if run.Run != "r" || run.Job.Retries.Task != 9 {
		t.Errorf("run %s has %d attempts", run.Run, run.Job.Retries.Task)
	}
}

func TestMustExist(t *testing.T) {
	work := memory(t)
	for _, id := range []string{"", "absent"} {
		_, err := Open(t.Context(), work, Options{Job: testJob(t), Provenance: testProvenance, RunID: id, MustExist: true})
		if ClassOf(err) != Config {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := Read(t.Context(), work, "absent"); ClassOf(err) != Config {
		t.Errorf("Read: %v", err)
	}
	if found := keys(t, work, ""); len(found) > 0 {
		t.Errorf("left %v", found)
	}
	openRun(t, work, "r")
	run, _ := openRun(t, work, "r", func(o *Options) { o.MustExist = true })
	if run.Run != "r" {
		t.Errorf("run is %s", run.Run)
	}
}

func TestBadRunIDs(t *testing.T) {
	for _, id := range []string{"../x", "a/b", ".hidden", "-x", "a b", "ü", strings.Repeat("x", 129), "a\x00"} {
		_, err := Open(t.Context(), memory(t), Options{Job: testJob(t), RunID: id})
		if ClassOf(err) != Usage {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestNoLocalFolder(t *testing.T) {
	job := testJob(t)
	job.Local.Dir = ""
	_, err := Open(t.Context(), memory(t), Options{Job: job})
	if ClassOf(err) != Config || !strings.Contains(err.Error(), "local.dir") {
		t.Errorf("error is %v", err)
	}
}

func TestRecords(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		for _, r := range []struct {
			id string
			at int
		}{{"b", 1}, {"a", 2}, {"d", 1}, {"c", 3}} {
			openRun(t, work, r.id, clock(r.at))
		}
		// A folder without a record is no run.
		if err := work.Put(t.Context(), "runs/stray/labels/x", []byte("x")); err != nil {
			t.Fatal(err)
		}
		finished, _ := openRun(t, work, "d")
		if err := finished.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		records, err := Records(t.Context(), work)
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, r := range records {
			order = append(order, r.Run)
			if r.Finished() != (r.Run == "d") {
				t.Errorf("run %s: finished is %v", r.Run, r.Finished())
			}
		}
		if strings.Join(order, " ") != "c a d b" {
			t.Errorf("order is %v", order)
		}
	})
}

func TestDamagedRecords(t *testing.T) {
	for name, c := range map[string]struct {
		json string
		want Class
	}{
		"cut off":       {`{"version": 1,`, Data},
		"other version": {`{"version": 2, "run": "r", "job": {}}`, Config},
		"no job":        {`{"version": 1, "run": "r"}`, Data},
		"other run":     {`{"version": 1, "run": "s", "job": {}}`, Data},
	} {
		work := memory(t)
		if err := work.Put(t.Context(), "runs/r/run.json", []byte(c.json)); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"", "r"} {
			_, err := Open(t.Context(), work, Options{Job: testJob(t), RunID: id})
			if ClassOf(err) != c.want || !strings.Contains(err.Error(), "run r") {
				t.Errorf("%s, %q: %v", name, id, err)
			}
		}
	}
}

// TestDiscardCutOff stops a discard after each of its deletions. What is left
// must be a run that was cut off earlier: a commit whose objects are all there,
// and no commit without those of the stages before it.
func TestDiscardCutOff(t *testing.T) {
	for cut := 1; ; cut++ {
		work := folder(t, t.TempDir())
		run, _ := openRun(t, work, "r")
		stages := []Stage{newFake("zero", 2, nil), newFake("middle", 2, nil), newFake("after", 2, nil)}
		for _, s := range stages {
			if _, err := (&Runner{}).Run(t.Context(), run, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := run.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		objects, err := deletionOrder(t.Context(), work, "r")
		if err != nil {
			t.Fatal(err)
		}
		if cut > len(objects) {
			break
		}
		for _, o := range objects[:cut] {
			if err := work.Delete(t.Context(), o.Key); err != nil {
				t.Fatal(err)
			}
		}
		if cut == len(objects) {
			if left := keys(t, work, "runs/"); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			break
		}
		again, _ := openRun(t, work, "")
		if again.Run != "r" || again.Finished {
			t.Fatalf("after %d deletions: run %s, finished %v", cut, again.Run, again.Finished)
		}
		outputs(t, again)
		complete := true
		for _, s := range stages {
			done, err := again.Committed(t.Context(), s.Name())
			if err != nil {
				t.Fatal(err)
			}
			if len(done) > 0 && !complete {
				t.Errorf("after %d deletions stage %s has commits, an earlier one lacks some", cut, s.Name())
			}
			complete = complete && len(done) == 2
			if _, err := (&Runner{}).Run(t.Context(), again, s); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(outputs(t, again)); n != 6 {
			t.Errorf("%d outputs after resuming", n)
		}
		if err := again.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := keys(t, work, "runs/"); len(left) > 0 {
			t.Errorf("discard left %v", left)
		}
	}
}

func TestRacingCreation(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		const n = 8
		runs := make([]*Run, n)
		errs := make([]error, n)
		var wait sync.WaitGroup
		for i := range n {
			job := testJob(t)
			wait.Go(func() {
				opt := Options{Job: job, Provenance: testProvenance, RunID: "r"}
				clock(i)(&opt)
				if i%2 == 1 {
					opt.Job.Solve.Lambda = 7
				}
				runs[i], errs[i] = Open(context.WithoutCancel(t.Context()), work, opt)
			})
		}
		wait.Wait()
		rec, err := readRecord(t.Context(), work, "r")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			same := (rec.Job.Solve.Lambda == 7) == (i%2 == 1)
			switch {
			case same && errs[i] != nil, !same && ClassOf(errs[i]) != Config:
				t.Errorf("process %d, same spec %v: %v", i, same, errs[i])
			case same && !runs[i].Created.Equal(rec.Created):
				t.Errorf("process %d has another record", i)
			}
		}
	})
}

func TestReadOnlyRunCannotFetch(t *testing.T) {
	work := memory(t)
	openRun(t, work, "r")
	run, err := Read(t.Context(), work, "r")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := run.Fetch(t.Context(), Output{Name: "x"}); err == nil || errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}
