package extract_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort/orttest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// preflight does what a command does before the first task, with the model at
// path and 20 images, and returns the first error.
func preflight(t *testing.T, path string, files map[string][]byte, change func(*pipeline.Job)) (*extract.Preflight, error) {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	put(t, dir, files)
	images := runtest.Bucket(t, "file://"+dir)
	job := pipeline.DefaultJob()
	job.Images.Bucket, job.Model.Path, job.Local.Dir = "file://"+dir, path, filepath.Join(t.TempDir(), "local")
	job.Preprocess.Resize, job.Preprocess.Crop = nil, pipeline.Size{runtest.Size}
	job.Runtime.Batch, job.Runtime.Threads = 8, 1
	if change != nil {
		change(job)
	}
	graph, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	design, err := extract.NewDesign(job, graph)
	if err != nil {
		return nil, err
	}
	rt := orttest.Open(t)
	stage := &extract.Stage{Images: images, Open: func(ctx context.Context) (*extract.Classifier, error) {
		return extract.Open(ctx, rt, job, design, job.Local.Dir)
	}}
	defer stage.Close()
	candidates, err := list.First(ctx, images, job.Images, 16)
	if err != nil {
		t.Fatal(err)
	}
	p, err := stage.Preflight(ctx, candidates)
	if err == nil && !p.Probe.Bitwise() {
		t.Errorf("a linear model is not deterministic: %+v", p.Probe)
	}
	if left, _ := filepath.Glob(filepath.Join(job.Local.Dir, "*")); err != nil && stage.Classifier() == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return p, err
}

func pictures(t testing.TB, n int) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("%03d.png", i)] = pngOf(t, uint64(i))
	}
	return files
}

// TestWrongJobs: whatever a job says wrongly about its model is an error of
// class Config that names the field, before any task starts.
func TestWrongJobs(t *testing.T) {
	kind := func(k onnx.OutputKind) func(*pipeline.Job) { return func(j *pipeline.Job) { j.Model.Kind = string(k) } }
	for _, c := range []struct {
		name   string
		model  onnxtest.Classifier
		change func(*pipeline.Job)
		words  []string
	}{
		{"probabilities called logits", onnxtest.Classifier{Kind: onnx.Probabilities}, kind(onnx.Logits),
			[]string{"head_0", "model.kind is logits", "set model.kind to probabilities"}},
		{"logits called probabilities", onnxtest.Classifier{}, kind(onnx.Probabilities),
			[]string{"head_0", "model.kind is probabilities, but a row sums to", "set model.kind to logits"}},
		{"log-probabilities called probabilities", onnxtest.Classifier{Kind: onnx.LogProbabilities}, kind(onnx.Probabilities),
			[]string{"model.kind is probabilities", "log_probabilities"}},
		{"logits called log-probabilities", onnxtest.Classifier{}, kind(onnx.LogProbabilities),
			[]string{"model.kind is log_probabilities", "exponentials of a row sum to", "logits"}},
		{"probabilities called log-probabilities", onnxtest.Classifier{Kind: onnx.Probabilities}, kind(onnx.LogProbabilities),
			[]string{"model.kind is log_probabilities", "probabilities"}},
		{"stacked probabilities called logits", onnxtest.Classifier{Kind: onnx.Probabilities, Clusters: []int{3, 3}, Stacked: true}, kind(onnx.Logits),
			[]string{"heads", "set model.kind to probabilities"}},
		{"number of heads", onnxtest.Classifier{Clusters: []int{4, 4}}, func(j *pipeline.Job) { j.Model.Heads = 3 },
			[]string{"has 2 heads, model.heads is 3"}},
		{"number of stacked heads", onnxtest.Classifier{Clusters: []int{4, 4}, Stacked: true}, func(j *pipeline.Job) { j.Model.Heads = 3 },
			[]string{"has 2 heads, model.heads is 3"}},
		{"number of clusters", onnxtest.Classifier{Clusters: []int{4, 5}}, func(j *pipeline.Job) { j.Model.Clusters = 4 },
			[]string{"head_1", "has 5 clusters, model.clusters is 4"}},
		{"input name", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Model.Input = "pixels" },
			[]string{`model.input: no input "pixels"`, "images float32"}},
		{"output name", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Model.Outputs = []string{"logits"} },
			[]string{`no output "logits"`, "head_0"}},
		{"output named twice", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Model.Outputs = []string{"head_0", "head_0"} },
			[]string{`"head_0" is named twice`}},
		{"features name", onnxtest.Classifier{Hidden: 5}, func(j *pipeline.Job) { j.Model.Features = "hiden" },
			[]string{"model.features", `"hiden"`, "hidden"}},
		{"only output is features", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Model.Features = "head_0" },
			[]string{"has no outputs but model.features"}},
		{"layout unclear", onnxtest.Classifier{Size: 3}, func(j *pipeline.Job) { j.Preprocess.Crop = pipeline.Size{3} },
			[]string{"preprocess.layout", "nchw or nhwc"}},
		{"layout wrong", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Preprocess.Layout = "nhwc" },
			[]string{"8 channels in layout nhwc"}},
		{"one channel", onnxtest.Classifier{Channels: 1}, func(j *pipeline.Job) { j.Preprocess.Layout = "nchw" },
			[]string{"1 channels", "images have 3"}},
		{"size", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Preprocess.Crop = pipeline.Size{8, 9} },
			[]string{"width 8, preprocess makes 9", "preprocess.crop"}},
		{"no size", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Preprocess.Crop = nil },
			[]string{"no fixed size"}},
		{"fixed batch", onnxtest.Classifier{Batch: 5}, nil, []string{"fixed batch of 5", "runtime.batch"}},
		{"provider", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Runtime.Providers = []string{"cuda", "cpu"} },
			[]string{"cuda", "libonnxruntime_providers_shared.so"}},
		{"order of providers", onnxtest.Classifier{}, func(j *pipeline.Job) { j.Runtime.Providers = []string{"cpu", "cuda"} },
			[]string{"cpu: must stand last"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "provider" {
				if _, err := os.Stat(filepath.Join(filepath.Dir(orttest.Library(t).Path), "libonnxruntime_providers_shared.so")); err == nil {
					t.Skip("skipped: this machine's ONNX Runtime has providers for GPUs")
				}
			}
			_, err := preflight(t, onnxtest.Write(t, t.TempDir(), "model.onnx", c.model), pictures(t, 20), c.change)
			fails(t, err, pipeline.Config, c.words...)
		})
	}
}

func TestModelOfSeveralInputs(t *testing.T) {
	m, _ := onnxtest.Classifier{}.Build()
	b := onnx.Edit(m)
	b.Input(onnx.Value{Name: "scale", DType: onnx.Float32, Shape: []onnx.Dim{{Size: 1}}})
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	_, err := preflight(t, path, pictures(t, 20), nil)
	fails(t, err, pipeline.Config, "has 2 inputs", "scale", "model.input")
	_, err = preflight(t, path, pictures(t, 20), func(j *pipeline.Job) { j.Model.Input = "images" })
	fails(t, err, pipeline.Config, `"scale" has no default`)
	_, err = preflight(t, path, pictures(t, 20), func(j *pipeline.Job) { j.Model.Input = "scale" })
	fails(t, err, pipeline.Config, "images need four dimensions")
}

func TestExternalWeightsGone(t *testing.T) {
	dir := t.TempDir()
	path := onnxtest.Write(t, dir, "model.onnx", onnxtest.Classifier{External: "weights.bin"})
	if _, err := preflight(t, path, pictures(t, 20), nil); err != nil {
		t.Fatal(err)
	}
	graph, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	job := pipeline.DefaultJob()
	job.Model.Path, job.Preprocess.Resize, job.Preprocess.Crop = path, nil, pipeline.Size{runtest.Size}
	design, err := extract.NewDesign(job, graph)
	if err == nil {
		err = os.Remove(filepath.Join(dir, "weights.bin"))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = extract.Open(context.Background(), orttest.Open(t), job, design, t.TempDir())
	fails(t, err, pipeline.Config, "external data", "weights.bin", path)
}

// TestNaNEverywhere: outputs that mean nothing for a whole batch are the
// model's fault.
func TestNaNEverywhere(t *testing.T) {
	files := map[string][]byte{}
	for i := range 20 {
		files[fmt.Sprintf("%02d.png", i)] = black(t)
	}
	_, err := preflight(t, onnxtest.Write(t, t.TempDir(), "model.onnx", onnxtest.Classifier{NaNOnBlack: true}), files, noMean)
	fails(t, err, pipeline.Config, "head 0 (head_0): no image of 8", "NaN")
}

// noMean lets a black image be all zero.
func noMean(j *pipeline.Job) { j.Preprocess.Mean = [3]float64{} }

// TestFirstImagesUnusable: the first batch is of the first images that can be
// used; it takes all candidates to be bad to stop a run.
func TestFirstImagesUnusable(t *testing.T) {
	model := onnxtest.Write(t, t.TempDir(), "model.onnx", onnxtest.Classifier{})
	files := pictures(t, 20)
	for i := range 11 {
		files[fmt.Sprintf("%03d.png", i)] = []byte("not an image")
	}
	p, err := preflight(t, model, files, nil)
	if err != nil || p.Images != 5 || p.Rejected != 11 {
		t.Errorf("%+v, %v; want 5 of 16 candidates usable", p, err)
	}
	for key := range files {
		files[key] = []byte("not an image")
	}
	_, err = preflight(t, model, files, nil)
	fails(t, err, pipeline.Data, "none of the first 16 images can be used", "images.glob", `"000.png"`, "no known image format")
}

func TestPreflightEndsWithItsContext(t *testing.T) {
	r := world(t, pictures(t, 3), onnxtest.Classifier{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	c := r.Classifier(t)
	cancel()
	_, err := c.Preflight(ctx, r.Images, []schemas.Image{{Key: "000.png", Size: int64(len(pngOf(t, 0)))}})
	fails(t, err, pipeline.Interrupted)
}
