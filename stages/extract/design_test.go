package extract

import (
	"testing"

	"sela/pipeline"
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
