package extract_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// TestEstimate holds what is predicted against what a run takes.
func TestEstimate(t *testing.T) {
	for _, stored := range []string{"float32", "uint16"} {
		t.Run(stored, func(t *testing.T) { estimate(t, stored) })
	}
}

func estimate(t *testing.T, stored string) {
	files := mixed(t)
	for key := range files {
		if strings.HasSuffix(key, ".tar") {
			delete(files, key)
		}
	}
	for key, data := range pictures(t, 1100) {
		files[key] = data
	}
	r := world(t, files, onnxtest.Classifier{Hidden: 40, Clusters: []int{60, 90, 30}}, func(j *pipeline.Job) {
		j.Images.MaxRejected, j.Extract.Stored = 1, stored
		withFeatures(j)
	})
	r.Through(t, r.Run, list.Name)
	all := listed(t, r.Run)
	e := extract.NewEstimate(r.Job, r.Classifier(t), int64(len(all)))
	stage := r.Stages()[1].(*extract.Stage)
	tasks, err := stage.Plan(context.Background(), r.Run)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	if int64(len(tasks)) != e.Shards || tasks[0].Scratch != e.ScratchBytes || tasks[0].Rows != pipeline.ChunkRows {
		t.Errorf("%d tasks, the first of %d rows with %d bytes of scratch; predicted were %d with %d", len(tasks), tasks[0].Rows, tasks[0].Scratch, e.Shards, e.ScratchBytes)
	}
	if _, err := runtest.Runner().Run(context.Background(), r.Run, stage); err != nil {
		t.Fatal(err)
	}
	var bytes, first, head int64
	for _, o := range outputs(t, r.Run) {
		bytes += o.Bytes
		if strings.Contains(o.Name, "part-00000") || strings.Contains(o.Name, "extract-00000") {
			first += o.Bytes
		}
		if strings.HasPrefix(o.Name, "logprobs/head-1/") {
			head += o.Bytes
		}
	}
	for _, c := range []struct {
		name           string
		took, expected int64
	}{{"in all", bytes, e.TotalBytes}, {"the largest head", head, e.HeadBytes}} {
		if share := float64(c.took) / float64(c.expected); share < 0.9 || share > 1.1 {
			t.Errorf("%s: %d bytes, predicted %d", c.name, c.took, c.expected)
		}
	}
	if first > e.ScratchBytes {
		t.Errorf("a task's files have %d bytes, its scratch is bounded by %d", first, e.ScratchBytes)
	}
	more := *r.Job
	more.Extract.ReadAhead, more.Extract.Requests = more.Extract.ReadAhead+1<<20, 1000
	// The bytes read ahead are held twice, and a request has buffers.
	if least := e.MemoryBytes + 2<<20 + 1000*(4<<10) - 256*(64<<10); extract.NewEstimate(&more, r.Classifier(t), int64(len(all))).MemoryBytes < least {
		t.Errorf("with more read-ahead and requests memory is below %d", least)
	}
	// Once all is done, a plan needs no model.
	if err := os.Remove(r.Job.Model.Path); err != nil {
		t.Fatal(err)
	}
	again := &extract.Stage{Images: r.Images, Open: func(context.Context) (*extract.Classifier, error) {
		t.Error("the model is opened")
		return nil, os.ErrInvalid
	}}
	if _, err := again.Plan(context.Background(), r.Run); err != nil {
		t.Error(err)
	}
}
