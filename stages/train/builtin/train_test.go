package builtin

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort/orttest"
	"sela/stages/internal/runtest"
	"sela/stages/label"
	"sela/stages/model"
	"sela/stages/publish"
	"sela/stages/train"
)

// publishedRun is a run of 400 images whose labels are published: those of a
// linear classifier, which a network can learn from the images' colours.
func publishedRun(t *testing.T, change func(*pipeline.Job)) *runtest.Run {
	t.Helper()
	r := runtest.New(t, runtest.Options{Images: 400, Seed: 5, Job: func(j *pipeline.Job) {
		b := &j.Train.Builtin
		b.Epochs, b.Batch, b.Rate, b.HeldOut, b.Seed = 12, 32, 0.05, 0.2, 3
		b.Jitter, b.Grayscale, b.Scale = [4]float64{}, 0, [2]float64{0.5, 1}
		j.Train.Type = Name
		if change != nil {
			change(j)
		}
	}})
	r.Through(t, r.Run, label.Name)
	if _, err := runtest.Runner().Run(context.Background(), r.Run, &publish.Stage{Labels: r.Labels}); err != nil {
		t.Fatal(err)
	}
	return r
}

// config is the training of a network with a hidden layer, of other weights
// than the labels' model, on the run's labels.
func config(t *testing.T, r *runtest.Run, dir string) Config {
	t.Helper()
	m, _ := onnxtest.Classifier{Size: runtest.Size, Hidden: 16, Clusters: []int{3, 3}, Seed: 99}.Build()
	design, err := extract.NewDesign(r.Job, m)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Job: r.Job, Design: design, Digest: "other", Runtime: orttest.Open(t), Images: r.Images, Labels: tables(t, r), Dir: dir,
		Scratch: t.TempDir(), Observe: func(pipeline.Event) {}}
}

func tables(t *testing.T, r *runtest.Run) *Labels {
	t.Helper()
	ctx := context.Background()
	p, err := OpenPublished(ctx, r.Labels, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := LabelsCache(r.Job)
	if err != nil {
		t.Fatal(err)
	}
	labels, err := p.Labels(ctx, cache, ScanListing(r.Images, r.Job.Images))
	if err != nil {
		t.Fatal(err)
	}
	return labels
}

// From images and published tables to a network that predicts the labels of
// images it has not seen.
func TestTrainOnPublishedLabels(t *testing.T) {
	r := publishedRun(t, nil)
	c := config(t, r, t.TempDir())
	report, err := Train(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Last.HeldOut; got == nil || got.Accuracy < 0.8 || got.Loss > 0.7 {
		t.Errorf("held out %+v; chance is an accuracy of 0.33, a loss of 1.1", got)
	}
	if report.Images+report.HeldOut != 400 || report.HeldOut < 50 || report.Rejected != 0 || report.Parameters != 3*64*16+2*16*3 {
		t.Errorf("report %+v", report)
	}
	want := contents(t, report.Model)

	t.Run("again, interrupted", func(t *testing.T) {
		dir := t.TempDir()
		for left := 7; ; left += 11 {
			c := config(t, r, dir)
			ctx, cancel := context.WithCancel(context.Background())
			steps := 0
			c.Observe = func(e pipeline.Event) {
				if e.Kind == pipeline.RowsDone {
					if steps++; steps == left {
						cancel()
					}
				}
			}
			report, err := Train(ctx, c)
			cancel()
			if err == nil {
				if contents(t, report.Model) != want {
					t.Error("the model differs")
				}
				break
			}
			if pipeline.ClassOf(err) != pipeline.Interrupted {
				t.Fatal(err)
			}
		}
	})

	t.Run("from a trunk", func(t *testing.T) {
		c := config(t, r, t.TempDir())
		job := *r.Job
		job.Train.Builtin.Init, job.Train.Builtin.Epochs, job.Train.Builtin.Rate = report.Trunk, 1, 1e-9
		c.Job = &job
		short, err := Train(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		if short.Taken == nil || *short.Taken != (Taken{1, 1}) {
			t.Errorf("taken %+v", short.Taken)
		}
		// The rate is all but nothing: the trunk is the one it started from, the
		// heads are fresh.
		a, b := floatsOf(t, report.Model), floatsOf(t, short.Model)
		if x, y := a["hidden.weight"], b["hidden.weight"]; !near(x, y) {
			t.Error("the trunk did not start from the other's")
		}
		if x, y := a["head_0.weight"], b["head_0.weight"]; near(x, y) {
			t.Error("the head is the other's")
		}
	})

	for name, c := range map[string]struct {
		change func(*Config, *pipeline.Job)
		class  pipeline.Class
		want   string
	}{
		"spec":               {func(_ *Config, j *pipeline.Job) { j.Train.Builtin.Rate = 0 }, pipeline.Config, "train.builtin.rate is 0"},
		"probabilities":      {func(c *Config, _ *pipeline.Job) { c.Design.Kind = onnx.Probabilities }, pipeline.Config, "model.kind"},
		"no such trunk":      {func(_ *Config, j *pipeline.Job) { j.Train.Builtin.Init = "/nowhere/trunk.onnx" }, pipeline.Config, "trunk.onnx"},
		"an unrelated trunk": {func(_ *Config, j *pipeline.Job) { j.Train.Builtin.Init = unrelated(t) }, pipeline.Config, "none of its"},
		"no linear heads":    {func(c *Config, j *pipeline.Job) { j.Train.Builtin.RotationHead, c.Design = true, stackless(t, j) }, pipeline.Config, "rotation_head"},
		"rotated classes": {func(c *Config, j *pipeline.Job) {
			j.Train.Builtin.RotationHead = true
			c.Labels = &Labels{Heads: []int{3}, Classes: []string{"a", "b", "c"}}
		}, pipeline.Config, "rotation_head is for labels"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, r, t.TempDir())
			job := *r.Job
			cfg.Job = &job
			c.change(&cfg, &job)
			_, err := Train(context.Background(), cfg)
			if pipeline.ClassOf(err) != c.class || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// unrelated is a model whose parameters no trunk can take.
func unrelated(t *testing.T) string {
	return onnxtest.Write(t, t.TempDir(), "unrelated.onnx", onnxtest.Classifier{Size: runtest.Size, Hidden: 5, Clusters: []int{3, 3}})
}

// stackless is the design of a network whose heads no linear layer makes.
func stackless(t *testing.T, j *pipeline.Job) *extract.Design {
	m, _ := onnxtest.Classifier{Size: runtest.Size, Clusters: []int{3, 3}}.Build()
	e := onnx.Edit(m)
	var outs []string
	for _, h := range []string{"head_0", "head_1"} {
		outs = append(outs, e.Node("Tanh", h+".tanh", []string{h}))
	}
	m.Proto.Graph.Output = nil
	for _, o := range outs {
		e.Output(onnx.Value{Name: o, DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}}})
	}
	d, err := extract.NewDesign(j, m)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func floatsOf(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	m, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]float32{}
	for _, x := range m.Proto.GetGraph().GetInitializer() {
		if all[x.GetName()], err = m.Floats(x.GetName()); err != nil && onnx.DType(x.GetDataType()) == onnx.Float32 {
			t.Fatal(err)
		}
	}
	return all
}

func near(a, b []float32) bool {
	return len(a) > 0 && slices.EqualFunc(a, b, func(x, y float32) bool { return x-y < 1e-5 && y-x < 1e-5 })
}

// fire performs the training stage of the run as one command does.
func fire(t *testing.T, ctx context.Context, r *runtest.Run, change func(*Trigger)) error {
	t.Helper()
	graph, sum, err := model.Load(ctx, r.Job.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	design, err := extract.NewDesign(r.Job, graph)
	if err != nil {
		t.Fatal(err)
	}
	run := r.Open(t, "run-1")
	if run.Provenance.Model != sum {
		t.Fatal("the run is of another model")
	}
	trigger := Trigger{Run: run, Images: r.Images, Labels: r.Labels, Design: design, Runtime: func() (*model.Runtime, error) { return orttest.Open(t), nil }}
	if change != nil {
		change(&trigger)
	}
	_, err = runtest.Runner().Run(ctx, run, &train.Stage{Labels: r.Labels, Trigger: trigger})
	return err
}

func TestTrigger(t *testing.T) {
	ctx := context.Background()
	r := publishedRun(t, func(j *pipeline.Job) { j.Train.Builtin.Epochs = 3 })
	// Stopped in the second epoch, on a machine that is then lost.
	stop := make(chan struct{})
	err := fire(t, ctx, r, func(tr *Trigger) { tr.Stop = stop; close(stop) })
	if pipeline.ClassOf(err) != pipeline.Interrupted {
		t.Fatalf("stopped: %v", err)
	}
	want := func() string {
		if err := fire(t, ctx, r, nil); err != nil {
			t.Fatal(err)
		}
		return trainedModel(t, r)
	}
	whole := want()
	checkpoints := 0
	err = r.Work.List(ctx, r.Path("checkpoints/train/"), func(o bucket.Object) error {
		if checkpoints++; !strings.HasSuffix(o.Key, "epoch-000003.sela") {
			t.Errorf("checkpoint %s", o.Key)
		}
		return nil
	})
	if err != nil || checkpoints != 1 {
		t.Errorf("%d checkpoints in the work bucket, want that of the last epoch (%v)", checkpoints, err)
	}
	commit, err := r.Commit(ctx, train.Name, taskOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range commit.Outputs {
		names = append(names, o.Name)
	}
	if fmt.Sprint(names) != fmt.Sprint([]string{MetricsName, train.ModelName, TrunkName}) {
		t.Errorf("outputs %v", names)
	}
	for _, part := range []string{`"type":"builtin"`, "trained for 3 epochs; held-out accuracy", `"held_out"`} {
		if !strings.Contains(compact(string(commit.Result)), part) {
			t.Errorf("no %s in the result %s", part, commit.Result)
		}
	}
	// The outcome could not be recorded: the same again, from the last epoch.
	r.Forget(t, train.Name)
	if again := want(); again != whole {
		t.Error("fired again, it makes another model")
	}
	// On another machine: the checkpoint comes from the work bucket.
	r.Forget(t, train.Name)
	if err := os.RemoveAll(filepath.Join(r.Job.Local.Dir, "train")); err != nil {
		t.Fatal(err)
	}
	if err := fire(t, ctx, r, func(tr *Trigger) { tr.Images = runtest.Bucket(t, r.URL("elsewhere")) }); err != nil {
		t.Fatal("it wants images, though every epoch is in the bucket: ", err)
	}
	if again := trainedModel(t, r); again != whole {
		t.Error("on another machine it makes another model")
	}
	// Other settings begin anew, whatever there is.
	r.Forget(t, train.Name)
	r.Job.Train.Builtin.Seed = 77
	if other := want(); other == whole {
		t.Error("another seed makes the same model")
	}
}

// compact removes the spaces between JSON tokens of a commit.
func compact(s string) string {
	return strings.NewReplacer(": ", ":", "\n", "", "  ", "").Replace(s)
}

func taskOf(t *testing.T, r *runtest.Run) pipeline.Task {
	t.Helper()
	p, err := publish.Open(context.Background(), r.Run)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Task{ID: "trigger", Inputs: p.Digest}
}

// trainedModel is the content of the run's trained model, which must load.
func trainedModel(t *testing.T, r *runtest.Run) string {
	t.Helper()
	ctx := context.Background()
	commit, err := r.Commit(ctx, train.Name, taskOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range commit.Outputs {
		if o.Name != train.ModelName {
			continue
		}
		local, release, err := r.Fetch(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if _, err := onnx.Load(local); err != nil {
			t.Error(err)
		}
		return contents(t, local)
	}
	t.Fatal("no trained model")
	return ""
}

// What cannot be trained is refused before there are labels.
func TestCheck(t *testing.T) {
	job := pipeline.DefaultJob()
	job.Preprocess.Resize, job.Preprocess.Crop = nil, pipeline.Size{runtest.Size}
	design := func(c onnxtest.Classifier) *extract.Design {
		m, _ := c.Build()
		job.Model.Kind = string(onnx.Logits)
		if c.Kind != "" {
			job.Model.Kind = string(c.Kind)
		}
		job.Runtime.Batch = int(c.Batch)
		d, err := extract.NewDesign(job, m)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, good := range []onnxtest.Classifier{{}, {Hidden: 3, Clusters: []int{2, 5}}, {Kind: onnx.LogProbabilities}, {Batch: 128}} {
		if err := Check(job, design(good)); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for want, bad := range map[string]onnxtest.Classifier{
		"model.kind is probabilities": {Kind: onnx.Probabilities},
		"is not float32":              {DType: onnx.Uint8},
		"fixed batch":                 {Batch: 5},
		"several heads in one: give each an output of its own, or replace the heads": {Stacked: true, Clusters: []int{3, 3}},
	} {
		err := Check(job, design(bad))
		if pipeline.ClassOf(err) != pipeline.Config || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "train.type builtin") {
			t.Errorf("%+v: error %v, want %q", bad, err, want)
		}
	}
}

// A label table that lies, a label set that is gone, images that are gone.
func TestTriggerRefuses(t *testing.T) {
	ctx := context.Background()
	r := publishedRun(t, nil)
	for name, c := range map[string]struct {
		change func(*Trigger)
		class  pipeline.Class
		want   string
	}{
		"no runtime": {func(tr *Trigger) {
			tr.Runtime = func() (*model.Runtime, error) { return nil, pipeline.BadConfig(fs.ErrNotExist) }
		}, pipeline.Config, "not exist"},
		"other images": {func(tr *Trigger) { tr.Images = runtest.Bucket(t, r.URL("elsewhere")) }, pipeline.Data, "cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			err := fire(t, ctx, r, c.change)
			if pipeline.ClassOf(err) != c.class || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	// A table that is not the published one.
	var part string
	err := r.Labels.List(ctx, "runs/run-1/labels/head=1/", func(o bucket.Object) error { part = o.Key; return nil })
	if err != nil || part == "" {
		t.Fatal(part, err)
	}
	raw, err := r.Labels.Get(ctx, part)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := r.Labels.Put(ctx, part, raw); err != nil {
		t.Fatal(err)
	}
	if err := fire(t, ctx, r, nil); pipeline.ClassOf(err) != pipeline.Data {
		t.Errorf("a damaged table: %v", err)
	}
}

// Folders of trainings that nobody asked for in a long time make room.
func TestPrune(t *testing.T) {
	all := t.TempDir()
	for _, name := range []string{"old", "new"} {
		if err := os.MkdirAll(filepath.Join(all, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * model.Unused)
	if err := os.Chtimes(filepath.Join(all, "old"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := prune(all, filepath.Join(all, "mine")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(all)
	if err != nil || len(entries) != 2 || entries[0].Name() != "mine" || entries[1].Name() != "new" {
		t.Errorf("left: %v, %v", entries, err)
	}
}
