package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestRunPublishesOnce(t *testing.T) {
	r := newRig(t)
	out := r.want(0, "run", "job.yaml", "--run-id", "one")
	if out.result["run"] != "one" || out.result["status"] != "done" || out.result["manifest_digest"] == nil {
		t.Fatalf("result %v", out.result)
	}
	if n := strings.Count(out.stdout, "\n"); n != 1 {
		t.Errorf("stdout has %d lines, want the result alone", n)
	}
	labels := r.published("one")
	if len(labels) != 2 {
		t.Fatalf("%d label files, want one per head", len(labels))
	}
	if again := r.want(0, "run", "job.yaml", "--run-id", "one"); again.result["status"] != "done before" ||
		again.result["manifest_digest"] != out.result["manifest_digest"] {
		t.Errorf("a finished run again: %v", again.result)
	}
	// Nothing has changed since: a schedule has nothing to do, and leaves nothing.
	if nothing := r.want(99, "run", "job.yaml"); nothing.result["run"] != "one" {
		t.Errorf("nothing new: %v", nothing.result)
	}
	if nothing := r.want(99, "list", "job.yaml"); nothing.result["run"] != "one" {
		t.Errorf("nothing new to list: %v", nothing.result)
	}
	runs, err := os.ReadDir(r.path("work/runs"))
	if err != nil || len(runs) != 1 {
		t.Errorf("%d runs in the work bucket (%v), want 1", len(runs), err)
	}
	r.want(0, "verify", "job.yaml")
	r.want(0, "status", "job.yaml", "--run-id", "one")
	// Another spec under the same id is another run.
	r.job("solve: {lambda: 10}")
	refused := r.want(78, "run", "job.yaml", "--run-id", "one")
	if !strings.Contains(refused.stderr, "solve.lambda: 25 → 10") {
		t.Errorf("the difference is not named: %s", refused.stderr)
	}
	second := r.want(0, "run", "job.yaml")
	if second.result["run"] == "one" {
		t.Error("a changed spec must start a new run")
	}
}

// Stages alone, on "machines" that share extract and label, make what one
// process makes.
func TestStagesAloneMakeTheSameLabels(t *testing.T) {
	r := newRig(t, "label: {max_count_ratio: 8, part_rows: 1024}")
	whole := r.want(0, "run", "job.yaml", "--run-id", "whole")
	r.want(0, "list", "job.yaml", "--run-id", "parts")
	if early := r.sela("solve", "job.yaml", "--run-id", "parts"); early.code != 75 || !strings.Contains(early.stderr, "extract") {
		t.Errorf("solve before extract: exit %d: %s", early.code, early.stderr)
	}
	for _, stage := range []string{"extract", "label"} {
		if stage == "label" {
			r.want(0, "solve", "job.yaml", "--run-id", "parts")
		}
		var group sync.WaitGroup
		for _, share := range []string{"0/2", "1/2"} {
			group.Go(func() {
				if out := r.sela(stage, "job.yaml", "--run-id", "parts", "--shard", share); out.code != 0 {
					t.Errorf("%s --shard %s: exit %d: %s", stage, share, out.code, out.stderr)
				}
			})
		}
		group.Wait()
	}
	r.want(0, "publish", "job.yaml", "--run-id", "parts")
	parts := r.want(0, "train", "job.yaml", "--run-id", "parts")
	if parts.result["manifest_digest"] != whole.result["manifest_digest"] {
		t.Errorf("manifest digests %v and %v", parts.result["manifest_digest"], whole.result["manifest_digest"])
	}
	same(t, r.published("parts"), r.published("whole"))
}

// Labels depend on what the images are, not on where they lie or when they were
// written.
func TestCopiedImagesGetTheSameTables(t *testing.T) {
	r := newRig(t)
	first := r.want(0, "run", "job.yaml", "--run-id", "original")
	if err := os.CopyFS(r.path("copy"), os.DirFS(filepath.Join(fixture.dir, "images"))); err != nil {
		t.Fatal(err)
	}
	r.job("images: {bucket: copy}", "job: copied")
	second := r.want(0, "run", "job.yaml", "--run-id", "copied")
	same(t, r.published("copied"), r.published("original"))
	if first.result["manifest_digest"] != second.result["manifest_digest"] {
		t.Errorf("manifest digests %v and %v", first.result["manifest_digest"], second.result["manifest_digest"])
	}
	// An object that is written anew is something new to look at.
	name := r.path("copy/0/0000.jpg")
	if found, _ := filepath.Glob(r.path("copy/0/0000.*")); len(found) == 1 {
		name = found[0]
	}
	if err := os.Chtimes(name, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.want(0, "run", "job.yaml")
	r.want(99, "run", "job.yaml")
}

func TestKilledAnywhereItContinues(t *testing.T) {
	r := newRig(t)
	start := time.Now()
	r.want(0, "run", "job.yaml", "--run-id", "undisturbed")
	whole := time.Since(start)
	kills := 0
	for trial := range 3 {
		id := []string{"a", "b", "c"}[trial]
		random := rand.New(rand.NewPCG(uint64(trial), 1))
		// The time to live grows, since the machine may have become slower
		// than it was for the undisturbed run.
		for try := 0; ; try++ {
			if try == 60 {
				t.Fatal("the run does not end")
			}
			cmd, stdout, stderr := r.command("run", "job.yaml", "--run-id", id)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(random.Float64()*float64(whole)*(1+float64(try)/8)), func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			out := r.outcome(cmd, err, stdout, stderr)
			if out.code == 0 {
				break
			}
			kills++
			if out.code != -1 {
				t.Fatalf("exit %d: %s", out.code, out.stderr)
			}
		}
		same(t, r.published(id), r.published("undisturbed"))
	}
	if kills == 0 {
		t.Error("no process was killed: the test shows nothing")
	}
	t.Logf("killed %d times", kills)
	r.want(0, "verify", "job.yaml", "--run-id", "a")
}

// Potentials belong to the λ they were solved with, and are looked up before
// anything is extracted; jobs that share a labels bucket have their own newest
// run.
func TestFixedLabelsByAPublishedRun(t *testing.T) {
	r := newRig(t)
	r.want(0, "run", "job.yaml", "--run-id", "solved")
	fixed := "solve: {method: fixed, from: solved, lambda: 25}"
	r.job("job: other", fixed)
	r.want(0, "run", "job.yaml", "--run-id", "fixed")
	if n := len(r.published("fixed")); n != 2 {
		t.Errorf("%d label files, want one per head", n)
	}
	r.job("job: other", "solve: {method: fixed, from: solved, lambda: 3}")
	if out := r.want(78, "run", "job.yaml", "--run-id", "cold"); !strings.Contains(out.stderr, "set it to 25") {
		t.Errorf("another lambda: %s", out.stderr)
	}
	r.job("job: other", "solve: {method: fixed, from: nobody, lambda: 25}")
	r.want(78, "plan", "job.yaml")
	r.want(78, "run", "job.yaml", "--run-id", "nobody")
	r.job()
	r.want(99, "run", "job.yaml") // LATEST is the other job's
}

// What the trigger is told may hold a secret, and may be mended in an
// unfinished run.
func TestTriggerIsNotPublishedAndMayChange(t *testing.T) {
	r := newRig(t, "train: {type: command, command: [sh, -c, 'exit 1 # SEKRET']}")
	failed := r.want(78, "run", "job.yaml")
	r.job("train: {type: command, command: [sh, -c, 'test -s $SELA_MANIFEST # SEKRET']}")
	r.want(0, "run", "job.yaml")
	runs, err := os.ReadDir(r.path("labels/runs"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("%d published runs, %v: the mended trigger must not start another (%v)", len(runs), err, failed.result["run"])
	}
	for _, name := range []string{"run.json", "README.md", "_manifest.json"} {
		raw, err := os.ReadFile(r.path("labels/runs/" + runs[0].Name() + "/" + name))
		if err != nil || strings.Contains(string(raw), "SEKRET") {
			t.Errorf("%s: %v; it must not hold the command", name, err)
		}
	}
	r.want(0, "verify", "job.yaml")
	left, err := filepath.Glob(r.path("local/attempts/*/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("scratch left behind: %v, %v", left, err)
	}
}

func TestSignalEndsAndTheSameCommandResumes(t *testing.T) {
	r := newRig(t)
	cmd, stdout, stderr := r.command("run", "job.yaml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/runs/*/commits/list/*.json")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	out := r.outcome(cmd, cmd.Wait(), stdout, stderr)
	if out.code != 128+int(syscall.SIGTERM) {
		t.Fatalf("exit %d, want 143: %s", out.code, out.stderr)
	}
	if out.result["class"] != "interrupted" {
		t.Errorf("result %v", out.result)
	}
	resumed := r.want(0, "run", "job.yaml")
	runs, _ := os.ReadDir(r.path("work/runs"))
	if len(runs) != 1 || resumed.result["run"] != runs[0].Name() {
		t.Errorf("%d runs; resumed %v", len(runs), resumed.result["run"])
	}
}

func TestOverlappingSchedules(t *testing.T) {
	r := newRig(t)
	first, stdout, stderr := r.command("run", "job.yaml")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/leases/test/*.json")
	for _, args := range [][]string{{"run", "job.yaml"}, {"run", "job.yaml", "--run-id", "other"}} {
		second := r.sela(args...)
		if second.code != 75 && first.ProcessState == nil {
			t.Errorf("%v beside a live run: exit %d, want 75: %s", args, second.code, second.stderr)
		}
		if second.code == 75 && !strings.Contains(second.stderr, "held by run") {
			t.Errorf("the holder is not named: %s", second.stderr)
		}
	}
	if out := r.outcome(first, first.Wait(), stdout, stderr); out.code != 0 {
		t.Fatalf("exit %d: %s", out.code, out.stderr)
	}
	r.want(0, "run", "job.yaml", "--run-id", "other")

	// A killed holder is none: nobody waits for its lease to run out.
	killed, _, _ := r.command("run", "job.yaml", "--run-id", "killed")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("work/runs/killed/commits/list/*.json")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // says that it was killed
	r.want(0, "run", "job.yaml", "--run-id", "next")
}

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		code int
		job  string
		args []string
		says string
	}{
		{"unknown flag", 64, "", []string{"run", "job.yaml", "--fast"}, "--fast"},
		{"unknown command", 64, "", []string{"fly"}, "fly"},
		{"no job", 64, "", []string{"run"}, "arg"},
		{"job file missing", 78, "", []string{"run", "none.yaml"}, "none.yaml"},
		{"shard", 64, "", []string{"extract", "job.yaml", "--shard", "2/2"}, "2/2"},
		{"run id", 64, "", []string{"run", "job.yaml", "--run-id", "../x"}, "run id"},
		{"no such run", 78, "", []string{"extract", "job.yaml", "--run-id", "none"}, "none"},
		{"empty bucket", 65, "images: {bucket: " + empty + "}", []string{"run", "job.yaml"}, "no images"},
		{"images bucket missing", 78, "images: {bucket: not-there}", []string{"run", "job.yaml"}, "not-there"},
		{"unknown field", 78, "solve: {lamda: 25}", []string{"run", "job.yaml"}, "lamda"},
		{"model missing", 78, "model: {path: none.onnx}", []string{"run", "job.yaml"}, "none.onnx"},
		{"heads", 78, "model: {path: " + filepath.Join(fixture.dir, "model.onnx") + ", heads: 3}", []string{"run", "job.yaml"}, "model.heads"},
		{"clusters", 78, "model: {path: " + filepath.Join(fixture.dir, "model.onnx") + ", clusters: 9}", []string{"run", "job.yaml"}, "model.clusters"},
		{"kind", 78, "model: {path: " + filepath.Join(fixture.dir, "model.onnx") + ", kind: probabilities}", []string{"run", "job.yaml"}, "model.kind"},
		{"size", 78, "preprocess: {resize: 0, crop: 64}", []string{"run", "job.yaml"}, "preprocess"},
		{"provider", 78, "runtime: {providers: [cuda]}", []string{"run", "job.yaml"}, "cuda"},
		{"does not converge", 78, "solve: {max_iterations: 1, tolerance: 1e-9}", []string{"run", "job.yaml"}, "max_iterations"},
		{"too unequal", 65, "label: {max_count_ratio: 1}", []string{"run", "job.yaml"}, "max_count_ratio"},
		{"train command fails", 78, "train: {type: command, command: [sh, -c, exit 3]}", []string{"run", "job.yaml"}, "exit status 3"},
		{"train command asks to retry", 75, "{train: {type: command, command: [sh, -c, exit 75]}, retries: {task: 1}}", []string{"run", "job.yaml"}, "exit status 75"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rig{t, t.TempDir()}
			if strings.HasPrefix(c.job, "{") {
				r.job("train: {type: command, command: [sh, -c, exit 75]}", "retries: {task: 1}")
			} else if c.job != "" {
				r.job(c.job)
			} else {
				r.job()
			}
			out := r.want(c.code, c.args...)
			if !strings.Contains(out.stderr, c.says) {
				t.Errorf("stderr does not mention %q: %s", c.says, out.stderr)
			}
			if out.result["exit_code"] != float64(c.code) || out.result["error"] == nil {
				t.Errorf("result %v", out.result)
			}
			if _, err := os.Stat(r.path("labels/LATEST")); err == nil && c.name != "train command fails" && c.name != "train command asks to retry" {
				t.Error("labels were published")
			}
		})
	}
	_ = r
}
