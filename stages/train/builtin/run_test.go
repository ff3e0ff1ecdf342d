package builtin

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
)

func TestLearns(t *testing.T) {
	dir := t.TempDir()
	tr := newTrainer(t, network(1), newMade(), dir)
	tr.spec.Epochs = 8
	var rows int64
	events := map[pipeline.Kind]int{}
	tr.observe = func(e pipeline.Event) {
		events[e.Kind]++
		if e.Kind == pipeline.RowsDone {
			rows += e.Rows
		}
	}
	r := must(t, tr)
	first, last := tr.header.Metrics[0], r.Last
	if !(last.Train.Loss < 0.6*first.Train.Loss) {
		t.Errorf("the training loss went from %g to %g", first.Train.Loss, last.Train.Loss)
	}
	if last.HeldOut == nil || last.HeldOut.Accuracy < 0.75 || len(last.HeldOut.Heads) != 2 {
		t.Errorf("held out: %+v; chance is 0.29", last.HeldOut)
	}
	if want := int64(8 * newMade().images); rows != want || events[pipeline.StageStarted] != 1 || events[pipeline.StageDone] != 1 {
		t.Errorf("progress of %d images, want %d; events %v", rows, want, events)
	}
	// What is exported is what was measured: the network in evaluation mode.
	m, err := onnx.Load(r.Model)
	if err != nil {
		t.Fatal(err)
	}
	again, err := tr.evaluator.scores(context.Background(), m, tr.source.HeldOut)
	if err != nil || fmt.Sprint(*again) != fmt.Sprint(*last.HeldOut) {
		t.Errorf("the exported model has %+v, measured was %+v (%v)", again, last.HeldOut, err)
	}
	info, err := onnx.Inspect(m)
	if err != nil || info.Metadata[metaTrainedOn] != "l" || info.Metadata[metaEpochs] != "8" || info.Metadata[metaSeed] != "0" {
		t.Errorf("metadata %v, %v", info.Metadata, err)
	}
	body, err := onnx.Load(r.Trunk)
	if err != nil {
		t.Fatal(err)
	}
	if info, err = onnx.Inspect(body); err != nil || len(info.Outputs) != 1 || info.Outputs[0].Shape[1].Size != 12 {
		t.Errorf("the trunk has outputs %v (%v), want the 12 hidden values", info.Outputs, err)
	}
	checkTable(t, filepath.Join(dir, MetricsFile), tr.header.Metrics)
}

// checkTable reads metrics.csv back.
func checkTable(t *testing.T, path string, want []Metrics) {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(contents(t, path))).ReadAll()
	if err != nil || len(rows) != len(want)+1 {
		t.Fatalf("%d rows, want a header and %d: %v", len(rows), len(want), err)
	}
	for i, m := range want {
		row := rows[i+1]
		for name, x := range map[string]float64{"epoch": float64(m.Epoch), "step": float64(m.Step), "rate": m.Rate, "train_loss": m.Train.Loss,
			"held_out_accuracy": m.HeldOut.Accuracy, "head_1_train_accuracy": m.Train.Heads[1].Accuracy, "waiting": m.Waiting} {
			var got float64
			for c, cell := range rows[0] {
				if cell == name {
					fmt.Sscan(row[c], &got)
				}
			}
			if math.Abs(got-x) > 1e-6*math.Abs(x) {
				t.Errorf("epoch %d: %s is %g, want %g", m.Epoch, name, got, x)
			}
		}
	}
}

// However often a training ends and begins again, what comes out is the same to
// the byte.
func TestResumesToTheBit(t *testing.T) {
	for name, shape := range map[string]func(*testing.T, string) *trainer{
		"classifier": func(t *testing.T, dir string) *trainer { return newTrainer(t, network(1), newMade(), dir) },
		"residual network, rotation head": func(t *testing.T, dir string) *trainer {
			m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: testSide, Heads: 2, Clusters: 4, Seed: 3})
			if err != nil {
				t.Fatal(err)
			}
			s := newMade()
			s.rotations = true
			tr := newTrainer(t, m, s, dir)
			tr.clusters, tr.spec.RotationHead, tr.spec.Nesterov, tr.spec.Clip, tr.spec.Epochs = []int{4, 4}, true, true, 1, 2
			return tr
		},
	} {
		t.Run(name, func(t *testing.T) {
			whole := must(t, shape(t, t.TempDir()))
			want := contents(t, whole.Model)
			dir := t.TempDir()
			for cut := 1; ; cut += 3 {
				tr := shape(t, dir)
				steps := tr.spec.Epochs * newMade().Steps()
				ctx, cancel := context.WithCancel(context.Background())
				stop := make(chan struct{})
				tr.stop = stop
				var left atomic.Int64
				left.Store(4)
				how := cut % 3
				if how == 0 { // as by a power cut: what was not in a checkpoint is lost
					tr.spec.Checkpoint = 1
					s := newMade()
					s.rotations = tr.spec.RotationHead
					s.fail = cut
					open := tr.open
					tr.open = func(m []gradMask) (source, error) { _, err := open(m); return s, err }
				}
				tr.observe = func(e pipeline.Event) {
					if e.Kind == pipeline.RowsDone && left.Add(-1) == 0 {
						switch how {
						case 1:
							close(stop)
						case 2:
							cancel()
						}
					}
				}
				r, err := tr.run(ctx)
				cancel()
				if err == nil {
					if got := contents(t, r.Model); got != want {
						t.Error("the model differs from that of an uninterrupted training")
					}
					if fmt.Sprint(scoresOf(r.Last)) != fmt.Sprint(scoresOf(whole.Last)) {
						t.Errorf("metrics are %v, want %v", r.Last, whole.Last)
					}
					break
				}
				if how != 0 && pipeline.ClassOf(err) != pipeline.Interrupted {
					t.Fatalf("ended with %v", err)
				}
				if cut > 10*steps {
					t.Fatal("it never ends")
				}
			}
			// Once more changes nothing.
			if got := contents(t, must(t, shape(t, dir)).Model); got != want {
				t.Error("asking again for a finished training changes the model")
			}
		})
	}
}

func scoresOf(m Metrics) []any { return []any{m.Epoch, m.Step, m.Rate, m.Train, *m.HeldOut} }

// A stop during the held-out images loses no step either.
func TestStoppedWhileMeasuring(t *testing.T) {
	want := contents(t, must(t, newTrainer(t, network(1), newMade(), t.TempDir())).Model)
	dir := t.TempDir()
	s := newMade()
	tr := newTrainer(t, network(1), s, dir)
	ctx, cancel := context.WithCancel(context.Background())
	tr.open = func([]gradMask) (source, error) { return &cutAtHeldOut{s, cancel}, nil }
	if _, err := tr.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
	if tr.header.Step != s.Steps() {
		t.Fatalf("it was cut at step %d", tr.header.Step)
	}
	tr = newTrainer(t, network(1), s, dir)
	if got := contents(t, must(t, tr).Model); got != want {
		t.Error("the model differs")
	}
	if len(s.calls) != 3 {
		t.Errorf("the epoch that was done was loaded again: %v", s.calls)
	}
}

type cutAtHeldOut struct {
	*made
	cancel func()
}

func (c *cutAtHeldOut) HeldOut(ctx context.Context, _ <-chan *Slot, _ chan<- *Slot) error {
	c.cancel()
	<-ctx.Done()
	return ctx.Err()
}

func TestNotFinite(t *testing.T) {
	dir := t.TempDir()
	tr := newTrainer(t, network(1), newMade(), dir)
	tr.spec.Epochs = 1
	must(t, tr)
	good := contents(t, filepath.Join(dir, CheckpointFile))

	s := newMade()
	s.poisonHeld = true
	if _, err := newTrainer(t, network(1), s, t.TempDir()).run(context.Background()); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), "held-out images is NaN after epoch 1") {
		t.Errorf("held out: %v", err)
	}
	// A later run of the same folder that goes wrong.
	for name, c := range map[string]struct {
		change func(*trainer)
		want   string
	}{
		"rate": {func(tr *trainer) { tr.spec.Rate = 1e30 }, "learning rate 1e+30"},
		"input": {func(tr *trainer) {
			s := newMade()
			s.poison = 2
			tr.open = func([]gradMask) (source, error) { return s, nil }
			other := t.TempDir()
			tr.dir = other
		}, "no checkpoint had been made"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrainer(t, network(1), newMade(), dir)
			tr.spec.Schedule = "steps"
			c.change(tr)
			_, err := tr.run(context.Background())
			if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "step ") ||
				!strings.Contains(err.Error(), "head ") {
				t.Errorf("error %v", err)
			}
			if contents(t, filepath.Join(dir, CheckpointFile)) != good {
				t.Error("the good checkpoint is gone")
			}
		})
	}
}

// A batch in which every image was unusable changes nothing.
func TestBatchWithoutImages(t *testing.T) {
	s := newMade()
	s.empty = 3
	tr := newTrainer(t, network(1), s, t.TempDir())
	r := must(t, tr)
	if x := r.Last.Train.Loss; math.IsNaN(x) || x <= 0 {
		t.Errorf("loss %g", x)
	}
	s = newMade()
	s.images = testBatch + 1
	s.empty = 1
	all := newTrainer(t, network(1), &emptied{s}, t.TempDir())
	if _, err := all.run(context.Background()); pipeline.ClassOf(err) != pipeline.Data {
		t.Errorf("no image at all: %v", err)
	}
}

type emptied struct{ *made }

func (e *emptied) Run(ctx context.Context, epoch, from int, free <-chan *Slot, ready chan<- *Slot) error {
	for range e.Steps() - from {
		s, err := take(ctx, free)
		if err != nil {
			return err
		}
		clear(s.Weights)
		ready <- s
	}
	return nil
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*trainer)
		class  pipeline.Class
		want   string
	}{
		"other heads":      {func(tr *trainer) { tr.clusters = []int{3, 4, 4} }, pipeline.Config, "heads of [3 4], the labels are of [3 4 4]"},
		"other clusters":   {func(tr *trainer) { tr.clusters = []int{4, 4} }, pipeline.Config, "--replace-heads"},
		"no such output":   {func(tr *trainer) { tr.heads = []string{"head_0", "tail"} }, pipeline.Config, "tail"},
		"no such input":    {func(tr *trainer) { tr.input = "pictures" }, pipeline.Config, `no input "pictures"`},
		"no memory at all": {func(tr *trainer) { tr.memory = 1 << 10 }, pipeline.Config, "no batch would fit"},
		"fixed batch": {func(tr *trainer) {
			tr.model.Proto.Graph.Input[0].Type.GetTensorType().Shape.Dim[0].Value = fixedBatch(5)
		}, pipeline.Config, "set train.builtin.batch to 5"},
		"bytes": {func(tr *trainer) {
			tr.model.Proto.Graph.Input[0].Type.GetTensorType().ElemType = typeOf(onnx.Uint8)
		}, pipeline.Config, "not float32"},
		"the source fails": {func(tr *trainer) {
			tr.open = func([]gradMask) (source, error) { return nil, pipeline.BadData(errors.New("no images")) }
		}, pipeline.Data, "no images"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrainer(t, network(1), newMade(), t.TempDir())
			c.change(tr)
			_, err := tr.run(context.Background())
			if pipeline.ClassOf(err) != c.class || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestCheckpointOfAnotherTraining(t *testing.T) {
	dir := t.TempDir()
	must(t, newTrainer(t, network(1), newMade(), dir))
	path := filepath.Join(dir, CheckpointFile)
	good := contents(t, path)
	for name, c := range map[string]struct {
		change func(*trainer)
		class  pipeline.Class
		want   string
	}{
		"network": {func(tr *trainer) { tr.identity.Network = "m" }, pipeline.Config, "network: n, now m"},
		"labels":  {func(tr *trainer) { tr.identity.Labels = "k" }, pipeline.Config, "labels: l, now k"},
		"spec":    {func(tr *trainer) { tr.identity.Spec = "r" }, pipeline.Config, "train.builtin: s, now r"},
		"shapes": {func(tr *trainer) {
			tr.model, _ = wider(tr)
		}, pipeline.Config, "other names or shapes"},
		"flipped":     {func(*trainer) { write(t, path, good[:len(good)-100]+"x"+good[len(good)-99:]) }, pipeline.Data, "sha256"},
		"cut":         {func(*trainer) { write(t, path, good[:len(good)/2]) }, pipeline.Data, "damaged"},
		"longer":      {func(*trainer) { write(t, path, good+"x") }, pipeline.Data, "sha256"},
		"empty":       {func(*trainer) { write(t, path, "") }, pipeline.Data, "does not begin as one"},
		"header":      {func(*trainer) { write(t, path, strings.Replace(good, `"epoch":3`, `"epoch":7`, 1)) }, pipeline.Data, "makes no sense"},
		"huge header": {func(*trainer) { write(t, path, magic+"\xff\xff\xff\xff\xff\xff\xff\x7f") }, pipeline.Data, "header of"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, path, good)
			tr := newTrainer(t, network(1), newMade(), dir)
			c.change(tr)
			_, err := tr.run(context.Background())
			if pipeline.ClassOf(err) != c.class || err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Checkpoints are made as often as asked within an epoch, and at its end.
func TestCheckpointsWithinAnEpoch(t *testing.T) {
	tr := newTrainer(t, network(1), newMade(), t.TempDir())
	tr.spec.Epochs, tr.spec.Checkpoint = 1, 1
	seen := map[int]bool{} // steps of checkpoints
	tr.observe = func(e pipeline.Event) {
		if e.Kind != pipeline.RowsDone {
			return
		}
		h, err := peek(filepath.Join(tr.dir, CheckpointFile), tr.identity)
		if err != nil {
			t.Error(err)
		}
		if h != nil {
			seen[h.Step] = true
		}
	}
	saved := 0
	tr.saved = func(_ context.Context, path string, epoch int) error {
		saved++
		if epoch != 1 {
			t.Errorf("saved after epoch %d", epoch)
		}
		return nil
	}
	must(t, tr)
	if steps := newMade().Steps(); len(seen) != steps-1 || saved != 1 {
		t.Errorf("checkpoints of steps %v were seen within %d; %d after an epoch", seen, steps, saved)
	}
}

// The forms of the gradients, which the last bits depend on, are those that the
// training began with.
func TestKeepsItsForms(t *testing.T) {
	shape := func(dir string, forms grad.Forms) *trainer {
		m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: testSide, Heads: 2, Clusters: 4, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		tr := newTrainer(t, m, newMade(), dir)
		tr.clusters, tr.spec.Epochs = []int{4, 4}, 2
		tr.choose = func(context.Context, []grad.Problem, func(int, grad.Problem)) (grad.Forms, error) { return forms, nil }
		return tr
	}
	plain := shape(t.TempDir(), nil)
	if err := plain.shape(context.Background(), false, nil); err != nil {
		t.Fatal(err)
	}
	others := grad.Forms{}
	for _, p := range plain.step.Problems {
		others[p.Key] = p.Forms[len(p.Forms)-1]
	}
	want := contents(t, must(t, shape(t.TempDir(), others)).Model)
	if contents(t, must(t, shape(t.TempDir(), nil)).Model) == want {
		t.Fatal("both forms give the same bits here: nothing to tell them apart by")
	}
	dir := t.TempDir()
	tr := shape(dir, others)
	ctx, cancel := context.WithCancel(context.Background())
	tr.saved = func(context.Context, string, int) error { cancel(); return nil }
	if _, err := tr.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if contents(t, must(t, shape(dir, nil)).Model) != want {
		t.Error("it went on with other forms")
	}
}
