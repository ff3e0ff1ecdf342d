package imageio

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

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

// TestStandardDecoderOnRealImages bounds how far a few pixels of real JPEG files
// are from Pillow's.
func TestStandardDecoderOnRealImages(t *testing.T) {
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
	w.decoder.jpeg = new(standardJPEG)
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
		deviates(t, "image/jpeg", filepath.Dir(name)).check(t, d)
	}
}

// realGoldens are digests of what torchvision made of real images.
type realGoldens struct {
	Tar string
	// Images are in the tar's order: of the pixels; of Resize(256) and
	// CenterCrop(224), bilinear and bicubic; and of the first one's tensor.
	Images []string
	// Pillow13 are the rows that are others with Pillow 13, by index.
	Pillow13 map[string]string
	// Cifar is of all pixels of a tar.
	Cifar map[string]string
}

// TestRealImagesMatchTorchvision asserts torchvision's bytes from the file to
// the tensor.
func TestRealImagesMatchTorchvision(t *testing.T) {
	if !libjpeg.Available {
		t.Skip("libjpeg-turbo is not built in: image/jpeg decodes other pixels")
	}
	root := sharedData(t)
	var g realGoldens
	readJSON(t, "real.json", &g)
	all := func(string) bool { return true }
	for name, want := range g.Cifar {
		w := newWorker(t, Spec{Crop: Size{1, 1}})
		sum := sha256.New()
		eachMember(t, filepath.Join(root, name), all, func(member string, data []byte) bool {
			m, err := w.Decode(data)
			if err != nil {
				t.Errorf("%s: %v", member, err)
				return false
			}
			sum.Write(m.Pix)
			return true
		})
		if got := hex.EncodeToString(sum.Sum(nil)); got != want {
			t.Errorf("%s: pixels differ from Pillow's", name)
		}
	}
	horizontal, pillow13 := torchvision(t, HorizontalFirst), torchvision(t, Pillow13)
	i := 0
	eachMember(t, filepath.Join(root, g.Tar), all, func(member string, data []byte) bool {
		compare := func(order Order, got, want string) {
			if got != want {
				t.Errorf("%s, order %s: digests of pixels, bilinear, bicubic and tensor\n%s, torchvision has\n%s", member, order, got, want)
			}
		}
		want := g.Images[i]
		compare(HorizontalFirst, horizontal(data), want)
		// The order of the passes seldom matters: a few images besides those.
		if other, ok := g.Pillow13[strconv.Itoa(i)]; ok {
			compare(Pillow13, pillow13(data), other)
		} else if i%20 == 0 {
			compare(Pillow13, pillow13(data), want)
		}
		i++
		return true
	})
	if i != len(g.Images) {
		t.Errorf("%d images in %s, the goldens have %d", i, g.Tar, len(g.Images))
	}
}

// torchvision returns a function from an encoded image to a row of realGoldens.
func torchvision(t *testing.T, order Order) func(data []byte) string {
	spec := func(f Filter, d DType, l Layout) Spec {
		s := Spec{Resize: Resize{Shorter: 256}, Crop: Size{224, 224}, Filter: f, Order: order, DType: d, Layout: l}
		if d == Float32 {
			s.Mean, s.Std = [3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225}
		}
		return s
	}
	bilinear := newWorker(t, spec(Bilinear, Uint8, NHWC))
	bicubic := newWorker(t, spec(Bicubic, Uint8, NHWC))
	tensor := newWorker(t, spec(Bilinear, Float32, NCHW))
	samples := make([]byte, 3*224*224)
	floats := make([]float32, 3*224*224)
	raw := make([]byte, 4*len(floats))
	digest := func(b []byte, err error) string {
		if err != nil {
			return err.Error()
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:6])
	}
	return func(data []byte) string {
		m, err := bilinear.Decode(data)
		if err != nil {
			return err.Error()
		}
		row := digest(m.Pix, nil)
		err = bilinear.Uint8(data, samples)
		row += " " + digest(samples, err)
		err = bicubic.Uint8(data, samples)
		row += " " + digest(samples, err)
		err = tensor.Float32(data, floats)
		for i, v := range floats {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
		return row + " " + digest(raw, err)
	}
}
