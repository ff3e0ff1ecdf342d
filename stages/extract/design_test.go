package extract

import (
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
)

func TestDefaultBatch(t *testing.T) {
	for _, c := range []struct {
		model    onnxtest.Classifier
		provider string
		batch    int // of the job
		want     int
	}{
		{onnxtest.Classifier{Size: 32}, "cpu", 0, 64},
		{onnxtest.Classifier{Size: 128}, "cpu", 0, 32},
		{onnxtest.Classifier{Size: 224}, "cpu", 0, 8},
		{onnxtest.Classifier{Size: 384}, "cpu", 0, 8},
		{onnxtest.Classifier{Size: 224}, "cuda", 0, 64},
		{onnxtest.Classifier{Size: 224}, "cpu", 50, 50},
		{onnxtest.Classifier{Size: 224, Batch: 3}, "cpu", 0, 3},
	} {
		job := pipeline.DefaultJob()
		job.Preprocess.Crop, job.Runtime.Providers, job.Runtime.Batch = pipeline.Size{int(c.model.Size)}, []string{c.provider}, c.batch
		model, _ := c.model.Build()
		d, err := NewDesign(job, model)
		if err != nil || d.Batch != c.want {
			t.Errorf("%+v on %s: batch %d, want %d: %v", c.model, c.provider, d.Batch, c.want, err)
		}
	}
}

// TestFed: where images are normalised is no part of what the model sees.
func TestFed(t *testing.T) {
	for _, c := range []struct {
		model  onnxtest.Classifier
		device bool
		want   imageio.Spec
	}{
		{onnxtest.Classifier{}, true, imageio.Spec{DType: imageio.Uint8, Layout: imageio.NHWC}},
		{onnxtest.Classifier{DType: onnx.Float16, NHWC: true}, true, imageio.Spec{DType: imageio.Uint8, Layout: imageio.NHWC}},
		{onnxtest.Classifier{DType: onnx.Uint8}, false, imageio.Spec{DType: imageio.Uint8, Layout: imageio.NCHW}}, // it normalises by itself
	} {
		job := pipeline.DefaultJob()
		job.Preprocess.Crop = pipeline.Size{8}
		model, _ := c.model.Build()
		host, err := NewDesign(job, model)
		if err != nil {
			t.Fatal(err)
		}
		job.Preprocess.Normalise = "device"
		device, err := NewDesign(job, model)
		if err != nil {
			t.Fatal(err)
		}
		if host.OnDevice || host.Fed() != host.Spec || device.OnDevice != c.device || device.Spec != host.Spec {
			t.Errorf("%+v: host %+v, device %+v", c.model, host, device)
		}
		fed := device.Fed()
		if fed.DType != c.want.DType || fed.Layout != c.want.Layout || fed.Mean != c.want.Mean || fed.Std != c.want.Std ||
			fed.Resize != host.Spec.Resize || fed.Crop != host.Spec.Crop || fed.Limits != host.Spec.Limits {
			t.Errorf("%+v: fed %+v", c.model, fed)
		}
	}
}

func TestSpecOfJob(t *testing.T) {
	job := pipeline.DefaultJob()
	want := imageio.Spec{Decode: imageio.Exact, Orientation: imageio.IgnoreOrientation, Resize: imageio.Resize{Shorter: 256}, Crop: imageio.Size{Height: 224, Width: 224},
		Filter: imageio.Bilinear, Order: imageio.HorizontalFirst, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225},
		Limits: imageio.Limits{MaxBytes: 256 << 20, MaxPixels: 100_000_000}}
	if got := imageSpec(job.Preprocess); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	p := &job.Preprocess
	p.Decode, p.Orientation, p.Order, p.Filter, p.Resize, p.Crop = "scaled", "exif", "pillow-13", "lanczos", pipeline.Size{30, 40}, nil
	want.Decode, want.Orientation, want.Order, want.Filter = imageio.Scaled, imageio.EXIFOrientation, imageio.Pillow13, imageio.Lanczos
	want.Resize, want.Crop = imageio.Resize{Exact: imageio.Size{Height: 30, Width: 40}}, imageio.Size{}
	if got := imageSpec(job.Preprocess); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDefaultFeatures: a solve that clusters features has those that the heads
// read, unless the job names others; any other solve has none.
func TestDefaultFeatures(t *testing.T) {
	for _, c := range []struct{ method, named, want string }{
		{"lists", "", ""}, {"random", "", ""}, {"kmeans", "", "hidden"}, {"deepcluster", "", "hidden"}, {"kmeans", "images", "images"},
	} {
		job := pipeline.DefaultJob()
		job.Preprocess.Crop, job.Solve.Method, job.Model.Features = pipeline.Size{8}, c.method, c.named
		model, _ := onnxtest.Classifier{Hidden: 5}.Build()
		d, err := NewDesign(job, model)
		if err != nil || d.Features != c.want || len(d.Outputs) != 1 {
			t.Errorf("%s: features %q, want %q: %v", c.method, d.Features, c.want, err)
		}
		if c.named != "" || c.want == "" {
			continue
		}
		// Heads of no linear layer.
		b := onnx.Edit(model)
		b.Output(onnx.Value{Name: b.Node("Relu", "odd", []string{"head_0"}), DType: onnx.Float32, Shape: []onnx.Dim{{}, {Size: 4}}})
		if _, err := NewDesign(job, model); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "model.features") {
			t.Errorf("%s: %v", c.method, err)
		}
	}
}
