package grad

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"sela/stages/internal/onnx"
)

// All forms of a convolution's gradients agree at shapes that the random ones of
// TestGradients are too small or too even to reach: several chunks, staggered
// rows, phases without taps and of unequal numbers of them.
func TestConvolutionFormsAgree(t *testing.T) {
	for _, c := range []struct{ n, ch, size, o, kernel, stride, before, after int64 }{
		{4, 4, 8, 5, 3, 1, 1, 1},   // rows of 256 pixels: staggered
		{4, 32, 32, 4, 3, 1, 1, 1}, // two chunks
		{40, 32, 16, 3, 3, 1, 1, 1},
		{2, 5, 8, 3, 3, 2, 1, 1},
		{2, 5, 8, 3, 1, 2, 0, 0}, // three phases of four see nothing
		{2, 5, 9, 3, 5, 3, 2, 2},
		{2, 5, 9, 3, 2, 3, 1, 0},
		{2, 5, 8, 3, 4, 2, 1, 2},
		{1, 5, 8, 3, 7, 4, 3, 3},
		{2, 5, 7, 4, 3, 1, 1, 1}, // odd: Winograd's last tiles hang over
		{2, 5, 6, 4, 3, 1, 0, 2},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			conv := convolution{x: [4]int64{c.n, c.ch, c.size, c.size}, w: [4]int64{c.o, c.ch, c.kernel, c.kernel}, groups: 1}
			conv.window = window{kernel: [2]int64{c.kernel, c.kernel}, strides: [2]int64{c.stride, c.stride}, dilations: [2]int64{1, 1},
				before: [2]int64{c.before, c.before}, after: [2]int64{c.after, c.after}}
			out := (c.size+c.before+c.after-c.kernel)/c.stride + 1
			conv.y = [4]int64{c.n, c.o, out, out}
			x, w, dy := conv.x[:], conv.w[:], conv.y[:]
			for _, g := range []struct {
				what  string
				in    [][]int64
				forms []form
			}{
				{"output", [][]int64{x, w, {c.o}}, convForms(conv)},
				{"input", [][]int64{dy, w}, convInputForms(conv)},
				{"weight", [][]int64{x, dy}, convWeightForms(conv)},
			} {
				feeds, r := map[string]any{}, rand.New(rand.NewPCG(1, 2))
				p := Problem{Key: g.what, Forms: formNames(g.forms), forms: g.forms}
				for i, d := range g.in {
					name := fmt.Sprint("in_", i)
					p.Inputs = append(p.Inputs, onnx.Value{Name: name, DType: onnx.Float32, Shape: shape(d)})
					list := make([]float32, elements(d))
					for j := range list {
						list[j] = float32(r.NormFloat64())
					}
					feeds[name] = list
				}
				var first []float32
				for _, name := range p.Forms {
					m, err := p.Model(name)
					if err != nil {
						t.Fatal(err)
					}
					run := newRunner(t, m, 2)
					got := run.run(feeds)["out"]
					run.close()
					if first == nil {
						first = got
					}
					worst, size := 0., 0.
					for i := range got {
						worst = max(worst, math.Abs(float64(got[i]-first[i])))
						size += float64(first[i]) * float64(first[i])
					}
					if limit := 1e-5 * math.Sqrt(size/float64(len(first))); !(worst < limit) {
						t.Errorf("%s, %s: %g from %s, want below %g", g.what, name, worst, p.Forms[0], limit)
					}
				}
			}
		})
	}
}
