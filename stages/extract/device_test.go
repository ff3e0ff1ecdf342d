package extract_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/label"
)

// onDevice is a run over r's images, with r's job but for where images are
// normalised, in buckets of its own.
func onDevice(t testing.TB, r *runtest.Run) *runtest.Run {
	t.Helper()
	return runtest.New(t, runtest.Options{Images: 1, Dir: r.Dir, Job: func(j *pipeline.Job) {
		work, labels := r.URL("work-device"), r.URL("labels-device")
		*j = *r.Job
		j.Preprocess.Normalise, j.Work.Bucket, j.Labels.Bucket = "device", work, labels
	}})
}

// committed returns name and sha256 of everything that the stages up to the
// label tables have committed.
func committed(t testing.TB, run *pipeline.Run) map[string]string {
	t.Helper()
	commits, err := run.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, c := range commits {
		for _, o := range c.Outputs {
			all[o.Name] = o.SHA256
		}
	}
	return all
}

// coupled is a classifier in which the images of a batch see each other.
func coupled(t testing.TB) func(*pipeline.Job) {
	t.Helper()
	m, _ := onnxtest.Classifier{}.Build()
	b := onnx.Edit(m)
	mean := b.Node("ReduceMean", "mean", []string{"head_0"}, onnx.Ints("axes", 0), onnx.Int("keepdims", 1))
	b.Output(onnx.Value{Name: b.Node("Add", "coupled", []string{"head_0", mean}), DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 4}}})
	path := filepath.Join(t.TempDir(), "coupled.onnx")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	return func(j *pipeline.Job) { j.Model.Path, j.Model.Outputs = path, []string{"coupled"} }
}

// TestNormalisedOnTheDevice: where images are normalised changes no byte of
// log-probabilities, features, samples, potentials and labels, even where a model
// lets the images of a batch see each other and places of the batch are blank.
func TestNormalisedOnTheDevice(t *testing.T) {
	files := pictures(t, 300)
	for i := range 300 {
		if i%7 == 3 {
			files[fmt.Sprintf("%03d.png", i)] = []byte("not an image")
		}
	}
	odd := func(j *pipeline.Job) {
		j.Preprocess.Mean, j.Preprocess.Std = [3]float64{0.4914, 0.4822, 0.4465}, [3]float64{0.2023, 1. / 3, 7}
	}
	for _, c := range []struct {
		name   string
		model  onnxtest.Classifier
		change func(*pipeline.Job)
	}{
		{"plain", onnxtest.Classifier{}, nil},
		{"odd statistics, resized", onnxtest.Classifier{Clusters: []int{4, 3}}, func(j *pipeline.Job) { odd(j); j.Preprocess.Resize = pipeline.Size{12} }},
		{"nhwc", onnxtest.Classifier{NHWC: true}, odd},
		{"float16", onnxtest.Classifier{DType: onnx.Float16}, odd},
		{"float16 nhwc", onnxtest.Classifier{DType: onnx.Float16, NHWC: true, OutputDType: onnx.Float16}, odd},
		{"fixed batch", onnxtest.Classifier{Batch: 7}, func(j *pipeline.Job) { j.Runtime.Batch = 0 }},
		{"features of the input itself", onnxtest.Classifier{}, func(j *pipeline.Job) { odd(j); j.Model.Features = "images" }},
		{"uint8", onnxtest.Classifier{DType: onnx.Uint8}, nil},
		{"coupled", onnxtest.Classifier{}, coupled(t)},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := world(t, files, c.model, func(j *pipeline.Job) {
				if c.change != nil {
					c.change(j)
				}
			})
			device := onDevice(t, host)
			if host.Provenance != device.Provenance {
				t.Errorf("provenance %+v, want %+v", device.Provenance, host.Provenance)
			}
			host.Through(t, host.Run, label.Name)
			device.Through(t, device.Run, label.Name)
			got, want := committed(t, device.Run), committed(t, host.Run)
			same(t, got, want)
			for _, part := range []string{"logprobs/", "labels/", "potentials/", "quarantine/"} {
				if !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(name string) bool { return strings.HasPrefix(name, part) }) {
					t.Errorf("nothing below %s was compared: %v", part, slices.Sorted(maps.Keys(want)))
				}
			}
		})
	}
}

// TestBytesOnTheDevice: a slot takes a byte for each sample, and the first batch
// and the second look that `sela verify` takes work on such slots, too.
func TestBytesOnTheDevice(t *testing.T) {
	ctx := context.Background()
	host := world(t, pictures(t, 40), onnxtest.Classifier{}, nil)
	host.Through(t, host.Run, extract.Name)
	device := onDevice(t, host)
	images, logProbs := listed(t, host.Run), read(t, host.Run, "logprobs/head-0")
	for _, r := range []*runtest.Run{host, device} {
		c := r.Classifier(t)
		slot, err := c.NewSlot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer slot.Close()
		in, samples := slot.Inputs[0], c.Batch*3*runtest.Size*runtest.Size
		if r == host && len(in.Float32()) != samples || r == device && (len(in.Uint8()) != samples || in.Float32() != nil) {
			t.Errorf("the input is %s %v", in.Type, in.Dims)
		}
		if p, err := c.Preflight(ctx, r.Images, images); err != nil || p.Images != c.Batch {
			t.Errorf("first batch: %+v, %v", p, err)
		}
		at := 0
		_, err = c.Rerun(ctx, r.Images, images, func(i int, again *extract.Rerun) error {
			for _, x := range again.LogProbs[0] {
				if math.Float32bits(x) != math.Float32bits(logProbs.values[at]) {
					t.Errorf("image %d: %v, want %v", i, x, logProbs.values[at])
				}
				at++
			}
			return nil
		})
		if err != nil || at != len(logProbs.values) {
			t.Errorf("%d values of %d: %v", at, len(logProbs.values), err)
		}
	}
}

// TestPreprocessingBelongsToTheRun: every table names the preprocessing that
// made it, and a worker whose pixels would be others cannot go on with a run.
func TestPreprocessingBelongsToTheRun(t *testing.T) {
	ctx := context.Background()
	r := world(t, pictures(t, 60), onnxtest.Classifier{Hidden: 3, Clusters: []int{3, 3}}, func(j *pipeline.Job) { j.Model.Features = "hidden" })
	r.Through(t, r.Run, label.Name)
	commits, err := r.AllCommits(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, c := range commits {
		for _, o := range c.Outputs {
			kind, _, _ := strings.Cut(o.Name, "/")
			local, release, err := r.Fetch(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			_, _, _, kv, err := schemas.Inspect(local)
			release()
			if err != nil {
				t.Fatal(err)
			}
			if kind == "images" { // the listing, made before any image is read
				continue
			}
			seen[kind]++
			if kv["preprocessing"] != r.Provenance.Preprocessing {
				t.Errorf("%s names preprocessing %q, the run's is %q", o.Name, kv["preprocessing"], r.Provenance.Preprocessing)
			}
		}
	}
	if want := map[string]int{"logprobs": 2, "sample": 2, "features": 1, "potentials": 2, "labels": 2}; !maps.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}

	spec := r.Classifier(t).Spec
	for name, change := range map[string]func(*pipeline.Job, *pipeline.Provenance){
		"decoder":     func(_ *pipeline.Job, p *pipeline.Provenance) { p.Preprocessing = strings.Repeat("d", 64) },
		"filter":      func(j *pipeline.Job, p *pipeline.Provenance) { j.Preprocess.Filter = "box" },
		"order":       func(j *pipeline.Job, p *pipeline.Provenance) { j.Preprocess.Order = "pillow-13" },
		"orientation": func(j *pipeline.Job, p *pipeline.Provenance) { j.Preprocess.Orientation = "exif" },
		"decode":      func(j *pipeline.Job, p *pipeline.Provenance) { j.Preprocess.Decode = "scaled" },
		"normalise":   func(j *pipeline.Job, p *pipeline.Provenance) { j.Preprocess.Normalise = "device" },
	} {
		job, p := *r.Job, r.Provenance
		change(&job, &p)
		_, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: &job, Provenance: p, RunID: "run-1"})
		word := "preprocess." + name
		if name == "decoder" {
			word = "preprocessing fingerprint: " + spec.Fingerprint()[:19]
		}
		fails(t, err, pipeline.Config, "run run-1 was started with another spec", "--run-id", word)
	}
}

// BenchmarkNormalise compares the stage with images normalised on the host and
// in the runtime's graph, here by the CPU provider, in turns.
func BenchmarkNormalise(b *testing.B) {
	for _, c := range []struct{ network, images, glob string }{
		{"resnet-s", "cifar10", "cifar10-test-*.tar"},
		{"resnet-18", "imagenet-samples", "*.tar"},
	} {
		b.Run(c.network, func(b *testing.B) {
			places := []string{"host", "device"}
			figures := map[string][]float64{}
			var passes []func() rate
			for _, place := range places {
				r, stage := benchRun(b, c.network, data(b, c.images), c.glob, func(j *pipeline.Job) { j.Preprocess.Normalise = place })
				defer stage.Close()
				if _, err := stage.Preflight(context.Background(), first(b, r, 128)); err != nil {
					b.Fatal(err)
				}
				slot, err := stage.Classifier().NewSlot(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				in := slot.Inputs[0]
				figures[place+"-B/image"] = []float64{float64(4*len(in.Float32())+len(in.Uint8())) / float64(stage.Classifier().Batch)}
				if err := slot.Close(); err != nil {
					b.Fatal(err)
				}
				n := len(listed(b, r.Run))
				passes = append(passes, func() rate {
					r.Forget(b, extract.Name)
					return clock(b, n, func() {
						if _, err := runner().Run(context.Background(), r.Run, stage); err != nil {
							b.Fatal(err)
						}
					})
				})
			}
			for b.Loop() {
				for range rounds {
					for i, place := range places {
						p := passes[i]()
						figures[place+"-images/s"] = append(figures[place+"-images/s"], 1/p.wall)
						figures[place+"-cpu-µs/image"] = append(figures[place+"-cpu-µs/image"], 1e6*p.cpu)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for name, values := range figures {
				b.ReportMetric(median(values), name)
			}
		})
	}
}
