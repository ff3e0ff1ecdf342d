package pipeline

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"sela/pipeline/bucket"
)

// archive makes a work bucket with the runs of a few rounds, oldest first.
func archive(t *testing.T, work *bucket.Bucket, finished ...bool) {
	t.Helper()
	for i, done := range finished {
		run, _ := openRun(t, work, string(rune('a'+i)), clock(i))
		stage := newFake("s", 2, func(ctx context.Context, task Task, a *Attempt) error {
			for _, folder := range []string{"logprobs/head-0", "features", "sample", "potentials"} {
				if err := put(ctx, a, folder+"/part-"+task.ID+".parquet", folder+task.ID); err != nil {
					return err
				}
			}
			return nil
		})
		if _, err := (&Runner{}).Run(t.Context(), run, stage); err != nil {
			t.Fatal(err)
		}
		for _, stray := range []string{"logprobs/head-0/part-00000.ffffffffffff.parquet", "checkpoints/head-0.json"} {
			if err := work.Put(t.Context(), run.Path(stray), []byte("stray")); err != nil {
				t.Fatal(err)
			}
		}
		if done {
			if err := run.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func collected(t *testing.T, work *bucket.Bucket, policy string, abandoned bool) map[string]int {
	t.Helper()
	job := testJob(t)
	job.Keep.LogProbs = policy
	garbage, err := FindGarbage(t.Context(), work, job, abandoned)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, g := range garbage {
		out[g.Run] = g.Objects
		if g.Reason == "" || g.Bytes == 0 || len(g.keys) != g.Objects {
			t.Errorf("garbage is %+v", g)
		}
	}
	return out
}

func TestKeepPolicies(t *testing.T) {
	work := memory(t)
	archive(t, work, true, false, true, true, false)
	const strays, bulk, whole = 2, 6, 15
	for _, c := range []struct {
		policy    string
		abandoned bool
		want      map[string]int
	}{
		{"always", false, map[string]int{"a": strays, "c": strays, "d": strays}},
		{"until_published", false, map[string]int{"a": strays + bulk, "c": strays + bulk, "d": strays + bulk}},
		{"1", false, map[string]int{"a": strays + bulk, "c": strays + bulk, "d": strays}},
		{"2", false, map[string]int{"a": strays + bulk, "c": strays, "d": strays}},
		{"9", false, map[string]int{"a": strays, "c": strays, "d": strays}},
		// Run e is unfinished, but no later one is finished.
		{"always", true, map[string]int{"a": strays, "b": whole, "c": strays, "d": strays}},
	} {
		got := collected(t, work, c.policy, c.abandoned)
		if len(got) != len(c.want) {
			t.Errorf("%s, abandoned %v: %v, want %v", c.policy, c.abandoned, got, c.want)
		}
		for run, n := range c.want {
			if got[run] != n {
				t.Errorf("%s, abandoned %v: %d objects of run %s, want %d", c.policy, c.abandoned, got[run], run, n)
			}
		}
	}
}

func TestDeleteGarbage(t *testing.T) {
	work := folder(t, t.TempDir())
	archive(t, work, true, false, true)
	job := testJob(t)
	garbage, err := FindGarbage(t.Context(), work, job, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range garbage {
		if err := g.Delete(t.Context(), work); err != nil {
			t.Fatal(err)
		}
	}
	if got := collected(t, work, "1", true); len(got) > 0 {
		t.Errorf("still there: %v", got)
	}
	if left := keys(t, work, "runs/b/"); len(left) > 0 {
		t.Errorf("left %v of an abandoned run", left)
	}
	for _, run := range []string{"a", "c"} {
		found := keys(t, work, "runs/"+run+"/")
		bulk := 0
		for _, k := range found {
			if strings.Contains(k, "logprobs/") || strings.Contains(k, "features/") || strings.Contains(k, "sample/") {
				bulk++
			}
		}
		if !slices.Contains(found, "runs/"+run+"/_SUCCESS") || (bulk > 0) != (run == "c") {
			t.Errorf("run %s keeps %v", run, found)
		}
	}
	kept, _ := openRun(t, work, "c")
	if n := len(outputs(t, kept)); n != 10 {
		t.Errorf("the newest run keeps %d outputs", n)
	}
}

func TestOtherJobsAreLeftAlone(t *testing.T) {
	work := memory(t)
	archive(t, work, true, true)
	job := testJob(t)
	job.Name, job.Keep.LogProbs = "other", "until_published"
	garbage, err := FindGarbage(t.Context(), work, job, true)
	if err != nil || len(garbage) > 0 {
		t.Errorf("garbage of another job: %v, %v", garbage, err)
	}
}

// A round's network is needed until a later round has one, whatever retention
// says; the round at which a loop stands is not abandoned.
func TestRetentionOfALoop(t *testing.T) {
	work := memory(t)
	round := func(id, loop string, at int, network, done bool) {
		t.Helper()
		run, _ := openRun(t, work, id, clock(at), func(o *Options) { o.Loop = loop })
		stage := newFake("train", 1, func(ctx context.Context, _ Task, a *Attempt) error {
			if !network {
				return nil
			}
			for _, name := range []string{"model/trained.onnx", "model/checkpoint.sela", "model/metrics.csv"} {
				if err := put(ctx, a, name, name); err != nil {
					return err
				}
			}
			return nil
		})
		if _, err := (&Runner{}).Run(t.Context(), run, stage); err != nil {
			t.Fatal(err)
		}
		if done {
			if err := run.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	round("l-r000", "l", 0, true, true)
	round("l-r001", "l", 1, true, true)
	round("l-r002", "l", 2, false, true)
	round("m-r000", "m", 3, true, true)
	round("m-r001", "m", 4, true, false)
	round("single", "", 5, true, true)
	for _, c := range []struct {
		policy   string
		finished string // loop
		want     map[string]int
	}{
		{"until_published", "", map[string]int{"l-r000": 2}},
		{"1", "", map[string]int{"l-r000": 2}},
		{"2", "", map[string]int{}},
		{"always", "", map[string]int{}},
		{"always", "m", map[string]int{"m-r001": 6}},
	} {
		if c.finished != "" {
			if err := work.Put(t.Context(), LoopPath(c.finished, "_SUCCESS"), nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := collected(t, work, c.policy, true); !maps.Equal(got, c.want) {
			t.Errorf("%s, with loop %q finished: %v, want %v", c.policy, c.finished, got, c.want)
		}
	}
}

// A round is resumed by its loop alone.
func TestRoundsBelongToTheirLoop(t *testing.T) {
	work := memory(t)
	loop := func(name string) func(*Options) { return func(o *Options) { o.Loop = name } }
	openRun(t, work, "l-r000", clock(0), loop("l"))
	if run, _ := openRun(t, work, "", clock(1)); run.Run == "l-r000" {
		t.Error("a run of its own resumed a round of a loop")
	}
	if run, _ := openRun(t, work, "l-r000", clock(2), loop("l")); run.Loop != "l" {
		t.Errorf("resumed as a round of %q", run.Loop)
	}
	_, err := Open(t.Context(), work, Options{Job: testJob(t), Provenance: testProvenance, RunID: "l-r000"})
	if ClassOf(err) != Config || !strings.Contains(err.Error(), `round of loop "l"`) {
		t.Errorf("taken for a run of its own: %v", err)
	}
}
