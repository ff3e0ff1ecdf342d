package augment

import (
	"image"
	"testing"
	"time"

	"sela/stages/internal/imageio/resample"
)

// BenchmarkSteps is each step alone on one core: ns per pixel of the result,
// and images per second. Every image counts with its best time, so that other
// load on the machine shows less. testdata/bench.py does the same with
// torchvision.
func BenchmarkSteps(b *testing.B) {
	const draws = 32
	for _, c := range []struct {
		name                string
		side, width, height int // of the result; of the image
	}{{"32", 32, 32, 32}, {"224", 224, 500, 375}} {
		size := image.Pt(c.side, c.side)
		whole := image.Rectangle{Max: size}
		run := func(name string, s Spec, width, height int, choices ...Choices) {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				w := newWorker(b, s)
				src, dst := picture("smooth", width, height, nil), make([]byte, 3*c.side*c.side)
				best := make([]time.Duration, len(choices))
				for i := range best {
					best[i] = time.Hour
				}
				for i := range max(b.N, 5*len(choices)) {
					i %= len(choices)
					start := time.Now()
					if err := w.Apply(dst, src, width, height, choices[i]); err != nil {
						b.Fatal(err)
					}
					best[i] = min(best[i], time.Since(start))
				}
				var sum time.Duration
				for _, d := range best {
					sum += d
				}
				seconds := sum.Seconds() / float64(len(best))
				b.ReportMetric(seconds*1e9/float64(c.side*c.side), "ns/pixel")
				b.ReportMetric(1/seconds, "images/s")
				b.ReportMetric(0, "ns/op")
			})
		}
		step := func(name string, s Spec, choices Choices) {
			choices.Crop = whole
			run(name, s, c.side, c.side, choices)
		}
		jitter := func(op Op, x float32) {
			step(string(op), Spec{}, Choices{Jitter: [4]Adjustment{{op, x}}})
		}
		step("gray", Spec{}, Choices{Gray: true})
		jitter(Brightness, 1.3)
		jitter(Contrast, 0.7)
		jitter(Saturation, 1.3)
		jitter(Hue, 0.2)
		step("flip", Spec{}, Choices{Flip: true})
		step("rotate/nearest", Spec{Rotate: 10}, Choices{Angle: 8})
		step("rotate/bilinear", Spec{Rotate: 10, RotateFilter: resample.Bilinear}, Choices{Angle: 8})
		drawn := func(name string, s Spec) {
			var choices []Choices
			for row := range uint64(draws) {
				choices = append(choices, s.Draw(Key{Row: row}, c.width, c.height))
			}
			run(name, s, c.width, c.height, choices...)
		}
		drawn("crop", Spec{Size: size})
		drawn("jitter", Spec{Size: size, Scale: [2]float64{1, 1}, Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.4})
		drawn("reference", Spec{Size: size, Gray: 0.2, Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.4, Flip: 0.5})
	}
}
