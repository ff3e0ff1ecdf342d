package imageio

import (
	"bytes"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

// FuzzProcess feeds arbitrary bytes to the whole way from file to tensor: no
// panic, every error one with a class, and memory in proportion to the limits.
func FuzzProcess(f *testing.F) {
	for _, data := range sampleFiles(f) {
		f.Add(data)
	}
	spec := Spec{Resize: Resize{Shorter: 12}, Crop: Size{8, 10}, DType: Uint8, Limits: fuzzLimits}
	p, err := New(spec)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := p.NewWorker().Uint8(data, make([]byte, spec.Len()))
		runtime.ReadMemStats(&after)
		if err != nil && classOf(err) == "" {
			t.Errorf("an error without a class: %v", err)
		}
		// 2¹⁶ pixels: 18 bytes each for a progressive JPEG's coefficients and
		// planes, some more for resizing, and the decoders' own tables.
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 32<<20 {
			t.Errorf("%d bytes taken for %d encoded ones", taken, len(data))
		}
	})
}

var fuzzLimits = Limits{MaxPixels: 1 << 16, MaxBytes: 1 << 16, MaxRatio: 1000}

// fuzzFormat feeds files that pass for the given format to its decoder, whole
// and as a window, which must agree.
func fuzzFormat(f *testing.F, format, pattern string, j jpegDecoder) {
	paths, err := filepath.Glob(filepath.Join("testdata", "samples", pattern))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no samples %s: %v", pattern, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, byte(8), uint16(3), uint16(2))
		f.Add(data, byte(3), uint16(11), uint16(9))
	}
	d := &decoder{limits: fuzzLimits, jpeg: j}
	var whole, part RGB
	f.Fuzz(func(t *testing.T, data []byte, eighths byte, x, y uint16) {
		if h, err := readHeader(data); err != nil || h.format != format {
			return
		}
		r := reading{eighths: int(eighths % 9)}
		err := d.decode(data, func(header) reading { return r }, &whole)
		if err != nil && classOf(err) == "" {
			t.Errorf("an error without a class: %v", err)
		}
		partErr := d.decode(data, func(h header) reading {
			w, h2 := r.scaled(h.width), r.scaled(h.height)
			left, top := int(x)%w, int(y)%h2
			r.window = image.Rect(left, top, left+1+(w-left)/2, top+1+(h2-top)/2).Intersect(image.Rect(0, 0, w, h2))
			return r
		}, &part)
		if partErr != nil && classOf(partErr) == "" {
			t.Errorf("a window: an error without a class: %v", partErr)
		}
		if err != nil || partErr != nil {
			return
		}
		for y := r.window.Min.Y; y < r.window.Max.Y; y++ {
			from, to := 3*r.window.Min.X, 3*r.window.Max.X
			if !bytes.Equal(whole.row(y)[from:to], part.row(y)[from:to]) {
				t.Fatalf("%d/8, window %v of %d×%d: row %d differs from the whole image's", r.eighths, r.window, whole.Width, whole.Height, y)
			}
		}
	})
}

func FuzzJPEG(f *testing.F) { fuzzFormat(f, "jpeg", "*.jpg", new(standardJPEG)) }

// FuzzJPEGTurbo is FuzzJPEG through libjpeg-turbo.
func FuzzJPEGTurbo(f *testing.F) {
	if !libjpeg.Available {
		f.Skip("libjpeg-turbo is not built in")
	}
	fuzzFormat(f, "jpeg", "*.jpg", newJPEG())
}

func FuzzPNG(f *testing.F)  { fuzzFormat(f, "png", "*.png", newJPEG()) }
func FuzzGIF(f *testing.F)  { fuzzFormat(f, "gif", "*.gif", newJPEG()) }
func FuzzBMP(f *testing.F)  { fuzzFormat(f, "bmp", "*.bmp", newJPEG()) }
func FuzzTIFF(f *testing.F) { fuzzFormat(f, "tiff", "*.tiff", newJPEG()) }
func FuzzWebP(f *testing.F) { fuzzFormat(f, "webp", "*.webp", newJPEG()) }

// FuzzHeader holds the headers' sizes to the decoders': what passes the limits
// must be what is decoded.
func FuzzHeader(f *testing.F) {
	for _, data := range sampleFiles(f) {
		f.Add(data[:min(len(data), 400)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readHeader(data)
		if err != nil {
			if classOf(err) == "" {
				t.Errorf("an error without a class: %v", err)
			}
			return
		}
		if h.format != "jpeg" {
			return
		}
		if c, err := jpeg.DecodeConfig(bytes.NewReader(data)); err == nil && (c.Width != h.width || c.Height != h.height) {
			t.Errorf("%d×%d in our reading of the header, %d×%d in image/jpeg's", h.width, h.height, c.Width, c.Height)
		}
	})
}
