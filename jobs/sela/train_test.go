package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// From a run that trains its own network to another network trained on its
// tables alone.
func TestTrainBuiltIn(t *testing.T) {
	r := newRig(t, "train: {type: builtin, builtin: {epochs: 1, batch: 64, held_out: 0.1, checkpoint: 1h}}")
	out := r.want(0, "run", "job.yaml", "--run-id", "one")
	trained, _ := out.result["train"].(map[string]any)
	if trained["type"] != "builtin" || !strings.Contains(trained["detail"].(string), "1 epochs; held-out accuracy") {
		t.Errorf("result %v", out.result["train"])
	}
	for _, name := range []string{"trained", "trunk"} {
		if found, _ := filepath.Glob(r.path("work/runs/one/model/" + name + ".*.onnx")); len(found) != 1 {
			t.Errorf("%d files of %s.onnx in the run", len(found), name)
		}
	}
	if found, _ := filepath.Glob(r.path("work/runs/one/checkpoints/*/*/*")); len(found) != 0 {
		t.Errorf("a finished run keeps checkpoints: %v", found)
	}
	if !strings.Contains(out.stderr, "epoch done") {
		t.Errorf("no word of the epoch: %s", out.stderr)
	}

	args := func(dir string, more ...string) []string {
		return append([]string{"train", "--labels", "labels", "--arch", "resnet-s", "--out", dir, "--epochs", "2", "--batch", "32", "--checkpoint", "1h",
			"--local", "local", "--size", "16", "--seed", "4", "--jitter", "0,0,0,0"}, more...)
	}
	whole := r.want(0, args("whole")...)
	training, _ := whole.result["training"].(map[string]any)
	if training["images"] == nil || training["heads"] != float64(2) || !strings.HasSuffix(whole.result["labels"].(string), "/runs/one/") {
		t.Errorf("result %v", whole.result)
	}
	want := file(t, r.path("whole/model.onnx"))

	// Ended by a signal, it makes a checkpoint and goes on from there.
	cmd, stdout, stderr := r.command(append(args("cut"), "--log-format", "json")...)
	watch := &marker{seen: make(chan struct{}), mark: "epoch done"}
	cmd.Stderr = watch
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-watch.seen
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cut := r.outcome(cmd, cmd.Wait(), stdout, stderr)
	if cut.code != 128+int(syscall.SIGTERM) || cut.result["class"] != "interrupted" {
		t.Fatalf("exit %d: %s", cut.code, watch.text.String())
	}
	if _, err := os.Stat(r.path("cut/model.onnx")); err == nil {
		t.Error("it had ended already")
	}
	again := r.want(0, args("cut")...)
	if !strings.Contains(again.stderr, "goes on from a checkpoint") {
		t.Errorf("it began anew: %s", again.stderr)
	}
	if file(t, r.path("cut/model.onnx")) != want {
		t.Error("the model differs from that of an uninterrupted training")
	}
	if lines := strings.Count(file(t, r.path("cut/metrics.csv")), "\n"); lines != 3 {
		t.Errorf("metrics.csv has %d lines, want a header and 2", lines)
	}

	// Another network on the same trunk; a network whose heads do not fit.
	start := r.want(0, "train", "--labels", "labels/runs/one", "--model", filepath.Join(fixture.dir, "model.onnx"), "--init", "whole/trunk.onnx",
		"--out", "start", "--batch", "64", "--held-out", "0.5", "--local", "local")
	if training, _ := start.result["training"].(map[string]any); training["init"].(map[string]any)["tensors"].(float64) < 10 {
		t.Errorf("result %v", start.result)
	}
	r.want(0, "model", "new", "--arch", "resnet-s", "--heads", "3", "--clusters", "5", "--out", "odd.onnx")
	odd := []string{"train", "--labels", "labels", "--model", "odd.onnx", "--out", "odd", "--batch", "64", "--held-out", "0.5", "--local", "local"}
	if refused := r.want(78, odd...); !strings.Contains(refused.stderr, "heads of 3 × 5 clusters, the labels are of 2 × 8 clusters") || !strings.Contains(refused.stderr, "--replace-heads") {
		t.Errorf("other heads: %s", refused.stderr)
	}
	r.want(0, append(odd, "--replace-heads")...)
	if refused := r.want(78, args("cut", "--rate", "0.01")...); !strings.Contains(refused.stderr, "train.builtin:") {
		t.Errorf("a checkpoint of another spec: %s", refused.stderr)
	}
	if gone := r.want(65, "train", "--labels", "labels/runs/two", "--arch", "resnet-s", "--out", "x"); !strings.Contains(gone.stderr, "two") {
		t.Errorf("a run that is not there: %s", gone.stderr)
	}
	if empty := r.want(65, args("x", "--images", "whole")...); !strings.Contains(empty.stderr, "no images in the bucket") {
		t.Errorf("other images: %s", empty.stderr)
	}
}

// A table of classes, of which an image may have several.
func TestTrainOnTargets(t *testing.T) {
	r := newRig(t)
	table := "key,member,first,odd,never\n"
	names, err := filepath.Glob(filepath.Join(fixture.dir, "images", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		key, err := filepath.Rel(filepath.Join(fixture.dir, "images"), name)
		if err != nil {
			t.Fatal(err)
		}
		first := "0"
		if strings.HasPrefix(key, "0") {
			first = "1"
		}
		table += key + ",," + first + "," + string('0'+rune(i%2)) + ",0\n"
	}
	if err := os.WriteFile(r.path("targets.csv"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"train", "--targets", "targets.csv", "--images", filepath.Join(fixture.dir, "images"), "--model", filepath.Join(fixture.dir, "model.onnx"),
		"--replace-heads", "--out", "o", "--batch", "64", "--held-out", "0.5", "--local", "local"}
	out := r.want(0, args...)
	training, _ := out.result["training"].(map[string]any)
	last, _ := training["last"].(map[string]any)
	held, _ := last["held_out"].(map[string]any)
	if ap, _ := held["mean_ap"].(float64); ap <= 0 || ap > 1 {
		t.Errorf("result %v", out.result)
	}
	if training["heads"] != float64(1) {
		t.Errorf("%v heads", training["heads"])
	}
	args[6] = r.path("nowhere.onnx")
	r.want(78, args...)
}

func file(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// marker keeps what is written and tells when a text has come by.
type marker struct {
	text strings.Builder
	mark string
	seen chan struct{}
	told bool
}

func (m *marker) Write(p []byte) (int, error) {
	m.text.Write(p)
	if !m.told && strings.Contains(m.text.String(), m.mark) {
		m.told = true
		close(m.seen)
	}
	return len(p), nil
}

func TestTrainUsage(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "accepts 1 arg"},
		{[]string{"job.yaml", "--epochs", "3"}, "--epochs goes with --labels or --targets"},
		{[]string{"job.yaml", "--arch", "resnet-s"}, "--arch goes with --labels"},
		{[]string{"job.yaml", "--labels", "labels"}, "unknown command"},
		{[]string{"--labels", "labels", "--arch", "resnet-s"}, "--out is required"},
		{[]string{"--labels", "labels", "--out", "o"}, "give --arch or --model"},
		{[]string{"--labels", "labels", "--targets", "t.csv"}, "give one of them"},
		{[]string{"--targets", "t.csv", "--out", "o", "--arch", "a"}, "--targets needs --images"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--model", "b"}, "give --arch or --model"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--replace-heads"}, "--replace-heads goes with --model"},
		{[]string{"--labels", "labels", "--out", "o", "--model", "a", "--head", "cosine"}, "--head goes with"},
		{[]string{"--labels", "labels", "--out", "o", "--model", "a", "--size", "32"}, "--size goes with --arch"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--run-id", "x"}, "--run-id goes with a job"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--weight-decay", "-1"}, "--weight-decay is -1"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--scale", "0.5"}, "want 2 numbers"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--checkpoint", "soon"}, "not a duration"},
		{[]string{"--labels", "labels", "--out", "o", "--arch", "a", "--mean", "0,0,0"}, "--mean goes with --targets"},
		{[]string{"job.yaml", "--resize", "40"}, "--resize goes with --labels or --targets"},
		{[]string{"--targets", "t.csv", "--images", "i", "--out", "o", "--arch", "a", "--std", "1,0,1"}, "--std is 0 of channel 1"},
		{[]string{"--targets", "t.csv", "--images", "i", "--out", "o", "--arch", "a", "--mean", "NaN,0,1"}, "--mean is NaN of channel 0"},
		{[]string{"--targets", "t.csv", "--images", "i", "--out", "o", "--arch", "a", "--filter", "sinc"}, "it must be one of bilinear, bicubic"},
		{[]string{"--targets", "t.csv", "--images", "i", "--out", "o", "--arch", "a", "--resize", "-1"}, "--resize is a number of pixels"},
	} {
		out := r.want(64, append([]string{"train"}, c.args...)...)
		if !strings.Contains(out.stderr, c.want) {
			t.Errorf("%v: %s, want %q", c.args, out.stderr, c.want)
		}
	}
}

// A job whose network cannot be trained is refused before anything is labelled.
func TestUntrainableIsRefusedEarly(t *testing.T) {
	r := newRig(t, "train: {type: builtin}")
	r.job("train: {type: builtin}", "model: {path: "+filepath.Join(fixture.dir, "model.onnx")+", kind: probabilities}")
	if out := r.want(78, "run", "job.yaml"); !strings.Contains(out.stderr, "train.type builtin: model.kind") {
		t.Errorf("stderr: %s", out.stderr)
	}
}

func TestPublishedAt(t *testing.T) {
	for _, c := range []struct{ in, where, run string }{
		{"s3://bucket?region=x", "s3://bucket?region=x", ""},
		{"s3://bucket/labels/runs/2026-a?region=x", "s3://bucket/labels?region=x", "2026-a"},
		{"s3://bucket/runs/2026-a/", "s3://bucket", "2026-a"},
		{"file:///labels/runs/a", "file:///labels", "a"},
		{"/data/labels/", "file:///data/labels", ""},
		{"/data/my labels/runs/a", "file:///data/my%20labels", "a"},
	} {
		where, run, err := publishedAt(c.in)
		if err != nil || where != c.where || run != c.run {
			t.Errorf("%s is run %q of %s (%v), want %q of %s", c.in, run, where, err, c.run, c.where)
		}
	}
	if _, _, err := publishedAt("s3://key:secret@%zz"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a URL that is none: %v", err)
	}
}
