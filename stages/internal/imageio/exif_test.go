package imageio

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// exifGoldens are what Pillow makes of files that say how they are to be turned
// (testdata/exif.py).
type exifGoldens struct {
	Cases []struct {
		Name        string
		Orientation int
		Data        []byte
	}
	Turns []struct {
		Width, Height, Orientation int
		SHA256                     string
	}
}

func readEXIFGoldens(t testing.TB) (g exifGoldens) {
	t.Helper()
	raw, err := os.ReadFile("testdata/exif.json")
	if err == nil {
		err = json.Unmarshal(raw, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestOrientation(t *testing.T) {
	g, seen := readEXIFGoldens(t), map[int]int{}
	for _, c := range g.Cases {
		h, err := readHeader(c.Data)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if o := orientation(h.format, c.Data); o != c.Orientation {
			t.Errorf("%s: orientation %d, Pillow's is %d", c.Name, o, c.Orientation)
		}
		seen[c.Orientation]++
	}
	for o := 1; o <= 8; o++ {
		if seen[o] < 3 {
			t.Errorf("orientation %d in %d cases only", o, seen[o])
		}
	}
}

// Metadata that a damaged file cuts off anywhere must be read without a panic,
// and no image but one with PNG text may cost an allocation.
func TestOrientationOfCutFiles(t *testing.T) {
	for _, c := range readEXIFGoldens(t).Cases {
		h, err := readHeader(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		for n := 8; n < len(c.Data); n++ {
			data := bytes.Clone(c.Data[:n]) // so that reading past the end would be found
			if o := orientation(h.format, data[:n:n]); o < 1 || o > 8 {
				t.Errorf("%s cut at %d: orientation %d", c.Name, n, o)
			}
		}
		if bytes.Contains(c.Data, []byte("Xt")) || c.Name == "jpeg of two parts" || c.Name == "jpeg two blocks" {
			continue
		}
		if n := testing.AllocsPerRun(1, func() { orientation(h.format, c.Data) }); n != 0 {
			t.Errorf("%s: %v allocations", c.Name, n)
		}
	}
}

func TestOrient(t *testing.T) {
	var src, dst RGB
	for _, c := range readEXIFGoldens(t).Turns {
		src.resize(c.Width, c.Height)
		for i := range src.Pix {
			src.Pix[i] = byte(i*7 + i/251)
		}
		before := bytes.Clone(src.Pix)
		orient(&src, c.Orientation, &dst)
		w, h := c.Width, c.Height
		if c.Orientation >= 5 {
			w, h = h, w
		}
		if sum := sha256.Sum256(dst.Pix); dst.Width != w || dst.Height != h || hex.EncodeToString(sum[:]) != c.SHA256 {
			t.Errorf("%d×%d turned by %d: %d×%d pixels that are not Pillow's", c.Width, c.Height, c.Orientation, dst.Width, dst.Height)
		}
		if !bytes.Equal(src.Pix, before) {
			t.Errorf("%d×%d turned by %d: the image itself was changed", c.Width, c.Height, c.Orientation)
		}
	}
	if n := testing.AllocsPerRun(3, func() { orient(&src, 7, &dst) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzOrientation(f *testing.F) {
	for _, c := range readEXIFGoldens(f).Cases {
		f.Add(c.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, format := range []string{"jpeg", "png", "webp", "tiff", "gif", ""} {
			if o := orientation(format, data); o < 1 || o > 8 {
				t.Errorf("%s: orientation %d", format, o)
			}
		}
	})
}

func BenchmarkOrient(b *testing.B) {
	var src, dst RGB
	src.reset(4096, 3072)
	for o := 1; o <= 8; o++ {
		b.Run(string(rune('0'+o)), func(b *testing.B) {
			b.SetBytes(int64(len(src.Pix)))
			for b.Loop() {
				orient(&src, o, &dst)
			}
		})
	}
}
