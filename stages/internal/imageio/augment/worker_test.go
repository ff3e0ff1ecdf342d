package augment

import (
	"bytes"
	"image"
	"math"
	"strings"
	"testing"

	"sela/stages/internal/imageio/resample"
)

func newWorker(t testing.TB, s Spec) *Worker {
	t.Helper()
	w, err := s.NewWorker()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestValidate(t *testing.T) {
	nan := math.NaN()
	size := image.Pt(224, 224)
	for _, c := range []struct {
		name string
		spec Spec
		want string // part of the error, empty for none
	}{
		{"nothing", Spec{}, ""},
		{"all", all, ""},
		{"defaults", all.withDefaults(), ""},
		{"half a size", Spec{Size: image.Pt(5, 0)}, "size is 5×0"},
		{"negative size", Spec{Size: image.Pt(-5, 5)}, "size is -5×5"},
		{"huge size", Spec{Size: image.Pt(1<<20, 5)}, "size"},
		{"no size", Spec{Scale: [2]float64{0.5, 1}}, "set size"},
		{"filter without size", Spec{Filter: resample.Box}, "set size"},
		{"scale", Spec{Size: size, Scale: [2]float64{0.5, 0.4}}, "scale"},
		{"scale from 0", Spec{Size: size, Scale: [2]float64{0, 1}}, "scale"},
		{"scale over 1", Spec{Size: size, Scale: [2]float64{0.5, 2}}, "scale"},
		{"NaN scale", Spec{Size: size, Scale: [2]float64{0.5, nan}}, "scale"},
		{"ratio", Spec{Size: size, Ratio: [2]float64{2, 1}}, "ratio"},
		{"ratio 0", Spec{Size: size, Ratio: [2]float64{0, 1}}, "ratio"},
		{"filter", Spec{Size: size, Filter: "cubic"}, "filter"},
		{"order", Spec{Size: size, Order: "x"}, "order"},
		{"gray", Spec{Gray: 1.1}, "gray is 1.1"},
		{"NaN gray", Spec{Gray: nan}, "gray"},
		{"brightness", Spec{Brightness: -1}, "brightness"},
		{"contrast", Spec{Contrast: 1e9}, "contrast"},
		{"saturation", Spec{Saturation: nan}, "saturation"},
		{"hue", Spec{Hue: 0.6}, "hue"},
		{"flip", Spec{Flip: -0.5}, "flip"},
		{"rotate", Spec{Rotate: 46}, "rotate is 46"},
		{"rotation filter", Spec{Rotate: 5, RotateFilter: resample.Lanczos}, "rotation"},
		{"rotation filter alone", Spec{RotateFilter: resample.Bilinear}, "rotation"},
	} {
		err := c.spec.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if w, werr := c.spec.NewWorker(); (werr == nil) != (err == nil) || (w == nil) != (err != nil) {
			t.Errorf("%s: a worker, but %v", c.name, err)
		}
	}
}

// TestCanonical changes one field at a time.
func TestCanonical(t *testing.T) {
	seen := map[string]string{all.Canonical(): "all"}
	for name, change := range map[string]func(*Spec){
		"size":          func(s *Spec) { s.Size.X = 223 },
		"scale":         func(s *Spec) { s.Scale = [2]float64{0.2, 1} },
		"ratio":         func(s *Spec) { s.Ratio = [2]float64{0.5, 2} },
		"filter":        func(s *Spec) { s.Filter = resample.Bicubic },
		"order":         func(s *Spec) { s.Order = resample.Pillow13 },
		"gray":          func(s *Spec) { s.Gray = 0.1 },
		"brightness":    func(s *Spec) { s.Brightness = 0.1 },
		"contrast":      func(s *Spec) { s.Contrast = 0.1 },
		"saturation":    func(s *Spec) { s.Saturation = 0.1 },
		"hue":           func(s *Spec) { s.Hue = 0.2 },
		"flip":          func(s *Spec) { s.Flip = 0.1 },
		"rotate":        func(s *Spec) { s.Rotate = 1 },
		"rotate filter": func(s *Spec) { s.RotateFilter = resample.Bilinear },
		"no crop":       func(s *Spec) { s.Size = image.Point{} },
	} {
		s := all
		change(&s)
		if other, ok := seen[s.Canonical()]; ok {
			t.Errorf("%s has the text of %s", name, other)
		}
		seen[s.Canonical()] = name
	}
	if all.Canonical() != all.withDefaults().Canonical() {
		t.Error("defaults written out change the text")
	}
}

// TestWindow fills what lies outside the crop with other pixels.
func TestWindow(t *testing.T) {
	const width, height = 61, 47
	w := newWorker(t, Spec{Size: image.Pt(20, 20), Filter: resample.Lanczos})
	crop := image.Rect(9, 5, 50, 44)
	src := picture("noise", width, height, nil)
	want, got := make([]byte, 3*20*20), make([]byte, 3*20*20)
	if err := w.Apply(want, src, width, height, Choices{Crop: crop}); err != nil {
		t.Fatal(err)
	}
	for i := range src {
		if p := image.Pt(i/3%width, i/3/width); !p.In(crop) {
			src[i] ^= 255
		}
	}
	if err := w.Apply(got, src, width, height, Choices{Crop: crop}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("pixels outside the crop changed the result")
	}
}

func TestApplyErrors(t *testing.T) {
	w := newWorker(t, Spec{Size: image.Pt(4, 4)})
	src, good := make([]byte, 3*8*6), Choices{Crop: image.Rect(0, 0, 8, 6)}
	with := func(change func(*Choices)) Choices { c := good; change(&c); return c }
	nan := float32(math.NaN())
	for _, c := range []struct {
		name          string
		dst, src      int
		width, height int
		choices       Choices
		want          string
	}{
		{"short source", 48, 3 * 47, 8, 6, good, "an image of 8×6"},
		{"no width", 48, 0, 0, 6, good, "an image of 0×6"},
		{"short destination", 47, 144, 8, 6, good, "room for 47 bytes"},
		{"crop outside", 48, 144, 8, 6, with(func(c *Choices) { c.Crop.Max.X = 9 }), "crop"},
		{"no crop", 48, 144, 8, 6, Choices{}, "crop"},
		{"operation", 48, 144, 8, 6, with(func(c *Choices) { c.Jitter[1].Op = "sharpness" }), "sharpness"},
		{"negative factor", 48, 144, 8, 6, with(func(c *Choices) { c.Jitter[0] = Adjustment{Contrast, -1} }), "contrast is -1"},
		{"large factor", 48, 144, 8, 6, with(func(c *Choices) { c.Jitter[3] = Adjustment{Brightness, 1e9} }), "brightness"},
		{"NaN factor", 48, 144, 8, 6, with(func(c *Choices) { c.Jitter[0] = Adjustment{Saturation, nan} }), "saturation"},
		{"hue", 48, 144, 8, 6, with(func(c *Choices) { c.Jitter[0] = Adjustment{Hue, 0.51} }), "hue"},
		{"angle", 48, 144, 8, 6, with(func(c *Choices) { c.Angle = 90 }), "angle"},
		{"NaN angle", 48, 144, 8, 6, with(func(c *Choices) { c.Angle = nan }), "angle"},
	} {
		err := w.Apply(make([]byte, c.dst), src[:c.src], c.width, c.height, c.choices)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := w.Apply(make([]byte, 48), src, 8, 6, good); err != nil {
		t.Error(err)
	}
}

// TestAllocations draws and applies as the trainer will, over images of
// changing size, once the buffers have grown.
func TestAllocations(t *testing.T) {
	w := newWorker(t, all)
	src := picture("smooth", 500, 375, nil)
	dst := make([]byte, 3*224*224)
	row := uint64(0)
	next := func() {
		width, height := 500-int(row%5)*30, 375-int(row%3)*50
		row++
		c := all.Draw(Key{Row: row}, width, height)
		if err := w.Apply(dst, src[:3*width*height], width, height, c); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		next()
	}
	row = 0
	if n := testing.AllocsPerRun(100, next); n != 0 {
		t.Errorf("%v allocations per image", n)
	}
}

// FuzzAugment draws and applies for any spec that is valid and any small image:
// the crop lies inside, and nothing panics.
func FuzzAugment(f *testing.F) {
	f.Add(uint64(1), uint16(37), uint16(23), uint8(8), uint8(9), 0.08, 1.0, 0.75, 1.33, 0.5, 0.4, 0.2, 15.0)
	f.Add(uint64(2), uint16(1), uint16(300), uint8(1), uint8(1), 0.9, 1.0, 0.001, 1000.0, 1.0, 900.0, 0.5, 45.0)
	f.Add(uint64(3), uint16(1), uint16(1), uint8(0), uint8(0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
	f.Fuzz(func(t *testing.T, seed uint64, width, height uint16, x, y uint8, scale0, scale1, ratio0, ratio1, p, jitter, hue, rotate float64) {
		s := Spec{
			Size: image.Pt(int(x), int(y)), Scale: [2]float64{scale0, scale1}, Ratio: [2]float64{ratio0, ratio1},
			Gray: p, Flip: p, Brightness: jitter, Contrast: jitter, Saturation: jitter, Hue: hue, Rotate: rotate,
		}
		if seed%2 == 1 && rotate != 0 {
			s.RotateFilter = resample.Bilinear
		}
		w, err := s.NewWorker()
		if err != nil {
			return
		}
		// Any size may be drawn for; pixels only for a small one.
		for row := range uint64(8) {
			c := s.Draw(Key{Seed: seed, Row: row}, int(width)+1, int(height)+1)
			if c.Crop.Empty() || !c.Crop.In(image.Rect(0, 0, int(width)+1, int(height)+1)) {
				t.Fatalf("%+v: crop %v of %d×%d", s, c.Crop, int(width)+1, int(height)+1)
			}
		}
		dx, dy := int(width%50)+1, int(height%50)+1
		c := s.Draw(Key{Seed: seed}, dx, dy)
		size := w.size(c)
		first, second := make([]byte, 3*size.X*size.Y), make([]byte, 3*size.X*size.Y)
		src := picture("noise", dx, dy, nil)
		for _, dst := range [][]byte{first, second} {
			if err := w.Apply(dst, src, dx, dy, c); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
		}
		if !bytes.Equal(first, second) {
			t.Fatalf("%+v: two results", c)
		}
	})
}
