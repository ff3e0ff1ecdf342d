package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/pipeline/bucket"
)

const long = time.Hour

// stranger is a holder on another machine, of which nobody knows whether it lives.
func stranger(n int) Holder {
	return Holder{Host: fmt.Sprint("host-", n), System: "boot", PID: n + 1, Started: "1"}
}

func take(t *testing.T, work *bucket.Bucket, run string, alone bool, h Holder, ttl time.Duration) *Lease {
	t.Helper()
	l, err := acquire(t.Context(), work, "job", run, alone, h, ttl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

func refused(t *testing.T, work *bucket.Bucket, run string, alone bool, h Holder, names ...string) {
	t.Helper()
	l, err := acquire(t.Context(), work, "job", run, alone, h, long)
	if err == nil {
		_ = l.Release(t.Context())
	}
	if ClassOf(err) != Transient {
		t.Errorf("run %s: want a refusal, have %v", run, err)
		return
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

func release(t *testing.T, l *Lease) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLease(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		first := take(t, work, "a", true, stranger(1), long)
		refused(t, work, "b", false, stranger(2), "job job", "run a", "process 2", "host-1")
		refused(t, work, "a", true, stranger(2), "run a")
		second := take(t, work, "a", false, stranger(2), long)
		third := take(t, work, "a", false, stranger(3), long)
		release(t, first)
		refused(t, work, "b", false, stranger(4), "run a")
		release(t, third)
		refused(t, work, "b", false, stranger(4), "run a")
		fourth := take(t, work, "a", false, stranger(4), long)
		release(t, second)
		refused(t, work, "b", true, stranger(5), "host-4")
		release(t, fourth)
		next := take(t, work, "b", true, stranger(5), long)
		refused(t, work, "a", false, stranger(1), "run b")
		release(t, next)
		if left := keys(t, work, "leases/"); len(left) != 1 {
			t.Errorf("left %v", left)
		}
		take(t, work, "a", true, stranger(1), long)
	})
}

func TestLeasesOfJobsAreTheirOwn(t *testing.T) {
	work := memory(t)
	for _, job := range []string{"a", "a-b", "a0"} {
		l, err := acquire(t.Context(), work, job, "r-"+job, true, stranger(1), long)
		if err != nil {
			t.Fatal(err)
		}
		defer release(t, l)
	}
}

func TestRunLease(t *testing.T) {
	work := memory(t)
	run, _ := openRun(t, work, "a")
	if h, err := LeaseHolder(t.Context(), work, run.Job.Name); h != nil || err != nil {
		t.Errorf("holder is %v, %v", h, err)
	}
	l, err := run.Acquire(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := openRun(t, work, "b")
	if _, err := other.Acquire(t.Context(), false); ClassOf(err) != Transient {
		t.Errorf("error is %v", err)
	}
	before := keys(t, work, "leases/")
	h, err := LeaseHolder(t.Context(), work, run.Job.Name)
	if err != nil || h == nil || h.Run != "a" || h.Holder != Self() {
		t.Errorf("holder is %v, %v", h, err)
	}
	if after := keys(t, work, "leases/"); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("looking changes %v to %v", before, after)
	}
	release(t, l)
}

// renewed waits until the lease's only record says a later time than at first.
func renewed(t *testing.T, work *bucket.Bucket) {
	t.Helper()
	expires := func() time.Time {
		raw, err := work.Get(t.Context(), keys(t, work, "leases/")[0])
		if err != nil {
			t.Fatal(err)
		}
		var m member
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		return m.Expires
	}
	for first := expires(); !expires().After(first); {
		time.Sleep(5 * time.Millisecond)
	}
}

func TestExpiry(t *testing.T) {
	work := memory(t)
	l := take(t, work, "a", true, stranger(1), 300*time.Millisecond)
	renewed(t, work)
	l.stop() // as if its process had been killed
	<-l.ended
	for {
		next, err := acquire(t.Context(), work, "job", "b", true, stranger(2), long)
		if err == nil {
			release(t, next)
			break
		}
		if ClassOf(err) != Transient {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestDeadHolders(t *testing.T) {
	self := Self()
	if self.Started == "" || self.System == "" {
		t.Skip("this system does not tell when a process started, or in which space")
	}
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	unwaited := Holder{self.Host, self.System, child.Process.Pid, processStart(child.Process.Pid)}
	if unwaited.Started == "" {
		t.Skip("the child was faster")
	}
	for { // until it is a zombie: its start time can still be read then
		if processStart(child.Process.Pid) == "" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	reused := self
	reused.Started = "1"
	reap := func() { _ = child.Wait() }
	for _, c := range []struct {
		name string
		h    Holder
		dead bool
	}{
		{"itself", self, false},
		{"not waited for", unwaited, true},
		{"number in use again", reused, true},
		{"other host", Holder{"elsewhere", self.System, reused.PID, "1"}, false},
		{"other boot or container", Holder{self.Host, "other", reused.PID, "1"}, false},
		{"unknown system", Holder{self.Host, "", reused.PID, "1"}, false},
	} {
		work := memory(t)
		l := take(t, work, "a", true, c.h, long)
		l.stop()
		<-l.ended
		if c.dead {
			take(t, work, "b", true, self, long)
		} else {
			refused(t, work, "b", true, self, "run a")
		}
	}
	reap()
	if !unwaited.dead(self) {
		t.Error("a process that is gone is not known to be dead")
	}
}

// TestRacingRuns lets runs fight for a lease again and again: never may two
// have it.
func TestRacingRuns(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		for round := range 6 {
			const n = 16
			leases := make([]*Lease, n)
			errs := make([]error, n)
			var wait sync.WaitGroup
			start := make(chan struct{})
			for i := range n {
				wait.Go(func() {
					<-start
					leases[i], errs[i] = acquire(t.Context(), work, "job", fmt.Sprint("run-", i), i%2 == 0, stranger(i), long)
				})
			}
			close(start)
			wait.Wait()
			var winner *Lease
			for i, err := range errs {
				switch {
				case err == nil && winner != nil:
					t.Errorf("round %d has two winners", round)
				case err == nil:
					winner = leases[i]
				case ClassOf(err) != Transient:
					t.Error(err)
				}
			}
			if winner == nil {
				t.Fatalf("round %d has no winner", round)
			}
			release(t, winner)
		}
	})
}

// TestRacingMembers mixes joining, leaving and other runs, and counts at every
// moment whose lease it is.
func TestRacingMembers(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		var mu sync.Mutex
		holding := map[string]int{}
		taken := map[string]int{}
		var wait sync.WaitGroup
		for i := range 9 {
			run := fmt.Sprint("run-", i%3)
			wait.Go(func() {
				for range 12 {
					l, err := acquire(t.Context(), work, "job", run, false, stranger(i), long)
					if err != nil {
						if ClassOf(err) != Transient {
							t.Error(err)
						}
						continue
					}
					mu.Lock()
					holding[run]++
					taken[run]++
					if len(holding) > 1 {
						t.Errorf("held by %v", holding)
					}
					mu.Unlock()
					time.Sleep(time.Millisecond)
					mu.Lock()
					if holding[run]--; holding[run] == 0 {
						delete(holding, run)
					}
					mu.Unlock()
					if err := l.Release(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		if len(taken) == 0 {
			t.Error("nobody ever had it")
		}
	})
}

func TestDamagedLease(t *testing.T) {
	for key, content := range map[string]string{
		"leases/job/000000000001.json":    "{",
		"leases/job/000000000001/ab.json": "not json",
		"leases/job/notes.txt":            "x",
	} {
		work := memory(t)
		if err := work.Put(t.Context(), key, []byte(content)); err != nil {
			t.Fatal(err)
		}
		_, err := acquire(t.Context(), work, "job", "a", true, stranger(1), long)
		_, err2 := LeaseHolder(t.Context(), work, "job")
		for _, err := range []error{err, err2} {
			if ClassOf(err) != Data || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
}

func TestLeaseOutlivesItsContext(t *testing.T) {
	work := memory(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := acquire(ctx, work, "job", "a", true, stranger(1), 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	renewed(t, work)
	release(t, l)
	take(t, work, "b", true, stranger(2), long)
	if _, err := acquire(ctx, work, "job", "c", true, stranger(3), long); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// A loop holds its job's lease under a name that no run has, for all its rounds.
func TestLoopLease(t *testing.T) {
	both(t, func(t *testing.T, work *bucket.Bucket) {
		round, _ := openRun(t, work, "l-r000", func(o *Options) { o.Loop = "l" })
		same, _ := openRun(t, work, "l")
		job := round.Job.Name
		lease, err := AcquireLoop(t.Context(), work, job, "l")
		if err != nil {
			t.Fatal(err)
		}
		for name, acquire := range map[string]func() (*Lease, error){
			"the loop again":         func() (*Lease, error) { return AcquireLoop(t.Context(), work, job, "l") },
			"another loop":           func() (*Lease, error) { return AcquireLoop(t.Context(), work, job, "m") },
			"a run of the same name": func() (*Lease, error) { return same.Acquire(t.Context(), false) },
		} {
			if _, err := acquire(); ClassOf(err) != Transient || !strings.Contains(err.Error(), "held by loop l (process") {
				t.Errorf("%s: %v", name, err)
			}
		}
		h, err := LeaseHolder(t.Context(), work, job)
		if err != nil || h == nil || h.Name() != "loop l" || !h.Holds(&round.Record) || h.Holds(&same.Record) {
			t.Errorf("holder %+v, %v", h, err)
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		run, err := same.Acquire(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := AcquireLoop(t.Context(), work, job, "l"); ClassOf(err) != Transient || !strings.Contains(err.Error(), "held by run l (process") {
			t.Errorf("beside a run: %v", err)
		}
		if err := run.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
