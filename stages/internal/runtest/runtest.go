// Package runtest gives tests a real run on a small scale: a folder of generated
// images, a linear classifier, a job, and the stages up to the label tables,
// performed by the pipeline's own runner and ONNX Runtime.
//
// It imports the stages list, extract, solve and label, so that their own tests
// can use it only from an external test package (label_test and so on).
package runtest

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/solve"
)

// Options describe the run. The zero value is 60 PNG images, two heads of 3
// clusters, in files small enough for several shards and parts to need more
// images.
type Options struct {
	Images   int // loose PNG files img/00000.png …; 60 if 0
	Heads    int // 2 if 0
	Clusters int // 3 if 0
	Broken   int // text files among the images, img/zz-0.png …, which end in quarantine
	Seed     uint64
	// Job changes the job before the run is opened.
	Job func(*pipeline.Job)
	// Dir holds everything; empty is the test's own folder.
	Dir string
}

// Run is a run with its job, its buckets and its model.
type Run struct {
	*pipeline.Run
	Dir        string // of images, work, labels, local and model.onnx
	Job        *pipeline.Job
	Provenance pipeline.Provenance
	Images     *bucket.Bucket
	Work       *bucket.Bucket
	Labels     *bucket.Bucket

	rt     *ort.Runtime
	design *extract.Design
}

// Size is the side of the images, which is that of the model's input.
const Size = 8

// New makes the images, the model and the job, and opens the run "run-1"; no
// stage has been performed. The test is skipped where there is no ONNX Runtime.
func New(t testing.TB, o Options) *Run {
	t.Helper()
	library := orttest.Library(t)
	o.Images, o.Heads, o.Clusters = orDefault(o.Images, 60), orDefault(o.Heads, 2), orDefault(o.Clusters, 3)
	r := &Run{Dir: o.Dir, rt: orttest.Open(t)}
	if r.Dir == "" {
		r.Dir = t.TempDir()
	}
	for name, data := range Images(o.Images, o.Seed) {
		write(t, filepath.Join(r.Dir, "images", "img", name), data)
	}
	for i := range o.Broken {
		write(t, filepath.Join(r.Dir, "images", "img", fmt.Sprintf("zz-%d.png", i)), []byte("not an image"))
	}
	r.Job = pipeline.DefaultJob()
	r.Job.Name = "tiny"
	r.Job.Images.Bucket, r.Job.Images.MaxRejected = r.URL("images"), 0.5
	r.Job.Work.Bucket, r.Job.Labels.Bucket = r.URL("work"), r.URL("labels")
	r.Job.Model.Path = onnxtest.Write(t, r.Dir, "model.onnx", onnxtest.Classifier{Size: Size, Clusters: slices.Repeat([]int{o.Clusters}, o.Heads), Seed: o.Seed})
	r.Job.Preprocess.Resize, r.Job.Preprocess.Crop = nil, pipeline.Size{Size}
	r.Job.Runtime.Batch, r.Job.Runtime.Threads = 16, 1
	r.Job.Extract.ShardRows, r.Job.Label.PartRows = pipeline.ChunkRows, pipeline.ChunkRows
	// Labels of random weights are less even than those of a trained network.
	r.Job.Solve.Lambda, r.Job.Label.MaxCountRatio = 5, 3
	r.Job.Local = pipeline.Local{Dir: filepath.Join(r.Dir, "local"), Bytes: 256 << 20}
	if o.Job != nil {
		o.Job(r.Job)
	}
	r.Images, r.Work, r.Labels = Bucket(t, r.Job.Images.Bucket), Bucket(t, r.Job.Work.Bucket), Bucket(t, r.Job.Labels.Bucket)
	r.load(t, library)
	r.Run = r.Open(t, "run-1")
	return r
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Images returns n images by file name: noise about a colour of each image's
// own, the same for equal seeds.
func Images(n int, seed uint64) map[string][]byte {
	files := map[string][]byte{}
	for i := range n {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		img := image.NewNRGBA(image.Rect(0, 0, Size, Size))
		base := [3]int{random.IntN(200), random.IntN(200), random.IntN(200)}
		for p := range Size * Size {
			img.SetNRGBA(p%Size, p/Size, color.NRGBA{R: uint8(base[0] + random.IntN(56)), G: uint8(base[1] + random.IntN(56)), B: uint8(base[2] + random.IntN(56)), A: 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			panic(err) // an image in memory always encodes
		}
		files[fmt.Sprintf("%05d.png", i)] = b.Bytes()
	}
	return files
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// URL returns the bucket URL of a folder of the run's Dir.
func (r *Run) URL(folder string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(r.Dir, folder)}).String()
}

// Bucket opens the bucket of a file URL, which is made if it is missing.
func Bucket(t testing.TB, rawURL string) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), rawURL+"?create_dir=true", bucket.Options{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// load reads the model as a command would.
func (r *Run) load(t testing.TB, library ort.Library) {
	t.Helper()
	graph, err := onnx.Load(r.Job.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	if r.design, err = extract.NewDesign(r.Job, graph); err != nil {
		t.Fatal(err)
	}
	digest, err := onnx.Fingerprint(context.Background(), r.Job.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	r.Provenance = pipeline.Provenance{Model: digest.SHA256, Library: library.SHA256, LibraryBuild: library.Version,
		Preprocessing: r.design.Spec.Fingerprint(), Code: "test", Processor: "test"}
}

// Open opens another run of the job, or the same one again.
func (r *Run) Open(t testing.TB, id string) *pipeline.Run {
	t.Helper()
	run, err := pipeline.Open(context.Background(), r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: id})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// Classifier opens the job's model. It is closed when the test ends.
func (r *Run) Classifier(t testing.TB) *extract.Classifier {
	t.Helper()
	c, err := extract.Open(context.Background(), r.rt, r.Job, r.design, filepath.Join(r.Dir, "local"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Stages returns the stages up to the label tables, in order.
func (r *Run) Stages() []pipeline.Stage {
	open := func(ctx context.Context) (*extract.Classifier, error) {
		return extract.Open(ctx, r.rt, r.Job, r.design, filepath.Join(r.Dir, "local"))
	}
	return []pipeline.Stage{&list.Stage{Images: r.Images}, &extract.Stage{Images: r.Images, Open: open},
		&solve.Stage{Labels: r.Labels, Runtime: r.Runtime}, &label.Stage{Labels: r.Labels}}
}

// Runtime returns the test process's ONNX Runtime.
func (r *Run) Runtime() (*ort.Runtime, error) { return r.rt, nil }

// Through performs the stages of a run up to and including the last named one;
// what is committed is skipped.
func (r *Run) Through(t testing.TB, run *pipeline.Run, last string) {
	t.Helper()
	for _, stage := range r.Stages() {
		_, err := Runner().Run(context.Background(), run, stage)
		if e, ok := stage.(*extract.Stage); ok {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if stage.Name() == last {
			return
		}
	}
	t.Fatalf("there is no stage %q before publish", last)
}

// Runner returns a runner that hardly waits before it tries again.
func Runner() *pipeline.Runner { return &pipeline.Runner{Pause: time.Millisecond} }

// Forget deletes the commits of a stage of run-1, as if it had been killed
// before it could make them.
func (r *Run) Forget(t testing.TB, stage string) {
	t.Helper()
	ctx := context.Background()
	err := r.Work.List(ctx, r.Path("commits/"+stage+"/"), func(o bucket.Object) error { return r.Work.Delete(ctx, o.Key) })
	if err != nil {
		t.Fatal(err)
	}
}

// Objects returns the contents of all objects under a prefix, by key.
func Objects(t testing.TB, b *bucket.Bucket, prefix string) map[string]string {
	t.Helper()
	ctx, all := context.Background(), map[string]string{}
	err := b.List(ctx, prefix, func(o bucket.Object) error {
		raw, err := b.Get(ctx, o.Key)
		all[o.Key] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
