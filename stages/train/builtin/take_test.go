package builtin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
	"sela/stages/internal/ort"
)

// However many steps a run of the graph takes, what comes out is the same to the
// byte: at the ends of epochs and of parts, where it is ended in between, and
// where a batch has no image.
func TestStepsInARun(t *testing.T) {
	shapes := map[string]func(*testing.T, string) *trainer{"a batch without images": func(t *testing.T, dir string) *trainer {
		s := newMade()
		s.empty = 4 // of 7 steps, within a run
		return newTrainer(t, network(1), s, dir)
	}, "masks": func(t *testing.T, dir string) *trainer { return newTrainer(t, dropping(), newMade(), dir) }}
	for name, shape := range partShapes {
		shapes[name] = shape
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			whole := must(t, shape(t, t.TempDir()))
			want := contents(t, whole.Model)
			for _, c := range []struct{ inRun, every int }{{3, 5}, {50, 0}} {
				dir, last := t.TempDir(), ""
				for _, until := range []float64{0.7, 0} {
					for done := false; !done; {
						tr := shape(t, dir)
						tr.inRun, tr.spec.Until = c.inRun, until
						if last != "" {
							goOn(t, tr, last)
						}
						if r := runFor(t, tr, c.every); r != nil {
							done, whole = true, r
						}
					}
					last, dir = dir, t.TempDir()
				}
				if contents(t, whole.Model) != want {
					t.Errorf("%d steps in a run give another model than one", c.inRun)
				}
			}
		})
	}
}

// dropping is the test's network with a Dropout in front of its heads.
func dropping() *onnx.Model {
	m := network(1)
	g := m.Proto.Graph
	at := slices.IndexFunc(g.Node, func(n *onnxpb.NodeProto) bool { return slices.Contains(n.Input, "hidden") })
	behind := slices.Clone(g.Node[at:])
	g.Node = g.Node[:at]
	b := onnx.Edit(m)
	dropped := b.Node("Dropout", "dropped", []string{"hidden", b.Const("ratio", onnx.NewTensor([]float32{0.5}))})
	for _, n := range behind {
		if i := slices.Index(n.Input, "hidden"); i >= 0 {
			n.Input[i] = dropped
		}
	}
	g.Node = append(g.Node, behind...)
	return m
}

// The step at which a loss goes wrong is named, wherever in a run it lies.
func TestNotFiniteInARun(t *testing.T) {
	for _, inRun := range []int{1, 2, 5} {
		s := newMade()
		s.poison = 3
		tr := newTrainer(t, network(1), s, t.TempDir())
		tr.inRun = inRun
		_, err := tr.run(context.Background())
		if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(fmt.Sprint(err), "at step 4 of epoch 1") {
			t.Errorf("%d steps in a run: %v", inRun, err)
		}
	}
}

func TestNumberOfStepsInARun(t *testing.T) {
	cuda := ort.Options{Providers: []ort.Provider{{Name: "cuda"}, {Name: ort.CPU}}}
	for _, c := range []struct {
		options ort.Options
		dims    []int64
		images  int
		want    int
	}{
		{ort.Options{}, []int64{256, 3, 32, 32}, 1 << 20, 1},
		{ort.Options{Providers: []ort.Provider{{Name: ort.CPU}}}, []int64{256, 3, 32, 32}, 1 << 20, 1},
		{cuda, []int64{256, 3, 32, 32}, 1 << 20, 21},      // 3 MiB each
		{cuda, []int64{256, 3, 224, 224}, 1 << 20, 1},     // more than there is room for
		{cuda, []int64{1, 3, 32, 32}, 1 << 20, 64},        // a stop would wait long
		{cuda, []int64{256, 3, 32, 32}, testBatch * 6, 6}, // an epoch
	} {
		tr := &trainer{options: c.options, source: &made{images: c.images}}
		tr.evaluator.dims = c.dims
		if got := tr.stepsInRun(); got != c.want {
			t.Errorf("%v on %v, %d images: %d steps, want %d", c.dims, c.options.Providers, c.images, got, c.want)
		}
	}
}
