//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/jpeg"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/image/bmp"

	"sela/stages/internal/imageio"
	"sela/stages/internal/imageio/resample"
)

func TestStatistics(t *testing.T) {
	for _, test := range []struct {
		x    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}, {[]float64{9, 1, 2, 4}, 3}} {
		before := slices.Clone(test.x)
		if got := median(test.x); got != test.want || !slices.Equal(before, test.x) {
			t.Errorf("median of %v is %v, want %v", before, got, test.want)
		}
	}
	// Ratios are of rounds, not of medians.
	if got, want := ratios([]float64{6, 2, 8}, []float64{2, 2, 2}), (ratio{3, 1, 4}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if s := (ratio{1.5, 1.25, 12}).String(); s != "1.50 (1.25–12.0)" {
		t.Error(s)
	}
	var sum measure
	sum.add(&answer{Seconds: 1, Wall: 2, Bytes: 10, Objects: 4, Steps: &steps{Decode: 3, Resize: 2, Normalise: 1}})
	sum.add(&answer{Seconds: 3, Wall: 4, Bytes: 10, Steps: &steps{Decode: 1, Resize: 2, Normalise: 5}})
	m := sum.per(4)
	if m.seconds != 1 || m.wall != 1.5 || m.bytes != 5 || m.objects != 1 || *m.steps != (steps{1, 1, 1.5}) {
		t.Errorf("%+v, %+v", m, m.steps)
	}
	trial := &trial{rounds: []measure{m}}
	if got := milliseconds(trial.step(normaliseStep)); got != 1500.0 {
		t.Errorf("%v ms", got)
	}
	trial.rounds[0].steps = nil
	if got := milliseconds(trial.step(normaliseStep)); got != nil {
		t.Errorf("%v ms of nothing measured", got)
	}
}

func TestCompareImages(t *testing.T) {
	want := []byte{0, 0, 0, 0, 10, 20, 30, 255}
	got := []byte{9, 9, 9, 9, 12, 20, 29, 0}
	tests := map[string]struct {
		images []int
		want   difference
		equal  string
	}{
		"second of two": {[]int{1}, difference{255, 258.0 / 4, 1.0 / 4}, "25 %"},
		"both":          {[]int{0, 1}, difference{255, 294.0 / 8, 1.0 / 8}, "12.5 %"},
	}
	for name, test := range tests {
		d := compareImages(got, want, 4, test.images)
		if *d != test.want || d.cells()[2] != test.equal {
			t.Errorf("%s: %+v, %v", name, *d, d.cells())
		}
	}
	if cells := (&difference{1, 1e-9, 1 - 1e-9}).cells(); cells[2] != "< 100 %" {
		t.Errorf("not all bytes are equal: %v", cells)
	}
	if cells := compareImages(want, want, 4, []int{0, 1}).cells(); cells[0] != 0 || cells[2] != "100 %" {
		t.Errorf("%v", cells)
	}
}

func TestPillowOrder(t *testing.T) {
	for packages, want := range map[string]imageio.Order{
		"Pillow 12.3.0, libjpeg-turbo 3.1.4":                    imageio.HorizontalFirst,
		"Pillow 13.0.0, libjpeg-turbo 3.2.0":                    imageio.Pillow13,
		"torchvision 0.13.1, Pillow 9.5.0, libjpeg-turbo 2.1.5": imageio.HorizontalFirst,
		"": imageio.HorizontalFirst,
	} {
		if got := pillowOrder(packages); got != want {
			t.Errorf("%q: %s", packages, got)
		}
	}
}

// TestProducts: against a count of the coefficients of a scale at which every
// output has as many but for the image's border.
func TestProducts(t *testing.T) {
	// 448 × 512 to 224 × 256, rows 16 to 240 kept: 4 taps each way, and the two
	// rows around the 448 in the middle are read too.
	if got, want := resizeProducts(448, 512, 224, 224), 3.0*4*(452*224+224*224); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	// Enlarging: 2 taps, and no more rows than there are.
	if got, want := resizeProducts(100, 100, 200, 200), 3.0*2*(100*200+200*200); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestScaling: the resize that is timed makes the pixels that imageio does.
func TestScaling(t *testing.T) {
	for _, size := range []image.Point{{64, 64}, {101, 75}, {75, 101}, {333, 90}} {
		r := &request{Shorter: 40, Crop: 32, Filter: imageio.Bilinear, Order: imageio.HorizontalFirst}
		var file bytes.Buffer
		if err := bmp.Encode(&file, photograph(size.X, size.Y, 1)); err != nil {
			t.Fatal(err)
		}
		p, err := imageio.New(imageio.Spec{Resize: imageio.Resize{Shorter: 40}, Crop: imageio.Size{Height: 32, Width: 32}, DType: imageio.Uint8, Layout: imageio.NHWC})
		if err != nil {
			t.Fatal(err)
		}
		w := p.NewWorker()
		want, got := make([]byte, p.Len()), make([]byte, p.Len())
		if err := w.Uint8(file.Bytes(), want); err != nil {
			t.Fatal(err)
		}
		m, err := w.Decode(file.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var z resample.Resizer
		z.Resize(got, 3*32, m.Pix, 3*m.Width, scaling(m.Width, m.Height, r))
		if !bytes.Equal(got, want) {
			t.Errorf("%v: other pixels", size)
		}
	}
}

// TestServe asks one of ours what a run asks.
func TestServe(t *testing.T) {
	folder, to := t.TempDir(), filepath.Join(t.TempDir(), "pixels")
	var good bytes.Buffer
	if err := jpeg.Encode(&good, photograph(90, 70, 1), nil); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"0": good.Bytes(), "1": []byte("no image"), "2": good.Bytes()} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	in, out := io.Pipe()
	back, answers := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- serve(imageio.Exact, in, answers)
		answers.Close()
	}()
	c := &candidate{name: "ours", in: out, out: json.NewDecoder(back)}
	ask := func(request map[string]any) *answer {
		t.Helper()
		a, err := c.ask(request)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(map[string]any{"do": "hello"}); a.Package == "" {
		t.Error("no package")
	}
	open := map[string]any{"do": "open", "folder": folder, "shorter": 40, "crop": 32, "filter": "bilinear", "mean": mean, "std": std}
	for range 2 { // the second replaces the files of the first
		ask(open)
	}
	if a := ask(map[string]any{"do": "pixels", "to": to}); len(a.Failed) != 1 || a.Failed[1] == "" {
		t.Errorf("failed: %v", a.Failed)
	}
	pix, err := os.ReadFile(to)
	if n := 3 * 32 * 32; err != nil || len(pix) != 3*n || !bytes.Equal(pix[:n], pix[2*n:]) || bytes.Equal(pix[:n], pix[n:2*n]) {
		t.Errorf("%d bytes of pixels, want those of the first image, zeros and those of the first: %v", len(pix), err)
	}
	a := ask(map[string]any{"do": "round", "images": []int{0, 2, 0}})
	if a.Steps == nil || !(a.Seconds > 0 && a.Wall > 0 && a.Steps.Resize > 0) {
		t.Fatalf("%+v", a)
	}
	if sum := a.Steps.Decode + a.Steps.Resize + a.Steps.Normalise; math.Abs(sum-a.Seconds) > 1e-12 {
		t.Errorf("the steps take %v of %v", sum, a.Seconds)
	}
	open["filter"] = "smooth"
	for _, bad := range []map[string]any{open, {"do": "round", "images": []int{1}}, {"do": "dance"}} {
		if _, err := c.ask(bad); err == nil {
			t.Errorf("%v is not refused", bad)
		}
	}
	out.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestImages: those made here are what the sections want.
func TestImages(t *testing.T) {
	b := &bench{config: config{data: t.TempDir()}}
	files, what, err := b.pictures(imagenetTar, 5, 120, 80)
	if err != nil || len(files) != 5 || what == imagenetTar || bytes.Equal(files[0], files[1]) {
		t.Fatalf("%d images, %s: %v", len(files), what, err)
	}
	large, err := enlarged(files, 1)
	if err != nil || len(large) != 1 {
		t.Fatal(len(large), err)
	}
	if c, _, err := image.DecodeConfig(bytes.NewReader(large[0])); err != nil || c.Width != 2000 || c.Height != 1500 {
		t.Errorf("%+v: %v", c, err)
	}
	stored, err := asBMP(files)
	if err != nil || len(stored) != 5 || len(stored[0]) < 3*120*80 {
		t.Error(err)
	}
	if got := spread([]int{0, 1, 2, 3, 4, 5}, 3); !slices.Equal(got, []int{0, 2, 4}) {
		t.Error(got)
	}
	if got := spread([]int{0, 1}, 3); !slices.Equal(got, []int{0, 1}) {
		t.Error(got)
	}
}
