package builtin

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/train"
)

// partShapes are trainings of a few epochs.
var partShapes = map[string]func(*testing.T, string) *trainer{
	"classifier": func(t *testing.T, dir string) *trainer {
		tr := newTrainer(t, network(1), newMade(), dir)
		tr.spec.Epochs = 4
		return tr
	},
	"residual network, rotation head": func(t *testing.T, dir string) *trainer {
		m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: testSide, Head: onnx.CosineHead, Heads: 2, Clusters: 4, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		s := newMade()
		s.rotations = true
		tr := newTrainer(t, m, s, dir)
		tr.clusters, tr.spec.RotationHead, tr.spec.Nesterov, tr.spec.Clip, tr.spec.Epochs, tr.spec.Warmup = []int{4, 4}, true, true, 1, 2, 0.3
		return tr
	},
}

// goOn makes tr, of the same training, the part behind the one that ended in dir.
func goOn(t *testing.T, tr *trainer, dir string) {
	t.Helper()
	var err error
	if tr.model, err = onnx.Load(filepath.Join(dir, ModelFile)); err != nil {
		t.Fatal(err)
	}
	tr.after = filepath.Join(dir, CheckpointFile)
	if _, tr.identity.After, err = partBefore(tr.after); err != nil {
		t.Fatal(err)
	}
}

// valuesOf are the values of all states at the end of the training in dir.
func valuesOf(t *testing.T, tr *trainer, dir string) [][]float32 {
	t.Helper()
	var values [][]float32
	for _, s := range tr.step.State {
		values = append(values, make([]float32, elements(s.Dims)))
	}
	if _, err := restore(filepath.Join(dir, CheckpointFile), beginAnew, header{States: statesOf(tr.step), Sums: newSums(tr.outputs())}, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// A training in parts, of whole epochs or not, ended anywhere within them or not,
// comes to what it comes to in one piece.
func TestPartsAreTheWhole(t *testing.T) {
	for name, shape := range partShapes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tr := shape(t, dir)
			report := must(t, tr)
			want, model, rows := valuesOf(t, tr, dir), floatsOf(t, report.Model), tr.header.Metrics
			for name, c := range map[string]struct {
				ends  []float64 // shares of the whole
				every int       // steps between two ends of a process; 0: none
			}{
				"epochs":      {[]float64{0.5, 0}, 0},
				"fractions":   {[]float64{0.08, 0.15, 0.63, 1}, 0},
				"interrupted": {[]float64{0.17, 0.62, 0}, 6},
			} {
				t.Run(name, func(t *testing.T) {
					last := ""
					var part *trainer
					var r *Report
					var ends []float64
					for _, share := range c.ends {
						ends = append(ends, share*float64(tr.spec.Epochs))
					}
					for _, until := range ends {
						dir := t.TempDir()
						for r = nil; r == nil; {
							part = shape(t, dir)
							part.spec.Until = until
							if last != "" {
								goOn(t, part, last)
							}
							r = runFor(t, part, c.every)
						}
						if at := until; until != 0 && math.Abs(r.Epochs-at) > 0.501/float64(newMade().Steps()) {
							t.Errorf("it ended after %g epochs, want %g", r.Epochs, at)
						}
						last = dir
					}
					if !reflect.DeepEqual(valuesOf(t, part, last), want) {
						t.Error("the last checkpoint has other values than the training in one piece")
					}
					if !reflect.DeepEqual(floatsOf(t, r.Model), model) {
						t.Error("the model has other parameters than that of the training in one piece")
					}
					checkRows(t, part.header.Metrics, rows, ends)
				})
			}
		})
	}
}

// runFor runs a training for so many steps, 0 being all; nil is an end before the
// last.
func runFor(t *testing.T, tr *trainer, steps int) *Report {
	t.Helper()
	stop := make(chan struct{})
	tr.stop = stop
	var left atomic.Int64
	left.Store(int64(steps))
	tr.observe = func(e pipeline.Event) {
		if e.Kind == pipeline.RowsDone && left.Add(-1) == 0 {
			close(stop)
		}
	}
	r, err := tr.run(context.Background())
	if err != nil && pipeline.ClassOf(err) != pipeline.Interrupted {
		t.Fatal(err)
	}
	return r
}

// checkRows wants a row for each end of an epoch, with the same held-out images
// measured, and one for each end of a part.
func checkRows(t *testing.T, rows, whole []Metrics, ends []float64) {
	t.Helper()
	steps := int64(newMade().Steps())
	var want []int64
	for e := range whole {
		want = append(want, int64(e+1)*steps)
	}
	for _, e := range ends {
		if at := int64(math.Round(e * float64(steps))); e != 0 && !slices.Contains(want, at) {
			want = append(want, at)
		}
	}
	slices.Sort(want)
	var got []int64
	for _, r := range rows {
		got = append(got, r.Step)
		if e := int((r.Step-1)/steps) + 1; r.Epoch != e {
			t.Errorf("the row of step %d is of epoch %d, want %d", r.Step, r.Epoch, e)
		}
		for _, w := range whole {
			if w.Step == r.Step && (fmt.Sprint(*r.HeldOut) != fmt.Sprint(*w.HeldOut) || r.Rate != w.Rate) {
				t.Errorf("step %d: held out %v at the rate %g, in one piece %v at %g", r.Step, *r.HeldOut, r.Rate, *w.HeldOut, w.Rate)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows of steps %v, want %v", got, want)
	}
}

// Heads drawn anew are a function of the seed and the step; nothing else changes.
func TestResetHeads(t *testing.T) {
	for name, shape := range partShapes {
		t.Run(name, func(t *testing.T) {
			begun := func(until float64, change func(*trainer)) (before, after [][]float32, states []grad.State) {
				dir := t.TempDir()
				tr := shape(t, dir)
				tr.spec.Until = until
				must(t, tr)
				next := shape(t, t.TempDir())
				goOn(t, next, dir)
				next.spec.ResetHeads = true
				change(next)
				if err := next.start(context.Background()); err != nil {
					t.Fatal(err)
				}
				defer next.stepper.Close()
				for _, v := range next.state() {
					after = append(after, slices.Clone(v))
				}
				return valuesOf(t, tr, dir), after, next.step.State
			}
			before, after, states := begun(1, func(*trainer) {})
			_, again, _ := begun(1, func(*trainer) {})
			if !reflect.DeepEqual(after, again) {
				t.Error("drawn twice, the heads differ")
			}
			_, seeded, _ := begun(1, func(tr *trainer) { tr.spec.Seed = 5 })
			_, later, _ := begun(1.5, func(*trainer) {})
			heads := 0
			for i, s := range states {
				head := strings.HasPrefix(s.Name, "head_") || strings.HasPrefix(s.Name, "projection.")
				what := fmt.Sprintf("%s %s %v", s.Kind, s.Name, s.Dims)
				switch {
				case !head:
					if !slices.Equal(after[i], before[i]) {
						t.Errorf("%s changed", what)
					}
				case s.Kind == grad.Momentum:
					if slices.ContainsFunc(after[i], func(x float32) bool { return x != 0 }) {
						t.Errorf("%s is not 0", what)
					}
				case len(s.Dims) == 1:
					want := float32(0)
					if strings.HasSuffix(s.Name, "projection.1.weight") || strings.HasSuffix(s.Name, "running_var") {
						want = 1
					}
					if slices.ContainsFunc(after[i], func(x float32) bool { return x != want }) {
						t.Errorf("%s is not %g", what, want)
					}
				default:
					heads++
					inputs := s.Dims[0] // of a MatMul
					if strings.HasPrefix(s.Name, "projection.") {
						inputs = s.Dims[1] // of a Gemm
					}
					if got, want := norm(after[i]), math.Sqrt(float64(len(after[i]))/float64(inputs)); math.Abs(got/want-1) > 0.25 {
						t.Errorf("%s has norm %g, want about %g", what, got, want)
					}
					if slices.Equal(after[i], seeded[i]) || slices.Equal(after[i], later[i]) || slices.Equal(after[i], before[i]) {
						t.Errorf("%s is the same for another seed, or another step, or was kept", what)
					}
				}
			}
			if heads < 2 {
				t.Errorf("%d matrices drawn anew", heads)
			}
		})
	}
}

func norm(values []float32) float64 {
	sum := 0.0
	for _, x := range values {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

func TestPartsRefuse(t *testing.T) {
	dir := t.TempDir()
	first := newTrainer(t, network(1), newMade(), dir)
	first.spec.Until = 1.5
	must(t, first)
	good := contents(t, filepath.Join(dir, CheckpointFile))
	other := filepath.Join(t.TempDir(), "other.sela")
	for name, c := range map[string]struct {
		change func(*trainer)
		class  pipeline.Class
		want   string
	}{
		"nothing to train": {func(tr *trainer) { tr.spec.Until = 1.5 }, pipeline.Config, "nothing to train: this part begins at step 11 and ends at step 11"},
		"ends before":      {func(tr *trainer) { tr.spec.Until = 1 }, pipeline.Config, "raise train.builtin.until (1)"},
		"less than a step": {func(tr *trainer) { tr.spec.Until, tr.after = 0.01, "" }, pipeline.Config, "nothing to train"},
		"another network":  {func(tr *trainer) { tr.model, _ = wider(tr) }, pipeline.Config, "it has hidden.weight [192 12] where this one has hidden.weight [192 13]"},
		"no momentum":      {func(tr *trainer) { tr.spec.Momentum = 0 }, pipeline.Config, "give that of the part before in train.builtin.after"},
		"no file":          {func(tr *trainer) { tr.after = filepath.Join(dir, "none") }, pipeline.Config, "train.builtin.after"},
		"damaged":          {func(tr *trainer) { tr.after = other; write(t, other, good[:len(good)-50]+"x"+good[len(good)-49:]) }, pipeline.Data, "sha256"},
		"no checkpoint":    {func(tr *trainer) { tr.after = other; write(t, other, "ONNX") }, pipeline.Data, "does not begin as one"},
		"fewer images": {func(tr *trainer) {
			s := newMade()
			s.images = testBatch
			tr.open = func([]gradMask) (source, error) { return s, nil }
		}, pipeline.Config, "is of step 4 of an epoch, these labels' images make 1"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrainer(t, network(1), newMade(), t.TempDir())
			goOn(t, tr, dir)
			c.change(tr)
			_, err := tr.run(context.Background())
			if pipeline.ClassOf(err) != c.class || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(tr.dir, CheckpointFile)); err == nil {
				t.Error("there is a checkpoint of it")
			}
		})
	}
}

// The trigger leaves the checkpoint of a part in the work bucket, from where the
// next part goes on, on any machine.
func TestTriggerTrainsParts(t *testing.T) {
	ctx := context.Background()
	r := publishedRun(t, func(j *pipeline.Job) { j.Train.Builtin.Epochs = 3 })
	outputs := func() map[string]string {
		t.Helper()
		if err := fire(t, ctx, r, nil); err != nil {
			t.Fatal(err)
		}
		commit, err := r.Commit(ctx, train.Name, taskOf(t, r))
		if err != nil {
			t.Fatal(err)
		}
		paths := map[string]string{}
		for _, o := range commit.Outputs {
			paths[o.Name] = r.URL("work/" + r.Path(o.Path))
		}
		return paths
	}
	if p := outputs(); p[CheckpointName] != "" {
		t.Errorf("a training in one piece leaves a checkpoint: %v", p)
	}
	whole := trainedModel(t, r)
	b := &r.Job.Train.Builtin
	for _, until := range []float64{1.4, 2.5, 0} {
		r.Forget(t, train.Name)
		b.Until = until
		if err := os.RemoveAll(filepath.Join(r.Job.Local.Dir, "train")); err != nil {
			t.Fatal(err)
		}
		if b.After = outputs()[CheckpointName]; b.After == "" {
			t.Fatalf("the part until %g leaves no checkpoint", until)
		}
	}
	if trainedModel(t, r) != whole {
		t.Error("the parts' model differs from that of the training in one piece")
	}
}
