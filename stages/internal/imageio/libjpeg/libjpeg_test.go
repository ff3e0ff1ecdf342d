package libjpeg

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	if Available {
		m.Run()
	}
}

// samples returns the package above's files, by name.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "testdata", "samples", "*.jpg"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = data
	}
	return files
}

// encoded returns a noisy image as image/jpeg writes it: 4:2:0 or gray.
func encoded(t testing.TB, width, height int, gray bool) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(width), uint64(height)))
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range m.Pix {
		m.Pix[i] = byte(i*7%201) + byte(random.IntN(55))
	}
	var source image.Image = m
	if gray {
		g := image.NewGray(m.Rect)
		for i := range g.Pix {
			g.Pix[i] = m.Pix[4*i]
		}
		source = g
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, source, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// frame reads the size out of the first frame header.
func frame(t testing.TB, data []byte) (width, height int) {
	t.Helper()
	for at := 2; at+9 < len(data); {
		switch marker := data[at+1]; {
		case data[at] != 0xff || marker == 0xff:
			at++
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			return int(data[at+7])<<8 | int(data[at+8]), int(data[at+5])<<8 | int(data[at+6])
		default:
			at += 2 + int(data[at+2])<<8 + int(data[at+3])
		}
	}
	t.Fatal("no frame header")
	return 0, 0
}

// guard is what lies around every buffer that libjpeg writes.
const guard = 0xa5

// decode returns the decoded image at the given eighths, and fails the test if
// a byte beside it was written.
func decode(t testing.TB, data []byte, r Request) []byte {
	t.Helper()
	const beside = 256
	n := 3 * Scaled(r.Width, r.Eighths) * Scaled(r.Height, r.Eighths)
	buffer := bytes.Repeat([]byte{guard}, n+2*beside)
	if err := Decode(data, r, buffer[beside:beside+n:beside+n]); err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if bytes.Count(buffer[:beside], []byte{guard}) != beside || bytes.Count(buffer[beside+n:], []byte{guard}) != beside {
		t.Fatalf("%+v: bytes beside the image were written", r)
	}
	return buffer[beside : beside+n]
}

// TestWindows compares windows of every kind of file, at every scale, with the
// same pixels of the whole image.
func TestWindows(t *testing.T) {
	files := samples(t)
	for _, s := range []image.Point{{1, 1}, {9, 40}, {15, 16}, {17, 33}, {40, 9}, {47, 31}, {63, 64}, {65, 50}, {130, 97}} {
		files["420 "+s.String()] = encoded(t, s.X, s.Y, false)
		files["gray "+s.String()] = encoded(t, s.X, s.Y, true)
	}
	compared := 0
	for name, data := range files {
		width, height := frame(t, data)
		random := rand.New(rand.NewPCG(3, 4))
		for eighths := 1; eighths <= 8; eighths++ {
			r := Request{Width: width, Height: height, Eighths: eighths, Scans: 100}
			if err := Decode(data, r, make([]byte, 3*Scaled(width, eighths)*Scaled(height, eighths))); err != nil {
				if eighths == 8 {
					t.Logf("%s: %v", name, err)
				}
				continue
			}
			want := decode(t, data, r)
			w, h := Scaled(width, eighths), Scaled(height, eighths)
			for range 60 {
				x, y := random.IntN(w), random.IntN(h)
				r.Window = image.Rect(x, y, x+1+random.IntN(w-x), y+1+random.IntN(h-y))
				r.Whole = random.IntN(4) == 0
				got := decode(t, data, r)
				for y := r.Window.Min.Y; y < r.Window.Max.Y; y++ {
					from, to := 3*(y*w+r.Window.Min.X), 3*(y*w+r.Window.Max.X)
					if !bytes.Equal(got[from:to], want[from:to]) {
						t.Fatalf("%s: %d/8, window %v of %d×%d: row %d differs from the whole image's", name, eighths, r.Window, w, h, y)
					}
				}
				compared++
			}
		}
	}
	t.Logf("%d windows of %d files", compared, len(files))
}

// TestFlat decodes a gray image of one level, which the DCT at the finest
// quantisation keeps.
func TestFlat(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 31, 18))
	for i := range m.Pix {
		m.Pix[i] = 77
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	got := decode(t, b.Bytes(), Request{Width: 31, Height: 18, Eighths: 8, Scans: 1})
	if n := bytes.Count(got, []byte{77}); n != len(got) {
		t.Errorf("%d of %d samples are 77", n, len(got))
	}
}

// without returns a file without its segments of a marker that stand before the
// first scan.
func without(data []byte, marker byte) []byte {
	out := data[:2:2]
	at := 2
	for data[at+1] != 0xda {
		next := at + 2 + int(data[at+2])<<8 + int(data[at+3])
		if data[at+1] != marker {
			out = append(out, data[at:next]...)
		}
		at = next
	}
	return append(out, data[at:]...)
}

// TestErrors also decodes a good file before and after, of which nothing may be
// left.
func TestErrors(t *testing.T) {
	good := encoded(t, 40, 30, false)
	sof := bytes.Index(good, []byte{0xff, 0xc0})
	sos := bytes.Index(good, []byte{0xff, 0xda})
	dqt := bytes.Index(good, []byte{0xff, 0xdb})
	patched := func(at int, v byte) []byte {
		data := bytes.Clone(good)
		data[at] = v
		return data
	}
	progressive := samples(t)["420-progressive.jpg"]
	width, height := frame(t, progressive)
	size := Request{Width: 40, Height: 30, Eighths: 8, Scans: 1}
	first := Request{Width: width, Height: height, Eighths: 8, Scans: 100}
	cases := []struct {
		name string
		data []byte
		r    Request
		want Kind
	}{
		// A decoder kept from the file before would have that one's tables.
		{"no Huffman tables", without(progressive, 0xc4), first, Corrupt},
		{"no quantisation tables", without(progressive, 0xdb), first, Corrupt},
		{"nothing", nil, size, Truncated},
		{"no image", []byte("GIF89a"), size, Corrupt},
		{"cut", good[:len(good)/2], size, Truncated},
		{"cut in the header", good[:sos-9], size, Truncated},
		{"another size", good, Request{Width: 41, Height: 30, Eighths: 8, Scans: 1}, Corrupt},
		{"12 bits", patched(sof+4, 12), size, Unsupported},
		{"hierarchical", patched(sof+1, 0xc5), size, Unsupported},
		{"no such table", patched(dqt+4, 9), size, Corrupt},
		{"too many scans", progressive, Request{Width: width, Height: height, Eighths: 8, Scans: 3}, TooLarge},
	}
	if err := Decode(progressive, first, make([]byte, 3*width*height)); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		n := 3 * c.r.Width * c.r.Height
		err := Decode(c.data, c.r, make([]byte, n))
		var e *Error
		if !errors.As(err, &e) || e.Kind != c.want || e.Message == "" {
			t.Errorf("%s: %v, want kind %d", c.name, err, c.want)
		}
	}
	r := size
	if err := Decode(good, r, make([]byte, 3*40*30)); err != nil {
		t.Errorf("a good file after the bad ones: %v", err)
	}
	var e *Error
	for _, bad := range []struct {
		r Request
		n int
	}{
		{r, 17},
		{Request{Width: 40, Height: 30, Eighths: 9, Scans: 1}, 3 * 45 * 34},
		{Request{Width: 0, Height: 30, Eighths: 8, Scans: 1}, 0},
		{Request{Width: 40, Height: 30, Eighths: 8, Scans: 1, Window: image.Rect(0, 0, 41, 1)}, 3600},
		{Request{Width: 40, Height: 30, Eighths: 8, Scans: 1, Window: image.Rect(-1, 0, 4, 1)}, 3600},
	} {
		if err := Decode(good, bad.r, make([]byte, bad.n)); err == nil || errors.As(err, &e) {
			t.Errorf("%+v with %d bytes: %v, want an error of the caller", bad.r, bad.n, err)
		}
	}
}

// TestWholeReadsTheTail has an error behind the pixels of a window: it is found
// where the whole file is asked for.
func TestWholeReadsTheTail(t *testing.T) {
	good := encoded(t, 40, 64, false)
	sof := bytes.Index(good, []byte{0xff, 0xc0})
	second := good[sof : sof+2+int(good[sof+3])]
	bad := append(bytes.Clone(good[:len(good)-2]), second...)
	bad = append(bad, 0xff, 0xd9)
	r := Request{Width: 40, Height: 64, Eighths: 8, Scans: 1, Window: image.Rect(3, 3, 20, 20)}
	out := make([]byte, 3*40*64)
	if err := Decode(bad, r, out); err != nil {
		t.Errorf("a window above the error: %v", err)
	}
	r.Whole = true
	var e *Error
	if err := Decode(bad, r, out); !errors.As(err, &e) || e.Kind != Corrupt {
		t.Errorf("the window of a file read whole: %v, want a corrupt one", err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	data := encoded(t, 130, 97, false)
	r := Request{Width: 130, Height: 97, Eighths: 8, Scans: 1, Window: image.Rect(20, 20, 90, 70)}
	out := make([]byte, 3*130*97)
	if n := testing.AllocsPerRun(100, func() {
		if err := Decode(data, r, out); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per image", n)
	}
}
