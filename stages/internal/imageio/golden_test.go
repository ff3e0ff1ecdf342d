package imageio

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goldens are what testdata/goldens.py wrote with Pillow and NumPy.
type goldens struct {
	Decode []struct {
		File          string
		Width, Height int
		SHA256        string
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

// jpegBound is how far image/jpeg's inverse DCT may put a decoded JPEG from
// libjpeg-turbo's: levels, by kind of file.
type jpegBound struct {
	max  int
	mean float64
}

// jpegBounds are a little above what go1.26.8 measured against Pillow 13.0.0 with
// libjpeg-turbo 3.2.0; the last two are the folders of real images.
var jpegBounds = map[string]jpegBound{
	"444":              {3, 0.045},
	"422":              {3, 0.045},
	"420":              {3, 0.045},
	"440":              {3, 0.045},
	"411":              {3, 0.045},
	"410":              {3, 0.045},
	"gray":             {1, 0.025},
	"rgb":              {1, 0.025},
	"cmyk":             {2, 0.030},
	"ycck":             {3, 0.045},
	"imagenet-samples": {4, 0.040},
	"cifar10":          {3, 0.040},
}

// TestDecodeMatchesPillow asserts Pillow's bytes for every lossless decoder and
// WebP, and for JPEG the measured bounds.
func TestDecodeMatchesPillow(t *testing.T) {
	var g goldens
	readJSON(t, "goldens.json", &g)
	w := newWorker(t, Spec{Crop: Size{1, 1}})
	measured := map[string]*difference{}
	for _, want := range g.Decode {
		got, err := w.Decode(readSample(t, want.File))
		if err != nil {
			t.Errorf("%s: %v", want.File, err)
			continue
		}
		if got.Width != want.Width || got.Height != want.Height {
			t.Errorf("%s: %d×%d, Pillow has %d×%d", want.File, got.Width, got.Height, want.Width, want.Height)
			continue
		}
		kind, isJPEG := strings.CutSuffix(want.File, ".jpg")
		if !isJPEG {
			if sum := sha256.Sum256(got.Pix); hex.EncodeToString(sum[:]) != want.SHA256 {
				t.Errorf("%s: pixels differ from Pillow's", want.File)
			}
			continue
		}
		reference, err := png.Decode(bytes.NewReader(readSample(t, want.File+".png")))
		if err != nil {
			t.Fatal(err)
		}
		var pixels RGB
		if err := flatten(reference, false, &pixels); err != nil {
			t.Fatal(err)
		}
		kind, _, _ = strings.Cut(kind, "-")
		if measured[kind] == nil {
			measured[kind] = &difference{}
		}
		var one difference
		one.add(got.Pix, pixels.Pix)
		t.Logf("%-24s max %d mean %.4f", want.File, one.max, one.mean())
		measured[kind].add(got.Pix, pixels.Pix)
	}
	for kind, d := range measured {
		bound, ok := jpegBounds[kind]
		if !ok {
			t.Errorf("no bound stated for JPEG %s", kind)
		}
		if d.max > bound.max || d.mean() > bound.mean {
			t.Errorf("JPEG %s: max %d, mean %.4f levels from Pillow; the bounds are %d and %.4f", kind, d.max, d.mean(), bound.max, bound.mean)
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

// sharedData walks up to the folder of real images.
func sharedData(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if data := filepath.Join(dir, "shared", "data"); isDir(data) {
			return data
		}
		if dir == filepath.Dir(dir) {
			t.Skip("no folder above holds shared/data: real images are not tested")
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// eachMember calls f with every wanted file of a tar until f says stop.
func eachMember(t testing.TB, path string, wanted func(name string) bool, f func(name string, data []byte) bool) {
	t.Helper()
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is missing: real images are not tested", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || !wanted(h.Name) {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !f(h.Name, data) {
			return
		}
	}
}

// TestRealImages compares a few pixels of real JPEG files with Pillow's.
func TestRealImages(t *testing.T) {
	root := sharedData(t)
	var want []struct{ Tar, Member, Pixels string }
	readJSON(t, "shared.json", &want)
	pixels := map[string]string{}
	tars := map[string]*difference{}
	for _, row := range want {
		pixels[row.Tar+"/"+row.Member] = row.Pixels
		tars[row.Tar] = &difference{}
	}
	w := newWorker(t, Spec{Crop: Size{1, 1}})
	for name, d := range tars {
		known := func(member string) bool { return pixels[name+"/"+member] != "" }
		eachMember(t, filepath.Join(root, name), known, func(member string, data []byte) bool {
			expected, err := hex.DecodeString(pixels[name+"/"+member])
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.Decode(data)
			if err != nil {
				t.Errorf("%s: %v", member, err)
				return true
			}
			x, n := 12345, len(got.Pix)/3
			for i := 0; i < len(expected); i += 3 {
				x = (1103515245*x + 12345) % (1 << 31)
				d.add(got.Pix[3*((x>>8)%n):][:3], expected[i:i+3])
			}
			return true
		})
		t.Logf("%s: max %d, mean %.4f levels over %d samples", name, d.max, d.mean(), d.n)
		if bound := jpegBounds[filepath.Dir(name)]; d.n == 0 || d.max > bound.max || d.mean() > bound.mean {
			t.Errorf("%s: max %d, mean %.4f levels from Pillow; the bounds are %d and %.4f", name, d.max, d.mean(), bound.max, bound.mean)
		}
	}
}
