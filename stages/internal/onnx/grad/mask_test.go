package grad

import (
	"math"
	"slices"
	"testing"

	"sela/stages/internal/onnx"
)

// masked is a network whose inner values get a table added, as scores of
// attention do, before a softmax.
func masked(table []float32) *onnx.Model {
	b := onnx.NewBuilder("masked")
	ramp := func(name string, dims ...int64) string {
		list := make([]float32, elements(dims))
		for i := range list {
			list[i] = float32(i%7)/8 - 0.4
		}
		return b.Const(name, onnx.NewTensor(list, dims...))
	}
	x := b.Input(onnx.Value{Name: "images", DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}, {Size: 2}, {Size: 2}}})
	x = b.Node("MatMul", "", []string{b.Node("Flatten", "", []string{x}), ramp("weight", 12, 9)})
	x = b.Node("Reshape", "", []string{x, b.Const("square", onnx.NewInts([]int64{0, 3, 3}, 3))})
	x = b.Node("Add", "", []string{x, b.Const("table", onnx.NewTensor(table, 3, 3))})
	x = b.Node("Flatten", "", []string{b.Node("Softmax", "", []string{x}, onnx.Int("axis", -1))})
	b.Output(onnx.Value{Name: b.Node("MatMul", "head", []string{x, ramp("head.weight", 9, 2)}), DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 2}}})
	return b.Model()
}

// A mask stays what it is, and the parameters numbers; a table of other values
// is trained.
func TestMasks(t *testing.T) {
	triangle := func(x float32) []float32 { return []float32{0, x, x, 0, 0, x, 0, 0, 0} }
	for name, c := range map[string]struct {
		table   []float32
		trained bool
	}{
		"infinite": {triangle(float32(math.Inf(-1))), false},
		"finite":   {triangle(-100), false},
		"zeros":    {make([]float32, 9), true},
		"learned":  {[]float32{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewStep(masked(c.table), Options{Input: "images", Heads: []string{"head"}, Batch: 4, Loss: CrossEntropy, SGD: SGD{Momentum: 0.9, WeightDecay: 1e-2, ClipNorm: 1}})
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.ContainsFunc(s.State, func(s State) bool { return s.Name == "table" }); got != c.trained {
				t.Errorf("trained: %v, want %v", got, c.trained)
			}
			run, feeds := newRunner(t, s.Model, 1), initial(s)
			batch(s, feeds, 2, 0.1, 3)
			for range 3 {
				got := run.run(feeds)
				for name, list := range got {
					if slices.ContainsFunc(list, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
						t.Fatalf("%s is %v", name, list)
					}
				}
				advance(s, feeds, got)
			}
		})
	}
}
