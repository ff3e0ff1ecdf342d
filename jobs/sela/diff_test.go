package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	r := newRig(t)
	r.want(0, "run", "job.yaml", "--run-id", "one")
	r.job("solve: {lambda: 5}", "images: {bucket: "+filepath.Join(fixture.dir, "images")+", glob: '[01]/**'}")
	r.want(0, "run", "job.yaml", "--run-id", "two")

	out := r.want(0, "diff", "one", "two", "--labels", "job.yaml", "--moved", "2")
	if n := strings.Count(out.stdout, "\n"); n != 1 {
		t.Errorf("stdout has %d lines, want the result alone", n)
	}
	heads := out.result["heads"].([]any)
	if len(heads) != 2 || out.result["same"] != false {
		t.Fatalf("result %v", out.result)
	}
	sum := 0.0
	for h, v := range heads {
		head := v.(map[string]any)
		churn, matched, nmi := head["churn"].(float64), head["churn_matched"].(float64), head["nmi"].(float64)
		if head["head"] != float64(h) || head["images"] != fixtureImages*2/3.0 || head["only_earlier"] != fixtureImages/3.0 || head["only_later"] != 0.0 {
			t.Errorf("images of head %d: %v", h, head)
		}
		if !(churn > 0 && churn < 1 && matched > 0 && matched <= churn && nmi > 0 && nmi < 1) || len(head["moved"].([]any)) > 2 {
			t.Errorf("head %d: %v", h, head)
		}
		sum += churn
	}
	if mean := out.result["churn"].(float64); math.Abs(mean-sum/2) > 1e-12 {
		t.Errorf("mean churn %v, of heads that sum to %v", mean, sum)
	}
	for _, must := range []string{"CHURN", "MATCHED", "mean", "IS NOW"} {
		if !strings.Contains(out.stderr, must) {
			t.Errorf("no %q for people: %s", must, out.stderr)
		}
	}
	// By folder, by URL, and from a bucket of labels, it is the same.
	folder := func(run string) string { return r.path("labels/runs/" + run) }
	for _, args := range [][]string{
		{folder("one"), folder("two")},
		{"labels/runs/one/", "file://" + folder("two")},
		{"one", folder("two"), "--labels", "labels"},
	} {
		if same := r.want(0, append([]string{"diff"}, args...)...); same.result["churn"] != out.result["churn"] || same.result["nmi"] != out.result["nmi"] {
			t.Errorf("%v: %v", args, same.result)
		}
	}
	self := r.want(0, "diff", folder("one"), folder("one"))
	if self.result["churn"] != 0.0 || self.result["churn_matched"] != 0.0 || self.result["nmi"] != 1.0 || self.result["same"] != true {
		t.Errorf("a run with itself: %v", self.result)
	}
	if left, err := filepath.Glob(r.path("local/attempts/*/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, c := range []struct {
		code int
		args []string
		says string
	}{
		{64, []string{"one", "two"}, "--labels"},
		{64, []string{folder("one")}, "arg"},
		{64, []string{"labels", folder("two")}, "names no run"},
		{64, []string{"../one", "two", "--labels", "job.yaml"}, "../one"},
		{64, []string{"one", "two", "--labels", folder("one")}, "names run one"},
		{64, []string{"one", "two", "--labels", "labels", "--moved", "-1"}, "--moved"},
		{78, []string{"one", "three", "--labels", "job.yaml"}, "three is not published"},
		{78, []string{"one", "two", "--labels", "none.yaml"}, "none.yaml"},
		{78, []string{folder("one"), "gopher://host/runs/x"}, "gopher"},
	} {
		if out := r.want(c.code, append([]string{"diff"}, c.args...)...); !strings.Contains(out.stderr, c.says) {
			t.Errorf("%v: stderr does not mention %q: %s", c.args, c.says, out.stderr)
		}
	}
}

// A gate stops labels before they are published and before training is
// triggered; the run goes on once its bound was changed.
func TestGateStopsARun(t *testing.T) {
	train := "train: {type: command, command: [sh, -c, 'echo $SELA_RUN >> trained']}"
	r := newRig(t, train, "gate: {max_churn: 0, min_nmi: 1}")
	first := r.want(0, "run", "job.yaml", "--run-id", "first")
	if !strings.Contains(first.stderr, "no run before to compare with") {
		t.Errorf("the first run says nothing of a silent gate: %s", first.stderr)
	}
	r.job(train, "gate: {max_churn: 0.001, min_nmi: 0.999}", "solve: {lambda: 5}")
	stopped := r.want(65, "run", "job.yaml")
	for _, must := range []string{"gate.max_churn allows 0.001", "gate.min_nmi asks for 0.999", "run first", "run the same command again"} {
		if !strings.Contains(stopped.result["error"].(string), must) {
			t.Errorf("the error does not say %q: %v", must, stopped.result["error"])
		}
	}
	runs, err := os.ReadDir(r.path("labels/runs"))
	if err != nil || len(runs) != 1 || !strings.Contains(file(t, r.path("labels/LATEST")), `"first"`) {
		t.Errorf("%d published runs, %v", len(runs), err)
	}
	if got := file(t, r.path("trained")); got != "first\n" {
		t.Errorf("trained on %q", got)
	}
	// Still stopped, whichever way it is gone about; nothing is made anew.
	r.want(65, "run", "job.yaml")
	unfinished := r.unfinished()
	if len(unfinished) != 1 {
		t.Fatalf("unfinished runs %v", unfinished)
	}
	id := unfinished[0]
	r.want(65, "publish", "job.yaml", "--run-id", id)
	before := r.modified("work/runs/" + id + "/commits/*/*.json")
	r.job(train, "gate: {max_churn: 1, min_nmi: 0}", "solve: {lambda: 5}")
	done := r.want(0, "run", "job.yaml")
	if done.result["run"] != id {
		t.Errorf("run %v went on, not %s", done.result["run"], id)
	}
	after := r.modified("work/runs/" + id + "/commits/*/*.json")
	for name, at := range before {
		if after[name] != at {
			t.Errorf("%s was made anew", name)
		}
	}
	if got := file(t, r.path("trained")); got != "first\n"+id+"\n" {
		t.Errorf("trained on %q", got)
	}
	r.want(0, "verify", "job.yaml", "--no-model")
	// A gate is no part of what the labels are.
	r.job(train, "gate: {max_churn: 0.5, max_quarantine: 0.2}", "solve: {lambda: 5}")
	r.want(99, "run", "job.yaml")
}

func TestGateStopsALoop(t *testing.T) {
	r := loopRig(t, "", "gate: {max_churn: 0.001}")
	out := r.want(65, "loop", "job.yaml", "--rounds", "1", "--loop-id", "one")
	if !strings.Contains(out.stderr, "round 1 (run one-r001)") || !strings.Contains(out.stderr, "than in run one-r000") {
		t.Errorf("stderr %s", out.stderr)
	}
	if _, err := os.Stat(r.path("labels/runs/one-r001")); err == nil {
		t.Error("the labels were published")
	}
	r.loopJob("", "gate: {max_churn: 1}")
	if done := r.want(0, "loop", "job.yaml", "--rounds", "1"); done.result["loop"] != "one" {
		t.Errorf("result %v", done.result)
	}
}

// unfinished returns the ids of runs without _SUCCESS.
func (r *rig) unfinished() (ids []string) {
	r.t.Helper()
	runs, err := os.ReadDir(r.path("work/runs"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, run := range runs {
		if _, err := os.Stat(r.path("work/runs/" + run.Name() + "/_SUCCESS")); err != nil {
			ids = append(ids, run.Name())
		}
	}
	return ids
}

// modified returns when files were written last, in nanoseconds.
func (r *rig) modified(pattern string) map[string]int64 {
	r.t.Helper()
	found, err := filepath.Glob(r.path(pattern))
	if err != nil || len(found) == 0 {
		r.t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	at := map[string]int64{}
	for _, path := range found {
		info, err := os.Stat(path)
		if err != nil {
			r.t.Fatal(err)
		}
		at[path] = info.ModTime().UnixNano()
	}
	return at
}
