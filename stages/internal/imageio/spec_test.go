package imageio

import (
	"image/color"
	"math"
	"strings"
	"testing"

	"sela/stages/internal/imageio/libjpeg"
)

var palette2 = color.Palette{color.Black, color.White}

func TestValidate(t *testing.T) {
	nan := float32(math.NaN())
	cases := []struct {
		name string
		spec Spec
		want string // part of the error, empty for none
	}{
		{"imagenet", Spec{Resize: Resize{Shorter: 256}, Crop: Size{224, 224}}, ""},
		{"exact", Spec{Resize: Resize{Exact: Size{32, 32}}}, ""},
		{"nothing", Spec{}, "no fixed size"},
		{"shorter alone", Spec{Resize: Resize{Shorter: 256}}, "no fixed size"},
		{"both", Spec{Resize: Resize{Shorter: 256, Exact: Size{2, 2}}}, "set one"},
		{"half a crop", Spec{Crop: Size{Height: 5}}, "both sides"},
		{"negative", Spec{Crop: Size{-1, -1}}, "crop.height is -1"},
		{"huge", Spec{Crop: Size{1 << 20, 5}}, "crop.height"},
		{"filter", Spec{Crop: Size{1, 1}, Filter: "cubic"}, "filter"},
		{"order", Spec{Crop: Size{1, 1}, Order: "x"}, "order"},
		{"layout", Spec{Crop: Size{1, 1}, Layout: "chw"}, "layout"},
		{"dtype", Spec{Crop: Size{1, 1}, DType: "int8"}, "dtype"},
		{"normalised bytes", Spec{Crop: Size{1, 1}, DType: Uint8, Mean: [3]float32{0.5}}, "not normalised"},
		{"zero std", Spec{Crop: Size{1, 1}, Std: [3]float32{1, 0, 1}}, "std[1]"},
		{"NaN mean", Spec{Crop: Size{1, 1}, Mean: [3]float32{0, 0, nan}}, "mean[2]"},
		{"limits", Spec{Crop: Size{1, 1}, Limits: Limits{MaxBytes: -1}}, "limits"},
	}
	for _, c := range cases {
		err := c.spec.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestFingerprint changes one field at a time: whatever changes a tensor must
// change the fingerprint, and nothing else may.
func TestFingerprint(t *testing.T) {
	base := Spec{Resize: Resize{Shorter: 256}, Crop: Size{224, 224}}
	seen := map[string]string{base.Fingerprint(): "base"}
	for name, change := range map[string]func(*Spec){
		"shorter": func(s *Spec) { s.Resize.Shorter = 255 },
		"exact":   func(s *Spec) { s.Resize = Resize{Exact: Size{256, 256}} },
		"none":    func(s *Spec) { s.Resize = Resize{} },
		"crop":    func(s *Spec) { s.Crop.Width = 223 },
		"filter":  func(s *Spec) { s.Filter = Bicubic },
		"order":   func(s *Spec) { s.Order = Pillow13 },
		"mean":    func(s *Spec) { s.Mean[1] = 1e-7 },
		"std":     func(s *Spec) { s.Std = [3]float32{1, 1, 0.99999994} },
		"layout":  func(s *Spec) { s.Layout = NHWC },
		"dtype":   func(s *Spec) { s.DType = Float16 },
	} {
		s := base
		change(&s)
		if other, ok := seen[s.Fingerprint()]; ok {
			t.Errorf("%s has the fingerprint of %s", name, other)
		}
		seen[s.Fingerprint()] = name
	}
	explicit := base.withDefaults()
	explicit.Limits.MaxBytes = 1
	if explicit.Fingerprint() != base.Fingerprint() {
		t.Error("defaults written out, and other limits, change the fingerprint")
	}
	decoder := "jpeg image/jpeg go1."
	if libjpeg.Available {
		decoder = "jpeg libjpeg-turbo " + libjpeg.Version()
	}
	if !strings.Contains(base.Canonical(), decoder) {
		t.Errorf("no %q in %q", decoder, base.Canonical())
	}
	unscaled := Spec{Crop: Size{32, 32}}
	sharper := unscaled
	sharper.Filter = Lanczos
	if unscaled.Fingerprint() != sharper.Fingerprint() {
		t.Error("a filter that is not used changes the fingerprint")
	}
}

func TestLayouts(t *testing.T) {
	data := readSample(t, "kind2-8.png") // 19 × 13
	size := Size{13, 19}
	m, err := newWorker(t, Spec{Crop: Size{1, 1}}).Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range []Layout{NCHW, NHWC} {
		f32, f16, u8 := make([]float32, 3*13*19), make([]uint16, 3*13*19), make([]uint8, 3*13*19)
		spec := Spec{Crop: size, Layout: layout, Mean: [3]float32{0.1, 0.2, 0.3}, Std: [3]float32{1, 2, 3}}
		if err := newWorker(t, spec).Float32(data, f32); err != nil {
			t.Fatal(err)
		}
		spec.DType = Float16
		if err := newWorker(t, spec).Float16(data, f16); err != nil {
			t.Fatal(err)
		}
		if err := newWorker(t, Spec{Crop: size, Layout: layout, DType: Uint8}).Uint8(data, u8); err != nil {
			t.Fatal(err)
		}
		for i, x := range m.Pix {
			at, c := i, i%3
			if layout == NCHW {
				at = c*13*19 + i/3
			}
			want := (float32(float32(x)/255) - spec.Mean[c]) / spec.Std[c]
			if f32[at] != want || f16[at] != toFloat16(want) || u8[at] != x {
				t.Fatalf("%s, sample %d: %v %x %d, want %v %x %d", layout, i, f32[at], f16[at], u8[at], want, toFloat16(want), x)
			}
		}
	}
}

func TestWrongDestination(t *testing.T) {
	w := newWorker(t, Spec{Crop: Size{2, 2}})
	if err := w.Float32(nil, make([]float32, 11)); err == nil || classOf(err) != "" {
		t.Errorf("a short destination: %v, want an error without a class", err)
	}
	if err := w.Uint8(nil, make([]uint8, 12)); err == nil || classOf(err) != "" {
		t.Errorf("another type: %v, want an error without a class", err)
	}
}
