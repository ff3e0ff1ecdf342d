package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A run ends with its report; the command makes it again, elsewhere or in place,
// and needs neither model nor images.
func TestRunEndsWithItsReport(t *testing.T) {
	r := newRig(t, "loop: {truth: folders}")
	out := r.want(0, "run", "job.yaml", "--run-id", "one")
	page := r.path("work/runs/one/report/index.html")
	if out.result["report"] != "file://"+page {
		t.Errorf("result %v", out.result["report"])
	}
	first, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"600", "2 × 8", "NMI with the truth", "one"} {
		if !strings.Contains(string(first), part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	// Retention leaves it alone.
	r.want(0, "gc", "job.yaml", "--delete")
	before := r.files("work/runs/one/report")
	if len(before) < 5 {
		t.Errorf("%d files", len(before))
	}
	again := r.want(0, "report", "job.yaml")
	if again.result["run"] != "one" || again.result["images"] != float64(2*8*8) || again.result["missing"] != 0.0 {
		t.Errorf("again: %v", again.result)
	}
	same(t, r.files("work/runs/one/report"), before)
	// Without its images and its model, elsewhere.
	r.job("images: {bucket: nowhere}", "model: {path: nowhere.onnx}")
	if out := r.want(0, "report", "job.yaml", "--run-id", "one", "--out", "copy"); out.result["images"] != 0.0 {
		t.Errorf("without images: %v", out.result)
	}
	if _, err := os.Stat(r.path("copy/index.html")); err != nil {
		t.Error(err)
	}
	r.want(78, "report", "job.yaml", "--run-id", "another")
	r.want(64, "report", "job.yaml", "--run-id", "")
}

// A report that cannot be written is a warning, and the run is done.
func TestReportNeverFailsARun(t *testing.T) {
	r := newRig(t, "loop: {truth: missing.csv}")
	out := r.want(0, "run", "job.yaml", "--run-id", "one")
	if out.result["status"] != "done" || out.result["report"] != nil || !strings.Contains(out.stderr, "level=WARN msg=\"no report was written") {
		t.Errorf("result %v: %s", out.result, out.stderr)
	}
	r.want(99, "run", "job.yaml")
	r.want(78, "report", "job.yaml")
	r.job("report: {write: false}")
	out = r.want(0, "run", "job.yaml", "--run-id", "two")
	if _, err := os.Stat(r.path("work/runs/two/report")); !os.IsNotExist(err) || out.result["report"] != nil {
		t.Errorf("report.write: false: %v, %v", err, out.result["report"])
	}
}

// files returns the contents of a folder of the rig, by name.
func (r *rig) files(folder string) map[string]string {
	r.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(r.path(folder), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, r.path(folder))] = string(raw)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}
