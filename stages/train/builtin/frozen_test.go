package builtin

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/pipeline"
	"sela/stages/internal/onnx"
)

// What is frozen leaves a training bit for bit as it came; the rest moves.
func TestFrozen(t *testing.T) {
	m := network(1)
	var names []string
	before := map[string][]byte{}
	for _, x := range m.Proto.GetGraph().GetInitializer() {
		if onnx.DType(x.GetDataType()) == onnx.Float32 {
			names = append(names, x.GetName())
			before[x.GetName()] = wire(t, x)
		}
	}
	frozen := func(name string) bool { return name == "hidden.weight" || strings.HasPrefix(name, "head_0.") }
	tr := newTrainer(t, m, newMade(), t.TempDir())
	tr.spec.Epochs, tr.spec.Frozen = 1, []string{"hidden.weight", "head_0.*"}
	report := must(t, tr)
	after, err := onnx.Load(report.Model)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range after.Proto.GetGraph().GetInitializer() {
		if old, ok := before[x.GetName()]; ok && slices.Equal(old, wire(t, x)) != frozen(x.GetName()) {
			t.Errorf("%s changes though it is frozen, or stays though it is not (frozen: %v)", x.GetName(), frozen(x.GetName()))
		}
	}
	if want := []string{"hidden.weight", "head_0.weight", "head_1.weight"}; !slices.Equal(names, want) {
		t.Errorf("the network has %q, want %q", names, want)
	}
	for _, s := range tr.step.State {
		if frozen(s.Name) {
			t.Errorf("%s %s is a state of the step", s.Kind, s.Name)
		}
	}
}

// wire is a tensor's content.
func wire(t *testing.T, x proto.Message) []byte {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFrozenMistakes(t *testing.T) {
	for pattern, want := range map[string]string{"conv9.*": `nothing named "conv9.*"`, "*": "no parameters that are not frozen"} {
		tr := newTrainer(t, network(1), newMade(), t.TempDir())
		tr.spec.Frozen = []string{"hidden.weight", pattern}
		if _, err := tr.run(context.Background()); pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// A parameter that no gradient reaches is named, with the field that helps, and
// with its help the network trains.
func TestUnreached(t *testing.T) {
	m := network(1)
	b, g := onnx.Edit(m), m.Proto.GetGraph()
	head := g.GetOutput()[0].GetName()
	product := b.Node("Mul", "product", []string{head, b.Const("loose", onnx.NewTensor([]float32{1, 2, 3}, 3))})
	whole := b.Node("Cast", "whole", []string{product}, onnx.Int("to", int64(onnx.Int64)))
	whole = b.Node("Cast", "whole_float", []string{whole}, onnx.Int("to", int64(onnx.Float32)))
	g.Output[0].Name = proto.String(b.Node("Add", "rounded", []string{head, whole}))
	tr := newTrainer(t, m, newMade(), t.TempDir())
	tr.heads = []string{"rounded", "head_1"}
	err := tr.differentiate(nil)
	if pipeline.ClassOf(err) != pipeline.Config || !strings.Contains(err.Error(), `"loose"`) || !strings.Contains(err.Error(), "train.builtin.frozen") {
		t.Fatal(err)
	}
	tr.spec.Frozen = []string{"loose"}
	if err := tr.differentiate(nil); err != nil {
		t.Error(err)
	}
}

// What a killed process had half written is gone after the next start, and
// nothing else is.
func TestTidy(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".checkpoint.sela-123", ".metrics.csv-9", ".notes", "checkpoint.sela-mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tr := newTrainer(t, network(1), newMade(), dir)
	tr.spec.Epochs = 1
	must(t, tr)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	for name, want := range map[string]bool{".checkpoint.sela-123": false, ".metrics.csv-9": false, ".notes": true, "checkpoint.sela-mine": true, CheckpointFile: true} {
		if slices.Contains(names, name) != want {
			t.Errorf("%s in %q is not %v", name, names, want)
		}
	}
}
