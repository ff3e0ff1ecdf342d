package resample

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"image"
	"os"
	"strings"
	"testing"
)

// golden is one case of testdata/goldens.py.
type golden struct {
	Kind       string
	Whole, To  [2]int
	Part, Keep [4]int
	Filter     Filter
	Digest     string
}

// generate is pixels of testdata/goldens.py.
func generate(kind string, w, h int) []byte {
	pix := make([]byte, 3*w*h)
	for i := range pix {
		x := uint32(i) * 2654435761
		x ^= x >> 15
		x *= 2246822519
		x ^= x >> 13
		switch kind {
		case "hard":
			x = x >> 20 % 2 * 255
		case "smooth":
			x = uint32(i / 7)
		}
		pix[i] = byte(x)
	}
	return pix
}

func rect(r [4]int) image.Rectangle { return image.Rect(r[0], r[1], r[2], r[3]) }

// TestMatchesPillow asserts Pillow's bytes, for the cases kept here and for
// those of the file that SELA_RESIZE_CASES names.
func TestMatchesPillow(t *testing.T) {
	files := []string{"testdata/pillow-12.json", "testdata/pillow-13.json"}
	if name := os.Getenv("SELA_RESIZE_CASES"); name != "" {
		files = append(files, name)
	}
	for _, file := range files {
		var all struct {
			Pillow string
			Cases  []golden
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &all); err != nil || len(all.Cases) == 0 {
			t.Fatalf("%s: %d cases, %v", file, len(all.Cases), err)
		}
		order := HorizontalFirst
		if strings.HasPrefix(all.Pillow, "13.") {
			order = Pillow13
		}
		t.Logf("%s: Pillow %s, %d cases", file, all.Pillow, len(all.Cases))
		for _, w := range twins {
			t.Run(w.name, func(t *testing.T) {
				use(t, w)
				var z Resizer
				for _, c := range all.Cases {
					part := rect(c.Part)
					s := Scaling{From: part.Size(), To: image.Pt(c.To[0], c.To[1]), Keep: rect(c.Keep), Filter: c.Filter, Order: order}
					pitch := 3 * c.Whole[0]
					src := generate(c.Kind, c.Whole[0], c.Whole[1])[part.Min.Y*pitch+3*part.Min.X:]
					out := make([]byte, 3*s.Keep.Dx()*s.Keep.Dy())
					z.Resize(out, 3*s.Keep.Dx(), src, pitch, s)
					if sum := sha256.Sum256(out); hex.EncodeToString(sum[:8]) != c.Digest {
						t.Errorf("%+v: bytes differ from Pillow's", c)
					}
				}
			})
		}
	}
}
