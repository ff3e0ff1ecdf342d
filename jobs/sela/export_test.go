package main

import (
	"encoding/csv"
	"os"
	"strings"
	"testing"
)

// TestExportCommand names the run in every way and makes the common mistakes.
func TestExportCommand(t *testing.T) {
	r := newRig(t)
	r.want(78, "export", "job.yaml", "--format", "torch", "--out", "early") // there is no labels folder
	r.write("labels/keep", nil)
	r.want(65, "export", "job.yaml", "--format", "torch", "--out", "early") // nothing is published
	r.want(0, "run", "job.yaml", "--run-id", "a")
	read := func(name string) string {
		raw, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	out := r.want(0, "export", "job.yaml", "--format", "imagefolder", "--out", "one")
	if out.result["run"] != "a" || out.result["images"] != float64(fixtureImages) || out.result["objects"] != 1.0 || out.result["left_out"] != 0.0 {
		t.Errorf("result %v", out.result)
	}
	want := read("one/labels.csv")
	lines, err := csv.NewReader(strings.NewReader(want)).ReadAll()
	if err != nil || len(lines) != fixtureImages+1 || lines[1][0] != "0/0000.jpg" {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, where := range []string{"labels", "labels/runs/a", "file://" + r.path("labels"), "file://" + r.path("labels/runs/a") + "/"} {
		to := "again-" + string(rune('0'+i))
		r.want(0, "export", where, "--format", "imagefolder", "--out", to)
		if read(to+"/labels.csv") != want {
			t.Errorf("%s: another export", where)
		}
	}
	r.want(0, "export", "labels", "--format", "imagefolder", "--out", "one") // done already
	for _, args := range [][]string{
		{"export", "job.yaml", "--out", "x"}, {"export", "job.yaml", "--format", "torch"}, {"export", "--format", "torch", "--out", "x"},
		{"export", "job.yaml", "--format", "torch", "--out", "x", "--head", "2"},
		{"export", "labels/runs/a", "--run-id", "b", "--format", "torch", "--out", "x"},
	} {
		r.want(64, args...)
	}
	r.want(78, "export", "job.yaml", "--run-id", "b", "--format", "torch", "--out", "x")
	if out := r.want(78, "export", "job.yaml", "--format", "torch", "--out", "one"); !strings.Contains(out.stderr, "--out") {
		t.Error(out.stderr)
	}
	if _, err := os.Stat(r.path("x/_export.json")); err == nil {
		t.Error("an export that was refused left something")
	}
}
