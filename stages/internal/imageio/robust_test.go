package imageio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

func classOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

// resized returns a PNG whose header claims another size, its checksum right.
func resizedPNG(data []byte, width, height uint32) []byte {
	data = bytes.Clone(data)
	binary.BigEndian.PutUint32(data[16:], width)
	binary.BigEndian.PutUint32(data[20:], height)
	binary.BigEndian.PutUint32(data[29:], crc32.ChecksumIEEE(data[12:29]))
	return data
}

func patched(data []byte, at int, with ...byte) []byte {
	data = bytes.Clone(data)
	copy(data[at:], with)
	return data
}

func TestErrorClasses(t *testing.T) {
	jpg, pngData, gif := readSample(t, "420.jpg"), readSample(t, "kind2-8.png"), readSample(t, "plain.gif")
	bmp, tif, webp := readSample(t, "24.bmp"), readSample(t, "rgb-tiff_lzw.tiff"), readSample(t, "lossy-21x17.webp")
	sof := bytes.Index(jpg, []byte{0xff, 0xc0})
	animated := readSample(t, "animated.gif")
	arithmetic := Unsupported
	if libjpeg.Available {
		arithmetic = "" // it is decoded, as by Pillow
	}
	cases := []struct {
		name string
		data []byte
		want Class
	}{
		{"empty", nil, Empty},
		{"text named .jpg", []byte("this is not an image, whatever its name says\n"), Format},
		{"one byte", []byte{0xff}, Format},
		{"html", []byte("<html><body>404</body></html>"), Format},
		{"jpeg cut", jpg[:len(jpg)/2], Truncated},
		{"jpeg without end", jpg[:len(jpg)-2], Truncated},
		{"jpeg cut in the header", jpg[:100], Truncated},
		{"jpeg of 60,000 × 60,000", patched(jpg, sof+5, 0xea, 0x60, 0xea, 0x60), TooLarge},
		{"jpeg without width", patched(jpg, sof+7, 0, 0), Corrupt},
		{"jpeg of 12 bits", patched(jpg, sof+4, 12), Unsupported},
		{"jpeg with arithmetic coding", patched(jpg, sof+1, 0xc9), arithmetic},
		{"jpeg, hierarchical", patched(jpg, sof+1, 0xc5), Unsupported},
		{"jpeg of two components", patched(jpg, sof+9, 2), Unsupported},
		{"jpeg with two frame headers", append(bytes.Clone(jpg[:sof+19]), jpg[sof:]...), Corrupt},
		{"png cut", pngData[:len(pngData)-30], Truncated},
		{"png cut in the header", pngData[:20], Truncated},
		{"png of 60,000 × 60,000", resizedPNG(pngData, 60000, 60000), TooLarge},
		{"png 400,000 wide", resizedPNG(pngData, 400000, 1), TooLarge},
		{"png of no width", resizedPNG(pngData, 0, 5), Corrupt},
		{"png with a bad checksum", patched(pngData, 30, pngData[30]^1), Corrupt},
		{"png bomb", resizedPNG(pngData, 8000, 8000), TooLarge},
		{"gif cut", gif[:len(gif)/2], Truncated},
		{"gif cut in the header", gif[:9], Truncated},
		{"gif of 60,000 × 60,000", patched(gif, 6, 0x60, 0xea, 0x60, 0xea), TooLarge},
		{"gif without a frame", append(bytes.Clone(gif[:13+3<<(gif[10]&7+1)]), 0x3b), Corrupt},
		{"gif, animated, of 60,000 × 60,000", patched(animated, 6, 0x60, 0xea, 0x60, 0xea), TooLarge},
		{"bmp cut", bmp[:len(bmp)-7], Truncated},
		{"bmp of 60,000 × 60,000", patched(bmp, 18, 0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0), TooLarge},
		{"bmp of negative width", patched(bmp, 18, 0xff, 0xff, 0xff, 0xff), Corrupt},
		{"bmp of the least height", patched(bmp, 22, 0, 0, 0, 0x80), TooLarge},
		{"bmp with a run-length code", patched(bmp, 30, 1), Unsupported},
		{"bmp header of unknown length", patched(bmp, 14, 13), Unsupported},
		{"tiff cut", tif[:len(tif)-20], Truncated},
		{"tiff header alone", tif[:8], Truncated},
		{"webp cut", webp[:len(webp)/2], Truncated},
		{"webp header alone", webp[:12], Truncated},
	}
	w := newWorker(t, Spec{Crop: Size{4, 4}, DType: Uint8})
	out := make([]byte, 48)
	for _, c := range cases {
		for i := range out {
			out[i] = 0x5a
		}
		err := w.Uint8(c.data, out)
		if got := classOf(err); got != c.want {
			t.Errorf("%s: class %q (%v), want %q", c.name, got, err, c.want)
		}
		if err != nil && bytes.Count(out, []byte{0x5a}) != len(out) {
			t.Errorf("%s: the destination was written", c.name)
		}
	}
	if err := w.Uint8(jpg, out); err != nil {
		t.Errorf("a good image after the bad ones: %v", err)
	}
}

// TestEveryCutIsAnError cuts each sample at many places: no shorter file may
// pass for the whole one with other pixels.
func TestEveryCutIsAnError(t *testing.T) {
	w := newWorker(t, Spec{Crop: Size{1, 1}})
	for _, name := range []string{"420.jpg", "420-progressive.jpg", "kind2-8.png", "kind3-4-adam7.png", "interlaced.gif", "24.bmp", "rgb-raw.tiff", "lossy-21x17.webp", "lossless-21x17.webp"} {
		data := readSample(t, name)
		m, err := w.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		whole := bytes.Clone(m.Pix)
		for n := 0; n < len(data); n += 1 + len(data)/97 {
			m, err := w.Decode(data[:n])
			if err == nil && !bytes.Equal(m.Pix, whole) {
				t.Errorf("%s cut to %d of %d bytes decodes to other pixels without an error", name, n, len(data))
			}
		}
	}
}

func TestLimits(t *testing.T) {
	jpg := readSample(t, "420.jpg") // 53 × 37
	cases := []struct {
		limits Limits
		ok     bool
	}{
		{Limits{}, true},
		{Limits{MaxBytes: int64(len(jpg))}, true},
		{Limits{MaxBytes: int64(len(jpg)) - 1}, false},
		{Limits{MaxPixels: 53 * 37}, true},
		{Limits{MaxPixels: 53*37 - 1}, false},
	}
	for _, c := range cases {
		_, err := newWorker(t, Spec{Crop: Size{1, 1}, Limits: c.limits}).Decode(jpg)
		if (err == nil) != c.ok || err != nil && classOf(err) != TooLarge {
			t.Errorf("%+v: %v, want ok %v", c.limits, err, c.ok)
		}
	}
	// A flat image is refused for its ratio only where it is large.
	var flat bytes.Buffer
	if err := png.Encode(&flat, image.NewPaletted(image.Rect(0, 0, 2400, 2400), palette2)); err != nil {
		t.Fatal(err)
	}
	if _, err := newWorker(t, Spec{Crop: Size{1, 1}, Limits: Limits{MaxRatio: 1000}}).Decode(flat.Bytes()); classOf(err) != TooLarge {
		t.Errorf("%d bytes for 2400×2400 pixels: %v, want too-large", flat.Len(), err)
	}
	if _, err := newWorker(t, Spec{Crop: Size{1, 1}, Limits: Limits{MaxRatio: 1 << 20}}).Decode(flat.Bytes()); err != nil {
		t.Errorf("a generous ratio: %v", err)
	}
	// What lies between the passes counts too: 1 column made 4,096.
	thin := encodePNG(t, 1, 20000)
	spec := Spec{Resize: Resize{Exact: Size{32, 4096}}, Limits: Limits{MaxPixels: 1 << 24}}
	if err := newWorker(t, spec).Float32(thin, make([]float32, spec.Len())); classOf(err) != TooLarge {
		t.Errorf("a thin image made wide: %v, want too-large", err)
	}
	scans := patched(jpg, 0)
	sos := bytes.Index(scans, []byte{0xff, 0xda})
	n := 2 + int(binary.BigEndian.Uint16(scans[sos+2:]))
	many := append(bytes.Clone(scans[:sos]), bytes.Repeat(scans[sos:sos+n], maxScans)...)
	if _, err := newWorker(t, Spec{Crop: Size{1, 1}}).Decode(append(many, scans[sos:]...)); classOf(err) != TooLarge {
		t.Errorf("%d scans: %v, want too-large", maxScans+1, err)
	}
}

func encodePNG(t testing.TB, width, height int) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPanicIsCorrupt puts a panicking decoder in place.
func TestPanicIsCorrupt(t *testing.T) {
	w := newWorker(t, Spec{Crop: Size{1, 1}})
	w.decoder.jpeg = panicking{}
	if _, err := w.Decode(readSample(t, "420.jpg")); classOf(err) != Corrupt || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("%v, want corrupt with the panic's words", err)
	}
	if _, err := w.Decode(readSample(t, "kind2-8.png")); err != nil {
		t.Errorf("the next image: %v", err)
	}
}

type panicking struct{}

func (panicking) name() string                               { return "panicking" }
func (panicking) scales() bool                               { return false }
func (panicking) decode(header, []byte, reading, *RGB) error { panic("out of luck") }

// TestReuseLeavesNoTrace decodes samples in random order with one worker: each
// result must be that of a fresh one.
func TestReuseLeavesNoTrace(t *testing.T) {
	spec := Spec{Resize: Resize{Shorter: 24}, Crop: Size{20, 28}, Mean: [3]float32{0.5, 0.4, 0.3}}
	var files [][]byte
	var want [][]float32
	for _, data := range sampleFiles(t) {
		out := make([]float32, spec.Len())
		if err := newWorker(t, spec).Float32(data, out); err == nil { // some are there to be refused
			files, want = append(files, data), append(want, out)
		}
	}
	w := newWorker(t, spec)
	got := make([]float32, spec.Len())
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		i := random.IntN(len(files))
		if random.IntN(8) == 0 { // a damaged one between
			data := bytes.Clone(files[i])
			data[random.IntN(len(data))] ^= byte(1 + random.IntN(255))
			w.Float32(data, got)
			continue
		}
		if err := w.Float32(files[i], got); err != nil {
			t.Fatal(err)
		}
		for j := range got {
			if got[j] != want[i][j] {
				t.Fatalf("sample %d: element %d is %v in a used worker, %v in a fresh one", i, j, got[j], want[i][j])
			}
		}
	}
}

func sampleFiles(t testing.TB) (files [][]byte) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "samples", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	return files
}

// TestAllocations holds our own share of memory per image to nothing, and the
// decoders' to what was measured: image/jpeg takes a decoder and its planes.
func TestAllocations(t *testing.T) {
	jpegBytes := uint64(24 << 10)
	if libjpeg.Available {
		jpegBytes = 64
	}
	cases := []struct {
		file  string
		bytes uint64
	}{
		{"420-cifar.jpg", jpegBytes},
		{"plain.gif", 64},
		{"lossy-21x17.webp", 16 << 10},
		{"kind2-8.png", 64 << 10},
	}
	spec := Spec{Resize: Resize{Shorter: 24}, Crop: Size{20, 28}}
	for _, c := range cases {
		data, out := readSample(t, c.file), make([]float32, spec.Len())
		w := newWorker(t, spec)
		if err := w.Float32(data, out); err != nil {
			t.Fatal(err)
		}
		const runs = 200
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if err := w.Float32(data, out); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		perImage := (after.TotalAlloc - before.TotalAlloc) / runs
		t.Logf("%s: %d bytes per image", c.file, perImage)
		if perImage > c.bytes {
			t.Errorf("%s: %d bytes allocated per image, the bound is %d", c.file, perImage, c.bytes)
		}
	}
	w := newWorker(t, spec)
	src, g := RGB{}, w.p.spec.plan(53, 37)
	src.reset(53, 37)
	out, tensor := make([]byte, spec.Len()), make([]float32, spec.Len())
	if n := testing.AllocsPerRun(100, func() {
		g.resize(&w.resizer, out, &src, Bilinear, HorizontalFirst)
		w.p.f32.write(tensor, out, NCHW)
	}); n != 0 {
		t.Errorf("resize and normalise allocate %v times per image", n)
	}
}
