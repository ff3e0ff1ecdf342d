package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/jobs/demo/letters"
	"sela/schemas"
)

// testSplit draws letters that the rigs' images do not have, beside a broken
// file, and writes the truth of both splits.
func (r *rig) testSplit() {
	r.t.Helper()
	truth := [][]string{{"key", "member", "class"}}
	for i := range fixtureImages + 90 {
		var buf bytes.Buffer
		ext, letter, err := letters.Encode(&buf, i, 3)
		if err != nil {
			r.t.Fatal(err)
		}
		key := fmt.Sprintf("%d/%04d%s", i%3, i, ext)
		truth = append(truth, []string{key, "", string('a' + (letter-'A')/9)}) // A to I, J to R, S to Z
		if i < fixtureImages {
			continue
		}
		r.write("test/"+key, buf.Bytes())
	}
	r.write("test/2/broken.png", []byte("not an image"))
	truth = append(truth, []string{"2/broken.png", "", "a"})
	var table bytes.Buffer
	if err := csv.NewWriter(&table).WriteAll(truth); err != nil {
		r.t.Fatal(err)
	}
	r.write("truth.csv", table.Bytes())
}

func (r *rig) write(name string, data []byte) {
	r.t.Helper()
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// evaluated reads the values of a measure by network and source.
func evaluated(t *testing.T, file, measure string) map[string]float64 {
	t.Helper()
	rows, _, err := schemas.ReadEvaluation(file)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, row := range rows {
		if row.Measure == measure && (row.K == nil || *row.K == 10) {
			values[row.Network+" "+row.Source] = row.Value
		}
	}
	return values
}

func TestEvaluate(t *testing.T) {
	r := newRig(t)
	r.testSplit()
	r.want(0, "run", "job.yaml", "--run-id", "one")
	args := []string{"evaluate", "job.yaml", "--test", "test", "--truth", "truth.csv", "--labels", "one", "--heads", "--probe", "--layers", "conv4",
		"--features", "features", "--features", "conv4", "--pool", "2", "--baselines", "pixels,untrained", "--model", "mine=" + filepath.Join(fixture.dir, "model.onnx")}
	out := r.want(0, append(args, "--out", "a")...)

	knn, linear := evaluated(t, r.path("a/evaluation.parquet"), "knn"), evaluated(t, r.path("a/evaluation.parquet"), "linear")
	for name, value := range knn {
		if value < 0.4 { // a third is chance
			t.Errorf("kNN of %s is %v", name, value)
		}
	}
	want := []string{"mine conv4 mean 2×2", "mine features", "mine pixels", "untrained conv4 mean 2×2", "untrained features"}
	if got := names(knn); !slices.Equal(got, want) {
		t.Errorf("kNN of %q, want %q", got, want)
	}
	want = []string{"mine conv4 max 4×4", "mine conv4 mean 2×2", "mine features", "mine pixels", "untrained conv4 max 4×4", "untrained conv4 mean 2×2", "untrained features"}
	if got := names(linear); !slices.Equal(got, want) {
		t.Errorf("linear of %q, want %q", got, want)
	}
	if knn["mine features"] != knn["untrained features"] || linear["mine conv4 max 4×4"] != linear["untrained conv4 max 4×4"] {
		t.Errorf("the same network twice: %v, %v", knn, linear)
	}
	nmi := evaluated(t, r.path("a/evaluation.parquet"), "nmi")
	if got := names(nmi); !slices.Equal(got, []string{"mine head 0", "mine head 1", "one head 0", "one head 1", "untrained head 0", "untrained head 1"}) {
		t.Errorf("NMI of %q", got)
	}
	for _, part := range []string{"kNN 10", "by chance", "images were left out", "broken.png"} {
		if !strings.Contains(out.stderr, part) {
			t.Errorf("stderr lacks %q: %s", part, out.stderr)
		}
	}
	report := out.result["evaluation"].(map[string]any)
	if split := report["test"].(map[string]any); split["images"] != 90. || split["left_out"] != 1. {
		t.Errorf("test split %v", split)
	}
	table, err := csv.NewReader(strings.NewReader(string(file(t, r.path("a/evaluation.csv"))))).ReadAll()
	if err != nil || len(table) != 1+len(report["rows"].([]any)) {
		t.Errorf("%d lines of CSV for %d rows, %v", len(table), len(report["rows"].([]any)), err)
	}

	// The same figures with other threads, tables to the bit.
	r.job("runtime: {batch: 7, threads: 1}")
	r.want(0, append(args, "--out", "b")...)
	if a, b := file(t, r.path("a/evaluation.csv")), file(t, r.path("b/evaluation.csv")); string(a) != string(b) {
		t.Errorf("with other threads and batches:\n%s\nbefore\n%s", b, a)
	}
}

func names(values map[string]float64) []string {
	var all []string
	for name := range values {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// What is wrong is found before any image is read, and named.
func TestEvaluateRefuses(t *testing.T) {
	r := newRig(t)
	r.testSplit()
	r.write("other/9/a.png", []byte("x"))
	r.write("bare/a.png", []byte("x"))
	r.write("empty/readme.txt", []byte("x"))
	r.write("short.csv", []byte("key,member,class\n0/0000.png,,A\n"))
	images := filepath.Join(fixture.dir, "images")
	for _, c := range []struct {
		code int
		args string
		want []string
	}{
		{64, "", []string{"--test"}},
		{64, "--test test --pool 3", []string{"--pool is 3"}},
		{64, "--test test --baselines pixel", []string{"--baselines pixel"}},
		{64, "--test test --baselines untrained", []string{"--untrained"}},
		{64, "--test test --model a=MODEL --model a=MODEL", []string{"two networks are called a"}},
		{65, "--test empty", []string{"test split", "no images"}},
		{65, "--test bare", []string{"test split", "1 of 1 images have no class", `"a.png"`}},
		{65, "--test other", []string{`classes are not in the training split: "9"`, `"0"`}},
		{65, "--test test --truth short.csv", []string{"training split", "images have no class", "short.csv"}},
		{78, "--test test --truth gone.csv", []string{"gone.csv"}},
		{78, "--test gone", []string{"--test"}},
		{78, "--test " + images, []string{"is in both splits"}},
		{78, "--test-glob **", []string{"is in both splits"}},
		{78, "--test test --features feature", []string{`"feature"; similar: features`}},
		{78, "--test test --layers conv1,conv5", []string{"--layers", `"conv5"; similar: conv`}},
		{78, "--test test --model gone.onnx", []string{"--model", "gone.onnx"}},
		{65, "--test test --labels gone", []string{"--labels", "gone"}},
	} {
		args := append([]string{"evaluate", "job.yaml"}, strings.Fields(strings.ReplaceAll(c.args, "MODEL", filepath.Join(fixture.dir, "model.onnx")))...)
		out := r.want(c.code, args...)
		for _, part := range c.want {
			if message, _ := out.result["error"].(string); !strings.Contains(message, part) {
				t.Errorf("%s: %q lacks %q", c.args, message, part)
			}
		}
		if strings.Contains(out.stderr, "stage started") {
			t.Errorf("%s: images were read first: %s", c.args, out.stderr)
		}
	}
}
