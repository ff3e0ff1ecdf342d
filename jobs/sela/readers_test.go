package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sela/jobs/demo/letters"
	"sela/schemas"
)

// readersPython is a Python with the libraries of
// jobs/setup/requirements-readers.txt, where make puts it.
func readersPython(t *testing.T) string {
	t.Helper()
	python, err := filepath.Abs("../../.build/readers-venv/bin/python")
	if err == nil {
		_, err = os.Stat(filepath.Dir(filepath.Dir(python)) + "/.ready")
	}
	if err != nil {
		if os.Getenv("SELA_REQUIRE_READERS") != "" {
			t.Fatalf("the readers are not there: %v", err)
		}
		t.Skip("the readers (DuckDB, pandas, Spark, …) are not there: make test-readers gets them and runs this test")
	}
	return python
}

// TestReaders lets the tools that teams downstream use read what runs publish
// and export, and compares what they see with what this program reads.
func TestReaders(t *testing.T) {
	python := readersPython(t)
	r := newRig(t)
	r.publishForReaders()
	script, err := filepath.Abs("testdata/readers.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, reader := range []string{"duckdb", "pyarrow", "pandas", "polars", "spark", "datasets", "croissant",
		"imagefolder", "webdataset", "labelstudio", "torch"} {
		t.Run(reader, func(t *testing.T) {
			python := python
			if reader == "torch" {
				// PyTorch is there where the training is compared with it.
				if python, err = filepath.Abs("../../.build/train-venv/bin/python"); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(python); err != nil {
					t.Skip("PyTorch is not there: make .build/train-venv/.ready gets it")
				}
			}
			if _, err := exec.LookPath("java"); err != nil && reader == "spark" {
				t.Skip("Spark needs a Java runtime, 17 or later (Debian: openjdk-17-jre-headless)")
			}
			cmd := exec.Command(python, script, reader, r.dir)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "HF_HOME="+cmd.Dir, "TMPDIR="+cmd.Dir, "SPARK_LOCAL_IP=127.0.0.1", "PYTHONDONTWRITEBYTECODE=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, stderr.String())
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, reader+": ") {
				t.Errorf("it does not say what it read:\n%s", out)
			} else {
				t.Log(last)
			}
		})
	}
}

// publishForReaders publishes and exports two jobs. In "loose", images are files
// with odd names, labels are soft, come from a transport and have a run before
// them that lacked images. In "tars", images are in tars and labels are by
// k-means, without probabilities. Both have an image that cannot be used.
func (r *rig) publishForReaders() {
	r.t.Helper()
	image := func(i int) (data []byte, ext string) {
		var b bytes.Buffer
		ext, _, err := letters.Encode(&b, i, 3)
		if err != nil {
			r.t.Fatal(err)
		}
		return b.Bytes(), ext
	}
	loose := func(from, to int) {
		odd := []string{"a b", `"quoted", twice`, "größe", "100%20", "a=b&c", "#1?"}
		for i := from; i < to; i++ {
			data, ext := image(i)
			name := fmt.Sprintf("%04d", i)
			if i%50 == 0 {
				name += " " + odd[i/50%len(odd)]
			}
			r.write(fmt.Sprintf("loose/images/%d/%s%s", i%3, name, ext), data)
		}
	}
	for shard := range 2 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range 70 {
			data, ext := image(shard*70 + i)
			if i == 11 {
				data = []byte("not an image")
			}
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("./%d/%06d%s", i%2, i, ext), Mode: 0o644, Size: int64(len(data))}); err != nil {
				r.t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				r.t.Fatal(err)
			}
			cls := fmt.Sprint(i % 26) // images of a WebDataset often have company
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("./%d/%06d.cls", i%2, i), Mode: 0o644, Size: int64(len(cls))}); err != nil {
				r.t.Fatal(err)
			}
			if _, err := w.Write([]byte(cls)); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.write(fmt.Sprintf("tars/images/s-%03d.tar", shard), b.Bytes())
	}
	common := []string{"label: {max_count_ratio: 8, part_rows: 1024, top_k: 3, previous: latest}", "model: {path: " + filepath.Join(fixture.dir, "model.onnx") + "}"}
	loose(0, 1100)
	r.write("loose/images/broken.png", []byte("not an image"))
	r.job(append(common, "job: loose", "images: {bucket: loose/images}", "work: {bucket: loose/work}", "labels: {bucket: loose/labels}")...)
	r.want(0, "run", "job.yaml", "--run-id", "first")
	loose(1100, 1150)
	r.want(0, "run", "job.yaml", "--run-id", "second")
	r.want(0, "verify", "job.yaml")
	r.expected("loose", "second")
	for _, format := range []string{"imagefolder", "torch"} {
		r.want(0, "export", "job.yaml", "--format", format, "--head", "1", "--out", "loose/"+format)
	}
	r.want(0, "export", "loose/labels/runs/second", "--format", "label-studio", "--head", "1", "--out", "loose/labelstudio", "--images", "https://images.example/all")
	r.want(0, "export", "loose/labels", "--format", "imagefolder", "--min-prob", "0.5", "--head", "1", "--out", "loose/imagefolder-sure")

	r.job(append(common, "job: tars", "images: {bucket: tars/images}", "work: {bucket: tars/work}", "labels: {bucket: tars/labels}",
		"label: {part_rows: 1024}", "solve: {method: kmeans}")...)
	r.want(0, "run", "job.yaml", "--run-id", "second")
	r.expected("tars", "second")
	for _, format := range []string{"webdataset", "torch"} {
		r.want(0, "export", "job.yaml", "--format", format, "--head", "1", "--out", "tars/"+format)
	}
	if out := r.want(65, "export", "job.yaml", "--format", "imagefolder", "--out", "tars/imagefolder"); !strings.Contains(out.stderr, "s-000.tar") {
		r.t.Error(out.stderr)
	}
}

// expected writes what this program reads from a published run.
func (r *rig) expected(job, run string) {
	r.t.Helper()
	type row struct {
		Head       int      `json:"head"`
		Row        int64    `json:"row"`
		Key        string   `json:"key"`
		Member     string   `json:"member"`
		SHA256     string   `json:"sha256"`
		Label      int32    `json:"label"`
		Prob       *float32 `json:"prob"`
		ModelLabel int32    `json:"model_label"`
		ModelProb  float32  `json:"model_prob"`
		PrevLabel  *int32   `json:"prev_label"`
		TopK       [][2]any `json:"top_k"`
	}
	var all struct {
		Labels     []row                `json:"labels"`
		Potentials [][]float64          `json:"potentials"`
		Quarantine []schemas.Quarantine `json:"quarantine"`
		TopK       bool                 `json:"top_k"`
	}
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	root := r.path(job + "/labels/runs/" + run)
	for h := range 2 {
		parts, err := filepath.Glob(fmt.Sprintf("%s/labels/head=%d/part-*.parquet", root, h))
		must(err)
		for _, part := range parts {
			must(schemas.ReadLabels(part, func(l *schemas.Label) error {
				out := row{h, l.Row, strings.Clone(l.Key), strings.Clone(l.Member), strings.Clone(l.SHA256), l.Label, nil, l.ModelLabel, l.ModelProb, nil, nil}
				if l.Prob != nil {
					prob := *l.Prob
					out.Prob = &prob
				}
				if l.PrevLabel != nil {
					prev := *l.PrevLabel
					out.PrevLabel = &prev
				}
				for _, k := range l.TopK {
					out.TopK = append(out.TopK, [2]any{k.Label, k.Prob})
				}
				all.TopK = all.TopK || len(l.TopK) > 0
				all.Labels = append(all.Labels, out)
				return nil
			}))
		}
		v, _, err := schemas.ReadPotentials(fmt.Sprintf("%s/potentials/head-%d.parquet", root, h))
		must(err)
		all.Potentials = append(all.Potentials, v)
	}
	parts, err := filepath.Glob(root + "/quarantine/part-*.parquet")
	must(err)
	for _, part := range parts {
		must(schemas.ReadQuarantine(part, func(q schemas.Quarantine) error {
			all.Quarantine = append(all.Quarantine, q)
			return nil
		}))
	}
	raw, err := json.Marshal(all)
	must(err)
	r.write(job+"/expected.json", raw)
}
