package grad

import (
	"path/filepath"
	"slices"
	"testing"

	binding "github.com/yalue/onnxruntime_go"

	"sela/stages/internal/onnx"
	"sela/stages/internal/ort/orttest"
)

// runner is a graph loaded in ONNX Runtime. Its inputs and outputs are those
// of the model, which states their shapes.
type runner struct {
	t       testing.TB
	session *binding.DynamicAdvancedSession
	in, out []onnx.Value
}

func newRunner(t testing.TB, m *onnx.Model, threads int) *runner {
	t.Helper()
	orttest.Open(t)
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	o, err := binding.NewSessionOptions()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Destroy()
	if err := o.SetIntraOpNumThreads(threads); err != nil {
		t.Fatal(err)
	}
	r := &runner{t: t, in: m.Inputs()}
	info, err := onnx.Inspect(m)
	if err != nil {
		t.Fatal(err)
	}
	r.out = info.Outputs
	var names [2][]string
	for i, list := range [][]onnx.Value{r.in, r.out} {
		for _, v := range list {
			names[i] = append(names[i], v.Name)
		}
	}
	if r.session, err = binding.NewDynamicAdvancedSession(path, names[0], names[1], o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// close ends the session; more than once does nothing.
func (r *runner) close() {
	if r.session != nil {
		r.session.Destroy()
		r.session = nil
	}
}

// run computes the outputs, by name. Feeds are []float32, []int64 or []uint8 by
// name; every output must have the shape that the model
// states, if it does.
func (r *runner) run(feeds map[string]any) map[string][]float32 {
	r.t.Helper()
	var in []binding.Value
	for _, v := range r.in {
		var dims binding.Shape
		for _, d := range v.Shape {
			dims = append(dims, d.Size)
		}
		var tensor binding.Value
		var err error
		switch f := feeds[v.Name].(type) {
		case []float32:
			tensor, err = binding.NewTensor(dims, f)
		case []int64:
			tensor, err = binding.NewTensor(dims, f)
		case []uint8:
			tensor, err = binding.NewTensor(dims, f)
		default:
			r.t.Fatalf("input %s: nothing to feed", v)
		}
		if err != nil {
			r.t.Fatalf("input %s: %v", v, err)
		}
		defer tensor.Destroy()
		in = append(in, tensor)
	}
	out := make([]binding.Value, len(r.out))
	if err := r.session.Run(in, out); err != nil {
		r.t.Fatal(err)
	}
	values := map[string][]float32{}
	for i, o := range out {
		tensor := o.(*binding.Tensor[float32])
		var stated []int64
		for _, d := range r.out[i].Shape {
			stated = append(stated, d.Size)
		}
		if r.out[i].Shape != nil && !slices.Equal(stated, []int64(tensor.GetShape())) {
			r.t.Fatalf("output %s has shape %v", r.out[i], tensor.GetShape())
		}
		values[r.out[i].Name] = slices.Clone(tensor.GetData())
		tensor.Destroy()
	}
	return values
}

// initial returns feeds of the step's state.
func initial(s *Step) map[string]any {
	feeds := map[string]any{}
	for _, state := range s.State {
		list := state.Initial
		if list == nil {
			list = make([]float32, elements(state.Dims))
		}
		feeds[state.In] = slices.Clone(list)
	}
	return feeds
}

// advance makes the state that a run returned the next run's.
func advance(s *Step, feeds map[string]any, got map[string][]float32) {
	for _, state := range s.State {
		feeds[state.In] = got[state.Out]
	}
}
