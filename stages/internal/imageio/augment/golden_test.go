package augment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"image"
	"os"
	"path/filepath"
	"testing"

	"sela/stages/internal/imageio/resample"
)

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

// picture computes the images that testdata/goldens.py computes.
func picture(kind string, width, height int, colour []byte) []byte {
	pix := make([]byte, 3*width*height)
	noise := func(i int) byte {
		x := uint32(i+1) * 0x9E3779B1
		x ^= x >> 15
		return byte(x * 0x85EBCA77 >> 24)
	}
	for i := range pix {
		n, c := i/3, i%3
		x, y := n%width, n/width
		switch kind {
		case "noise":
			pix[i] = noise(i)
		case "gray":
			pix[i] = noise(3 * n)
		case "flat":
			pix[i] = colour[c]
		case "smooth":
			pix[i] = byte([3]int{x * 255 / width, y * 255 / height, 3*x + 5*y}[c])
		case "colours": // all of them, 4096 × 4096
			pix[i] = byte(n >> (8 * (2 - c)))
		default:
			panic(kind)
		}
	}
	return pix
}

// TestPixels compares every step, and combinations, with torchvision's bytes.
func TestPixels(t *testing.T) {
	var cases []struct {
		Kind          string
		Width, Height int
		Colour        []byte
		Choices       json.RawMessage
		Crop, Size    []int
		Filter        resample.Filter
		RotateFilter  resample.Filter `json:"rotate_filter"`
		SHA256        string
	}
	readJSON(t, "pixels.json", &cases)
	var colours []byte
	for _, c := range cases {
		choices := Choices{Crop: image.Rect(0, 0, c.Width, c.Height)}
		if err := json.Unmarshal(c.Choices, &choices); err != nil {
			t.Fatal(err)
		}
		spec := Spec{RotateFilter: c.RotateFilter}
		if c.RotateFilter != "" {
			spec.Rotate = maxAngle
		}
		n := 3 * c.Width * c.Height
		if c.Size != nil {
			spec.Size, spec.Filter = image.Pt(c.Size[0], c.Size[1]), c.Filter
			choices.Crop = image.Rect(c.Crop[0], c.Crop[1], c.Crop[2], c.Crop[3])
			n = 3 * c.Size[0] * c.Size[1]
		}
		w, err := spec.NewWorker()
		if err != nil {
			t.Fatal(err)
		}
		src := colours
		if c.Kind != "colours" || src == nil {
			src = picture(c.Kind, c.Width, c.Height, c.Colour)
		}
		if c.Kind == "colours" {
			colours = src
		}
		dst := make([]byte, n)
		if err := w.Apply(dst, src, c.Width, c.Height, choices); err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(dst); hex.EncodeToString(sum[:]) != c.SHA256 {
			t.Errorf("%s %d×%d, %+v %+v: other bytes than torchvision", c.Kind, c.Width, c.Height, spec, choices)
		}
	}
	if len(cases) < 500 {
		t.Errorf("%d goldens", len(cases))
	}
}

// TestHueBack compares the integer form of HSV → RGB with Pillow's floating
// point, for all hues, saturations and values.
func TestHueBack(t *testing.T) {
	round := func(x float64) int { return int(x + 0.5) } // of positive numbers, as C's
	sectors := &hues().sector
	for h := range 256 {
		sixth := int(float64(h) * 6 / 255)
		f := float32(float64(float64(h)*6/255) - float64(sixth))
		for s := range 256 {
			saturation := float32(float64(s) / 255)
			way := float64(saturation * f)
			if sixth%2 == 0 {
				way = float64(float64(saturation) * (1 - float64(f)))
			}
			for v := range 256 {
				to := sectors[h]
				mid := round(float64(v) * (1 - way))
				low := round(float64(v) * (1 - float64(saturation)))
				if got := middle(uint32(v), uint32(s), uint32(to.m)); int(got) != mid {
					t.Fatalf("hue %d, saturation %d, value %d: %d, want %d", h, s, v, got, mid)
				}
				if got := smallest(uint32(v), uint32(s)); int(got) != low {
					t.Fatalf("saturation %d, value %d: %d, want %d", s, v, got, low)
				}
			}
		}
	}
}

// TestTables compares every table of a blend with the formula.
func TestTables(t *testing.T) {
	for _, weight := range []float32{0, 0.25, 0.6, 0.7777777, 0.9999999, 1, 1.0000001, 1.3, 1.9999999, 40, maxFactor} {
		for gray := range 256 {
			pix, want := make([]byte, 256), make([]byte, 256)
			for x := range 256 {
				pix[x], want[x] = byte(x), blend(byte(gray), byte(x), weight)
			}
			towards(pix, byte(gray), weight)
			if string(pix) != string(want) {
				t.Fatalf("towards %d by %v: %v, want %v", gray, weight, pix, want)
			}
		}
		for i := range 4096 {
			p := picture("noise", 1, i+1, nil)[3*i:]
			l := byte(luma(p[0], p[1], p[2]))
			want := [3]byte{blend(l, p[0], weight), blend(l, p[1], weight), blend(l, p[2], weight)}
			saturate(p, weight)
			if [3]byte(p) != want {
				t.Fatalf("saturation by %v: %v, want %v", weight, p, want)
			}
		}
	}
}

// TestQuarterTurns turns 0, 1, 2 … and compares with the definition of
// torch.rot90, one turn at a time.
func TestQuarterTurns(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {5, 1}, {1, 4}, {7, 4}, {4, 4}} {
		src := picture("noise", size.X, size.Y, nil)
		want, w, h := append([]byte(nil), src...), size.X, size.Y
		for turns := range 9 {
			got := make([]byte, len(src))
			QuarterTurns(got, src, size.X, size.Y, turns)
			back := make([]byte, len(src))
			QuarterTurns(back, src, size.X, size.Y, turns-12)
			if string(got) != string(want) || string(back) != string(want) {
				t.Fatalf("%v turned %d times: %v, want %v", size, turns, got, want)
			}
			next := make([]byte, len(src))
			for i := range w { // out[i][j] = in[j][w−1−i]
				for j := range h {
					copy(next[3*(i*h+j):][:3], want[3*(j*w+w-1-i):])
				}
			}
			want, w, h = next, h, w
		}
	}
}
