package imageio

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"image/png"
	"math"
	"os"
	"path"
	"path/filepath"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

// goldens are what testdata/goldens.py wrote with Pillow and NumPy.
type goldens struct {
	Decode []struct {
		File          string
		Width, Height int
		SHA256        string
		Reference     string // a JPEG's pixels as PNG
	}
	Refused []struct {
		File  string
		Class Class
	}
	Tensor struct {
		Float32 [3][256]uint32
		Float16 [3][256]uint16
		HalfIn  []uint32 `json:"half_in"`
		HalfOut []uint16 `json:"half_out"`
	}
}

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func readSample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newWorker(t testing.TB, s Spec) *Worker {
	t.Helper()
	p, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return p.NewWorker()
}

func size(v []int) Size {
	if v == nil {
		return Size{}
	}
	return Size{v[0], v[1]}
}

// difference compares samples level by level.
type difference struct {
	max, n int
	sum    float64
}

func (d *difference) add(a, b []byte) {
	for i := range a {
		delta := int(a[i]) - int(b[i])
		d.max = max(d.max, delta, -delta)
		d.sum += math.Abs(float64(delta))
	}
	d.n += len(a)
}

func (d difference) mean() float64 { return d.sum / float64(d.n) }

// A deviation is a kind of samples for which a decoder does not give Pillow's
// bytes, and why.
type deviation struct {
	jpeg   string  // the JPEG decoder it holds for; "": for each
	files  string  // a pattern of names
	class  Class   // of the error; "": there are pixels
	max    int     // by how many levels samples differ at most
	mean   float64 // and on average over these files
	reason string
}

const (
	inverseDCT = "its inverse DCT rounds otherwise than libjpeg's"
	ownFactors = "it knows the usual sampling factors alone"
)

// deviations are all there are: of several for a sample the first holds. The
// levels are a little above what go1.26.8 measured against Pillow 13.0.0 with
// libjpeg-turbo 3.2.0; the last two are the folders of real images.
var deviations = []deviation{
	{"image/jpeg", "arithmetic.jpg", Unsupported, 0, 0, "it has no arithmetic decoder"},
	{"image/jpeg", "factors-*.jpg", Unsupported, 0, 0, ownFactors},
	{"image/jpeg", "420-progressive-restart.jpg", Corrupt, 0, 0, "it loses its place at restart markers of progressive files"},
	{"image/jpeg", "damaged-restart.jpg", Corrupt, 0, 0, "it does not find its place again, over which libjpeg only warns"},
	{"image/jpeg", "gray*.jpg", "", 1, 0.025, inverseDCT},
	{"image/jpeg", "rgb*.jpg", "", 1, 0.025, inverseDCT},
	{"image/jpeg", "cmyk*.jpg", "", 2, 0.030, inverseDCT},
	{"image/jpeg", "ycck*.jpg", "", 3, 0.045, inverseDCT},
	{"image/jpeg", "*.jpg", "", 3, 0.045, inverseDCT},
	{"image/jpeg", "imagenet-samples", "", 4, 0.040, inverseDCT},
	{"image/jpeg", "cifar10", "", 3, 0.040, inverseDCT},
	{"", "damaged-no-iend.png", Truncated, 0, 0, "Pillow reads no further than the last row"},
	{"", "damaged-short-checksum.png", Truncated, 0, 0, "Pillow reads no further than the last row"},
	{"", "unsupported-*.tiff", Unsupported, 0, 0, "there is no decoder here; Pillow has libtiff's"},
}

// deviates returns the deviation that holds for a file, or nil.
func deviates(t testing.TB, jpeg, file string) *deviation {
	t.Helper()
	for i, d := range deviations {
		match, err := path.Match(d.files, file)
		if err != nil {
			t.Fatal(err)
		}
		if match && (d.jpeg == "" || d.jpeg == jpeg) {
			return &deviations[i]
		}
	}
	return nil
}

// jpegDecoders are those of this build.
func jpegDecoders() map[string]func() jpegDecoder {
	all := map[string]func() jpegDecoder{"image/jpeg": func() jpegDecoder { return new(standardJPEG) }}
	if libjpeg.Available {
		all["libjpeg-turbo"] = newJPEG
	}
	return all
}

// TestDecodeMatchesPillow asserts Pillow's bytes for every sample, and for the
// deviations what is said of them.
func TestDecodeMatchesPillow(t *testing.T) {
	var g goldens
	readJSON(t, "goldens.json", &g)
	for name, jpeg := range jpegDecoders() {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t, Spec{Crop: Size{1, 1}})
			w.decoder.jpeg = jpeg()
			measured := map[*deviation]*difference{}
			for _, want := range g.Decode {
				known := deviates(t, name, want.File)
				got, err := w.Decode(readSample(t, want.File))
				if known != nil && known.class != "" {
					expectClass(t, want.File, err, known.class)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", want.File, err)
					continue
				}
				if got.Width != want.Width || got.Height != want.Height {
					t.Errorf("%s: %d×%d, Pillow has %d×%d", want.File, got.Width, got.Height, want.Width, want.Height)
					continue
				}
				if known == nil {
					if sum := sha256.Sum256(got.Pix); hex.EncodeToString(sum[:]) != want.SHA256 {
						t.Errorf("%s: pixels differ from Pillow's", want.File)
					}
					continue
				}
				if measured[known] == nil {
					measured[known] = &difference{}
				}
				measured[known].add(got.Pix, referencePixels(t, want.Reference))
			}
			for known, d := range measured {
				t.Logf("%s: max %d, mean %.4f levels", known.files, d.max, d.mean())
				known.check(t, d)
			}
		})
	}
}

func (d *deviation) check(t *testing.T, measured *difference) {
	t.Helper()
	if measured.n == 0 || measured.max > d.max || measured.mean() > d.mean {
		t.Errorf("%s: max %d, mean %.4f levels from Pillow over %d samples; the bounds are %d and %.4f",
			d.files, measured.max, measured.mean(), measured.n, d.max, d.mean)
	}
}

func expectClass(t *testing.T, file string, err error, class Class) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Class != class {
		t.Errorf("%s: error %v, want one of class %s", file, err, class)
	}
}

// referencePixels reads Pillow's pixels of a JPEG.
func referencePixels(t testing.TB, file string) []byte {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(readSample(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	var pixels RGB
	if err := flatten(m, false, &pixels); err != nil {
		t.Fatal(err)
	}
	return pixels.Pix
}

// TestDecodeRefusesWhatPillowRefuses asserts an error of the right class.
func TestDecodeRefusesWhatPillowRefuses(t *testing.T) {
	var g goldens
	readJSON(t, "goldens.json", &g)
	for name, jpeg := range jpegDecoders() {
		w := newWorker(t, Spec{Crop: Size{1, 1}})
		w.decoder.jpeg = jpeg()
		for _, want := range g.Refused {
			_, err := w.Decode(readSample(t, want.File))
			expectClass(t, name+": "+want.File, err, want.Class)
		}
	}
}

// TestResizeMatchesPillow asserts Pillow's bytes for every filter, and those of
// torchvision's Resize and CenterCrop on top of it.
func TestResizeMatchesPillow(t *testing.T) {
	for file, order := range map[string]Order{"resize-12.json": HorizontalFirst, "resize-13.json": Pillow13} {
		t.Run(string(order), func(t *testing.T) {
			var g struct {
				Resize []struct {
					Source, Filter, SHA256 string
					Exact, Crop            []int
					Shorter                int
				}
			}
			readJSON(t, file, &g)
			sources := map[string][]byte{}
			for _, want := range g.Resize {
				if sources[want.Source] == nil {
					sources[want.Source] = readSample(t, want.Source+".source.png")
				}
				spec := Spec{
					Resize: Resize{Shorter: want.Shorter, Exact: size(want.Exact)},
					Crop:   size(want.Crop), Filter: Filter(want.Filter), Order: order, DType: Uint8, Layout: NHWC,
				}
				w := newWorker(t, spec)
				out := make([]byte, spec.Len())
				for i := range out {
					out[i] = 0xa5
				}
				if err := w.Uint8(sources[want.Source], out); err != nil {
					t.Fatal(err)
				}
				if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != want.SHA256 {
					t.Errorf("%+v: bytes differ from Pillow's", want)
				}
			}
		})
	}
}

func TestTensorMatchesNumPy(t *testing.T) {
	var g goldens
	readJSON(t, "goldens.json", &g)
	spec := Spec{Crop: Size{1, 1}, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}
	got := spec.withDefaults().normalised()
	halves := halved(got)
	for c := range 3 {
		for x := range 256 {
			if bits := math.Float32bits(got[c][x]); bits != g.Tensor.Float32[c][x] {
				t.Errorf("channel %d sample %d: %x, NumPy has %x", c, x, bits, g.Tensor.Float32[c][x])
			}
			if halves[c][x] != g.Tensor.Float16[c][x] {
				t.Errorf("channel %d sample %d: half %x, NumPy has %x", c, x, halves[c][x], g.Tensor.Float16[c][x])
			}
		}
	}
	for i, bits := range g.Tensor.HalfIn {
		v := math.Float32frombits(bits)
		if h := toFloat16(v); h != g.Tensor.HalfOut[i] {
			t.Errorf("half of %g: %04x, NumPy has %04x", v, h, g.Tensor.HalfOut[i])
		}
	}
}
