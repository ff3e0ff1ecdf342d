package imageio

import (
	"path/filepath"
	"testing"
)

// realImages returns up to n files of a tar of the shared data.
func realImages(b *testing.B, tar string, n int) (files [][]byte) {
	all := func(string) bool { return true }
	eachMember(b, filepath.Join(sharedData(b), tar), all, func(_ string, data []byte) bool {
		files = append(files, data)
		return len(files) < n
	})
	return files
}

// BenchmarkProcess is the whole way from file to float32 tensor and each of its
// steps, on one core: ns per image, and images per second.
func BenchmarkProcess(b *testing.B) {
	for _, c := range []struct {
		name, tar string
		n         int
		spec      Spec
	}{
		{"cifar", "cifar10/cifar10-test-00000.tar", 1000, Spec{Crop: Size{32, 32}}},
		{"imagenet", "imagenet-samples/imagenet-samples-00000.tar", 60, Spec{Resize: Resize{Shorter: 256}, Crop: Size{224, 224}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			files := realImages(b, c.tar, c.n)
			p, err := New(c.spec)
			if err != nil {
				b.Fatal(err)
			}
			out := make([]float32, p.Len())
			rate := func(b *testing.B) {
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
			}
			b.Run("all", func(b *testing.B) {
				w := p.NewWorker()
				b.ReportAllocs()
				for i := range b.N {
					if err := w.Float32(files[i%len(files)], out); err != nil {
						b.Fatal(err)
					}
				}
				rate(b)
			})
			b.Run("decode", func(b *testing.B) {
				w := p.NewWorker()
				b.ReportAllocs()
				for i := range b.N {
					if _, err := w.Decode(files[i%len(files)]); err != nil {
						b.Fatal(err)
					}
				}
				rate(b)
			})
			b.Run("resize", func(b *testing.B) {
				images := make([]RGB, len(files))
				d := &p.NewWorker().decoder
				for i := range files {
					if err := d.decode(files[i], nil, &images[i]); err != nil {
						b.Fatal(err)
					}
				}
				w := p.NewWorker()
				pix := make([]byte, p.Len())
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					m := &images[i%len(images)]
					p.spec.plan(m.Width, m.Height).resize(&w.resizer, pix, m, Bilinear, HorizontalFirst)
				}
				rate(b)
			})
			b.Run("normalise", func(b *testing.B) {
				pix := make([]byte, p.Len())
				for b.Loop() {
					p.f32.write(out, pix, NCHW)
				}
				rate(b)
			})
		})
	}
}
