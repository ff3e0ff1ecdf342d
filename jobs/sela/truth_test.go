package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestChangedTruthIsNoticed: a table of classes is a part of what a run is.
func TestChangedTruthIsNoticed(t *testing.T) {
	r := newRig(t, "solve: {method: truth, truth: truth.csv}", "label: {max_count_ratio: 1000}")
	table := func(turn int) {
		t.Helper()
		dir, n := filepath.Join(fixture.dir, "images"), 0
		var b strings.Builder
		b.WriteString("key,member,class\n")
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			key, err := filepath.Rel(dir, path)
			fmt.Fprintf(&b, "%s,,%d\n", filepath.ToSlash(key), (n+turn)%fixtureClusters)
			n++
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		r.write("truth.csv", []byte(b.String()))
	}
	table(0)
	first := r.want(0, "run", "job.yaml")
	r.want(99, "run", "job.yaml")
	table(1)
	if out := r.want(78, "extract", "job.yaml", "--run-id", first.result["run"].(string)); !strings.Contains(out.stderr, "digest of solve.truth") {
		t.Errorf("another table of classes for the same run: %s", out.stderr)
	}
	if second := r.want(0, "run", "job.yaml"); second.result["run"] == first.result["run"] {
		t.Error("another table of classes: the same run")
	}
	r.want(0, "list", "job.yaml", "--run-id", "third")
	r.want(0, "extract", "job.yaml", "--run-id", "third")
	table(2)
	if out := r.want(78, "solve", "job.yaml", "--run-id", "third"); !strings.Contains(out.stderr, "digest of solve.truth") {
		t.Errorf("another table of classes in mid-run: %s", out.stderr)
	}
	// A finished run can be verified without it.
	r.write("truth.csv", nil)
	r.want(0, "verify", "job.yaml", "--run-id", first.result["run"].(string))
}
