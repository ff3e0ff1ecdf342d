package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(seconds float64, took float64, rows int64) ending {
		return ending{start.Add(time.Duration(seconds * 1e9)), took, rows}
	}
	old := []ending{at(-40000, 10, 1)} // before a night's pause
	var busy []ending
	for i := range recent {
		busy = append(busy, at(float64(10*(recent-i)), 20, 100)) // two at a time, in any order
	}
	for name, c := range map[string]struct {
		ended []ending
		want  float64
	}{
		"none": {nil, 0}, "one": {[]ending{at(5, 4, 100)}, 25}, "side by side": {[]ending{at(10, 10, 100), at(11, 11, 120)}, 20},
		"the newest": {append(old, busy...), 100 * recent / (10*recent + 10.0)}, "no rows": {[]ending{at(1, 1, 0)}, 0}, "no time": {[]ending{at(1, 0, 7)}, 0},
	} {
		if got := rate(c.ended); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v rows per second, want %v", name, got, c.want)
		}
	}
}

func TestStatusOfARun(t *testing.T) {
	r := newRig(t)
	r.want(0, "list", "job.yaml", "--run-id", "one")
	status := func() (outcome, map[string]any) {
		out := r.want(0, "status", "job.yaml", "--run-id", "one")
		return out, out.result["stages"].(map[string]any)
	}
	out, stages := status()
	if out.result["stage"] != "extract" || out.result["state"] != "unfinished" || len(stages) != 1 || stages["list"].(map[string]any)["of"] != 1.0 {
		t.Errorf("after list: %v", out.result)
	}
	r.want(0, "extract", "job.yaml", "--run-id", "one")
	out, stages = status()
	extract := stages["extract"].(map[string]any)
	if !strings.Contains(out.stderr, fmt.Sprintf("%d images", fixtureImages)) {
		t.Errorf("no count of images: %s", out.stderr)
	}
	if out.result["stage"] != "solve" || extract["tasks"] != 1.0 || extract["of"] != 1.0 || extract["rows"] != float64(fixtureImages) || extract["of_rows"] != float64(fixtureImages) || extract["rows_per_second"].(float64) <= 0 {
		t.Errorf("after extract: %v", out.result)
	}
	if out.result["extract_time"] == nil || !strings.Contains(out.stderr, "extract waited") {
		t.Errorf("no word of where the time went: %s", out.stderr)
	}
	// While a process is at it, its name is told; the run that it keeps waiting
	// has the name of the other.
	cmd, stdout, stderr := r.command("run", "job.yaml", "--run-id", "two")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/leases/test/*.json")
	out, _ = status()
	if holder, ok := out.result["holder"].(map[string]any); ok { // it may have ended already
		if holder["run"] != "run two" || holder["pid"] != float64(cmd.Process.Pid) || !strings.Contains(out.stderr, "the job is held by run two") {
			t.Errorf("holder %v: %s", holder, out.stderr)
		}
	}
	if done := r.outcome(cmd, cmd.Wait(), stdout, stderr); done.code != 0 {
		t.Fatalf("exit %d: %s", done.code, done.stderr)
	}
	r.want(0, "run", "job.yaml", "--run-id", "one")
	out, stages = status()
	labels := stages["label"].(map[string]any)
	if out.result["state"] != "finished" || out.result["stage"] != nil || out.result["holder"] != nil || labels["tasks"] != 2.0 || labels["of"] != 2.0 || labels["rows"] != labels["of_rows"] {
		t.Errorf("finished: %v", out.result)
	}
	for name, s := range stages {
		if stage := s.(map[string]any); stage["tasks"] != stage["of"] {
			t.Errorf("stage %s: %v", name, stage)
		}
	}
}
