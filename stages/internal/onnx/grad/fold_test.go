package grad

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// What is computed while the graph is built is what ONNX Runtime computes.
func TestFolding(t *testing.T) {
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Neg", "Sqrt", "Reciprocal", "Abs",
		"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Concat", "Split", "Slice", "Gather"} {
		t.Run(op, func(t *testing.T) {
			ts := &trials{tape: newTape("trials"), feeds: map[string][]float32{}}
			for i := range uint64(24) {
				if _, err := ts.add(operatorCases[op](rand.New(rand.NewPCG(i, 9))), i, nil); err != nil {
					t.Fatal(err)
				}
			}
			feeds := map[string]any{}
			for name, list := range ts.feeds {
				feeds[name] = list
			}
			got := newRunner(t, ts.b.Model(), 1).run(feeds)
			for id, tr := range ts.list {
				n := &node{p: &onnxpb.NodeProto{Attribute: tr.attrs, Output: tr.y}, opset: tr.opset, read: map[string]bool{}}
				for i, v := range tr.in {
					if v != nil && !v.known() {
						list := ts.feeds[fmt.Sprintf("x%d.%d", id, i)]
						v = build(onnx.Float32, v.dims, func([]int64) float64 {
							x := list[0]
							list = list[1:]
							return float64(x)
						})
					}
					n.in = append(n.in, v)
				}
				for i, y := range operators[op].translate(newTape("folded"), n) {
					if !y.known() {
						t.Fatalf("%v: nothing known", tr.graph)
					}
					for j, want := range got[tr.y[i]] {
						if d := y.data[j] - float64(want); d > 1e-5 || d < -1e-5 {
							t.Fatalf("%v: element %d is %g, ONNX Runtime computes %g", tr.graph, j, y.data[j], want)
						}
					}
				}
			}
		})
	}
}
