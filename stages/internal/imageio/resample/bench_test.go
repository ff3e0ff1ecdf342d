package resample

import (
	"bufio"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var photographs = []image.Point{{X: 500, Y: 375}, {X: 2000, Y: 1500}}

// shorter is torchvision's Resize(256), followed by CenterCrop(224) if crop.
func shorter(from image.Point, crop bool, f Filter) Scaling {
	short := min(from.X, from.Y)
	s := Scaling{From: from, To: from.Mul(256).Div(short), Filter: f, Order: HorizontalFirst}
	s.Keep = image.Rectangle{Max: s.To}
	if crop {
		s.Keep = image.Rect(0, 0, 224, 224).Add(s.To.Sub(image.Pt(224, 224)).Div(2))
	}
	return s
}

// typical is the tenth percentile, which a busy machine disturbs little.
func typical(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/10]
}

// scale returns a function that runs s once on w, on noise.
func scale(w twin, s Scaling) func() {
	src := noise(rand.New(rand.NewPCG(1, 2)), 3*s.From.X*s.From.Y)
	out := make([]byte, 3*s.Keep.Dx()*s.Keep.Dy())
	var z Resizer
	return func() {
		before := active
		active = w
		z.Resize(out, 3*s.Keep.Dx(), src, 3*s.From.X, s)
		active = before
	}
}

// BenchmarkResize measures whole resizes with their coefficients at hand: time
// per image, multiply-adds of weights and samples, and the share of the rate at
// which copy moves the window of the source, measured in turn.
func BenchmarkResize(b *testing.B) {
	for _, from := range photographs {
		for _, f := range []Filter{Nearest, Box, Bilinear, Bicubic, Lanczos} {
			for _, crop := range []bool{false, true} {
				for _, w := range twins {
					s := shorter(from, crop, f)
					name := fmt.Sprintf("%dx%d/%s/%dx%d/%s", from.X, from.Y, f, s.Keep.Dx(), s.Keep.Dy(), w.name)
					b.Run(name, func(b *testing.B) {
						run := scale(w, s)
						window := s.Window()
						src := make([]byte, 3*window.Dx()*window.Dy())
						to := make([]byte, len(src))
						var times, copies []time.Duration
						for b.Loop() {
							times = append(times, timed(run))
							copies = append(copies, timed(func() { copy(to, src) }))
						}
						t := typical(times)
						b.ReportMetric(float64(t)/1e3, "µs/image")
						b.ReportMetric(float64(products(s))/float64(t), "Gmac/s")
						b.ReportMetric(float64(typical(copies))/float64(t), "of-copy")
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// products is how many samples are multiplied with a weight.
func products(s Scaling) (n int) {
	if s.Filter == Nearest {
		return 0
	}
	var h, v taps
	h.prepare(s.horizontal(), layout{})
	v.prepare(s.vertical(), layout{})
	for _, c := range h.count {
		n += 3 * c * v.span
	}
	for _, c := range v.count {
		n += 3 * c * h.n
	}
	return n
}

// BenchmarkPasses measures one pass each.
func BenchmarkPasses(b *testing.B) {
	for _, from := range photographs {
		for _, f := range []Filter{Bilinear, Lanczos} {
			for _, w := range twins {
				s := shorter(from, false, f)
				var h, v taps
				h.prepare(s.horizontal(), w.layout)
				v.prepare(s.vertical(), w.layout)
				src := make([]byte, 3*from.X*from.Y)
				mid, out := make([]byte, 3*s.To.X*from.Y), make([]byte, 3*s.To.X*s.To.Y)
				in, between, to := pixels{src, 3 * from.X}, pixels{mid, 3 * s.To.X}, pixels{out, 3 * s.To.X}
				var work scratch
				for name, pass := range map[string]func(){
					"across": func() { w.across(&h, in, between, from.Y, &work) },
					"down":   func() { w.down(&v, between, to, 3*s.To.X, &work) },
				} {
					b.Run(fmt.Sprintf("%dx%d/%s/%s/%s", from.X, from.Y, f, name, w.name), func(b *testing.B) {
						var times []time.Duration
						for b.Loop() {
							times = append(times, timed(pass))
						}
						b.ReportMetric(float64(typical(times))/1e3, "µs/pass")
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}

// BenchmarkTables measures the coefficients of a side of a new length.
func BenchmarkTables(b *testing.B) {
	for _, in := range []int{500, 2000} {
		for _, f := range []Filter{Nearest, Box, Bilinear, Bicubic, Lanczos} {
			b.Run(fmt.Sprintf("%s/%d", f, in), func(b *testing.B) {
				var t taps
				var times []time.Duration
				for b.Loop() {
					times = append(times, timed(func() { t.prepare(axis{f, in, 341, 58, 224}, active.layout) }))
				}
				b.ReportMetric(float64(typical(times))/1e3, "µs/table")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkPillow compares with the Pillow of the Python interpreter that
// SELA_PYTHON names, image by image in turn; the images are whole, as Pillow
// cannot leave out what is cropped.
func BenchmarkPillow(b *testing.B) {
	python := os.Getenv("SELA_PYTHON")
	if python == "" {
		b.Skip("SELA_PYTHON is not set")
	}
	cmd := exec.Command(python, "testdata/bench.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		b.Fatal("no answer from ", python)
	}
	b.Logf("Pillow %s", lines.Text())
	for _, from := range photographs {
		for _, f := range []Filter{Nearest, Box, Bilinear, Bicubic, Lanczos} {
			s := shorter(from, false, f)
			b.Run(fmt.Sprintf("%dx%d/%s", from.X, from.Y, f), func(b *testing.B) {
				runs := make([]func(), len(twins))
				times := make([][]time.Duration, len(twins))
				for i, w := range twins {
					runs[i] = scale(w, s)
				}
				var theirs []time.Duration
				for b.Loop() {
					for i, run := range runs {
						times[i] = append(times[i], timed(run))
					}
					fmt.Fprintln(in, from.X, from.Y, s.To.X, s.To.Y, f)
					if !lines.Scan() {
						b.Fatal(lines.Err())
					}
					ns, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
					if err != nil {
						b.Fatal(err)
					}
					theirs = append(theirs, time.Duration(ns))
				}
				t := typical(theirs)
				b.ReportMetric(float64(t)/1e3, "pillow-µs")
				for i, w := range twins {
					b.ReportMetric(float64(t)/float64(typical(times[i])), w.name+"-ratio")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
