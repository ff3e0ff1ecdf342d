package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sela/jobs/demo/letters"
)

// mainVariable makes the test binary behave as the program, so that tests start
// real processes, with the race detector in them.
const mainVariable = "SELA_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		os.Exit(execute(os.Args[1:]))
	}
	code := m.Run()
	if fixture.dir != "" {
		_ = os.RemoveAll(fixture.dir)
	}
	os.Exit(code)
}

// rig is a folder with images, a model and a job.
type rig struct {
	t   *testing.T
	dir string
}

// The library lies where make puts it, unless the environment names another.
func libraryPath(t *testing.T) string {
	t.Helper()
	path := os.Getenv(libraryVariable)
	if path == "" {
		path, _ = filepath.Abs("../../.build/lib/libonnxruntime.so.1")
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("SELA_REQUIRE_ORT") != "" || os.Getenv("CI") != "" {
			t.Fatalf("ONNX Runtime is not there (%v): run make onnxruntime", err)
		}
		t.Skipf("ONNX Runtime is not there (%v): run make onnxruntime", err)
	}
	return path
}

var fixture struct {
	sync.Once
	dir string
	err error
}

// newRig makes a rig with its own work and labels folders, and the images and
// model that all rigs share. fields are YAML lines that the job adds.
func newRig(t *testing.T, fields ...string) *rig {
	t.Helper()
	libraryPath(t)
	r := &rig{t, t.TempDir()}
	fixture.Do(func() { fixture.dir, fixture.err = makeFixture(t) })
	if fixture.err != nil {
		t.Fatal(fixture.err)
	}
	r.job(fields...)
	return r
}

const (
	fixtureImages   = 600
	fixtureClusters = 8
)

func makeFixture(t *testing.T) (string, error) {
	dir, err := os.MkdirTemp("", "sela-test-")
	if err != nil {
		return "", err
	}
	for i := range fixtureImages {
		var buf bytes.Buffer
		ext, _, err := letters.Encode(&buf, i, 3)
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, "images", fmt.Sprintf("%d", i%3), fmt.Sprintf("%04d%s", i, ext))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
			return "", err
		}
	}
	r := &rig{t, dir}
	out := r.sela("model", "new", "--arch", "resnet-s", "--size", "32", "--heads", "2", "--clusters", fmt.Sprint(fixtureClusters), "--seed", "5",
		"--calibrate", filepath.Join(dir, "images"), "--out", filepath.Join(dir, "model.onnx"))
	if out.code != 0 {
		return "", fmt.Errorf("model new: exit %d: %s", out.code, out.stderr)
	}
	return dir, nil
}

// job writes the rig's job file. A later line of the same field replaces an
// earlier one of the defaults.
func (r *rig) job(fields ...string) {
	r.t.Helper()
	lines := map[string]string{
		"job": "job: test", "images": "images: {bucket: " + filepath.Join(fixture.dir, "images") + "}",
		"work": "work: {bucket: work}", "labels": "labels: {bucket: labels}", "model": "model: {path: " + filepath.Join(fixture.dir, "model.onnx") + "}",
		"preprocess": "preprocess: {resize: 0, crop: 32}", "extract": "extract: {shard_rows: 1024}", "local": "local: {dir: local, bytes: 256MiB}",
		"label": "label: {max_count_ratio: 8}", "runtime": "runtime: {batch: 32}",
	}
	for _, f := range fields {
		name, _, _ := strings.Cut(f, ":")
		lines[name] = f
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	if err := os.WriteFile(r.path("job.yaml"), []byte(b.String()), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// outcome is a finished process.
type outcome struct {
	code           int
	stdout, stderr string
	result         map[string]any // the last line of stdout
}

// sela runs a command line to its end.
func (r *rig) sela(args ...string) outcome {
	r.t.Helper()
	cmd, stdout, stderr := r.command(args...)
	err := cmd.Run()
	return r.outcome(cmd, err, stdout, stderr)
}

func (r *rig) command(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.Command(os.Args[0], args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, stdout, stderr
	cmd.Env = append(os.Environ(), mainVariable+"=1", libraryVariable+"="+libraryPath(r.t))
	return cmd, stdout, stderr
}

func (r *rig) outcome(cmd *exec.Cmd, err error, stdout, stderr *bytes.Buffer) outcome {
	r.t.Helper()
	out := outcome{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	if out.code > 0 && err == nil {
		r.t.Fatal("exit code without an error")
	}
	lines := strings.Split(strings.TrimSuffix(out.stdout, "\n"), "\n")
	if last := lines[len(lines)-1]; strings.HasPrefix(last, "{") {
		if err := json.Unmarshal([]byte(last), &out.result); err != nil {
			r.t.Fatalf("the last line of stdout is not JSON: %q", last)
		}
	}
	return out
}

// want runs a command and requires its exit code.
func (r *rig) want(code int, args ...string) outcome {
	r.t.Helper()
	out := r.sela(args...)
	if out.code != code {
		r.t.Fatalf("sela %s: exit %d, want %d\n%s%s", strings.Join(args, " "), out.code, code, out.stderr, out.stdout)
	}
	return out
}

// await waits until a file appears.
func (r *rig) await(pattern string) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if found, _ := filepath.Glob(r.path(pattern)); len(found) > 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("no %s appears", pattern)
		}
	}
}

// published returns the bytes of the label files of a run, by name.
func (r *rig) published(run string) map[string]string {
	r.t.Helper()
	root := filepath.Join(r.dir, "labels", "runs", run)
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "labels"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		files[name] = string(raw)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// same requires that two runs published the same label files.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%d label files, want %d", len(got), len(want))
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s differs", name)
		}
	}
}
