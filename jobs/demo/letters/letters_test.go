package letters

import (
	"bytes"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"testing"
)

func TestLettersAreBalanced(t *testing.T) {
	for _, n := range []int{1, 25, 26, 27, 1000, 4000} {
		var counts [Count]int
		for i := range n {
			counts[Letter(i, 7)-'A']++
		}
		for l, c := range counts {
			if c != n/Count && c != n/Count+1 {
				t.Errorf("%d images: %d of letter %c, want %d or one more", n, c, 'A'+l, n/Count)
			}
		}
	}
}

// A number must not tell the letter: neither its place in a hand nor its
// successor may.
func TestLettersAreShuffled(t *testing.T) {
	same := 0
	for i := range 100 * Count {
		if Letter(i, 7) == Letter(i+Count, 7) {
			same++
		}
	}
	if same > 100*2 {
		t.Errorf("%d of %d letters repeat after %d numbers, want about %d", same, 100*Count, Count, 100)
	}
}

func TestRenderIsPure(t *testing.T) {
	for i := range 60 {
		a, la := Render(i, 3)
		b, lb := Render(i, 3)
		if la != lb || !bytes.Equal(a.Pix, b.Pix) {
			t.Fatalf("image %d differs between two calls", i)
		}
		if la != Letter(i, 3) {
			t.Fatalf("image %d: Render says %c, Letter %c", i, la, Letter(i, 3))
		}
		if c, _ := Render(i, 4); bytes.Equal(a.Pix, c.Pix) {
			t.Fatalf("image %d is the same with another seed", i)
		}
		if c, _ := Render(i+1, 3); bytes.Equal(a.Pix, c.Pix) {
			t.Fatalf("images %d and %d are the same", i, i+1)
		}
	}
}

// Every letter of every face lies within the picture at the largest size,
// offset and angle, and covers a visible part of it.
func TestOutlinesFillTheirBox(t *testing.T) {
	for f, glyphs := range outlines() {
		for l, o := range glyphs {
			low, high := float32(0), float32(0)
			for _, s := range o {
				for _, p := range s.args[:1] {
					low, high = min(low, p[0], p[1]), max(high, p[0], p[1])
				}
			}
			if low < -0.75 || high > 0.75 || high-low < 0.9 {
				t.Errorf("face %d, letter %c: outline spans %v to %v, want about -0.5 to 0.5", f, 'A'+l, low, high)
			}
		}
	}
}

func TestEncodeDecodes(t *testing.T) {
	formats := map[string]int{}
	for i := range 200 {
		var buf bytes.Buffer
		ext, letter, err := Encode(&buf, i, 5)
		if err != nil {
			t.Fatal(err)
		}
		img, format, err := image.Decode(&buf)
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if want := map[string]string{"jpeg": ".jpg", "png": ".png"}[format]; ext != want {
			t.Errorf("image %d is a %s called %s", i, format, ext)
		}
		if got := img.Bounds(); got != image.Rect(0, 0, Size, Size) {
			t.Errorf("image %d: bounds %v", i, got)
		}
		drawn, want := Render(i, 5)
		if letter != want {
			t.Errorf("image %d: letter %c, want %c", i, letter, want)
		}
		if d := meanDifference(img, drawn); d > 12 {
			t.Errorf("image %d: decoded %s is %.1f levels off what was drawn", i, format, d)
		}
		formats[format]++
	}
	if formats["jpeg"] < 120 || formats["png"] < 20 {
		t.Errorf("formats of 200 images: %v", formats)
	}
}

func meanDifference(a, b image.Image) float64 {
	sum := 0.0
	for y := range Size {
		for x := range Size {
			_, ga, _, _ := a.At(x, y).RGBA()
			_, gb, _, _ := b.At(x, y).RGBA()
			sum += max(float64(ga)-float64(gb), float64(gb)-float64(ga)) / 257
		}
	}
	return sum / (Size * Size)
}

// The letter must stand out: ink and paper differ in every image.
func TestLettersAreLegible(t *testing.T) {
	for i := range 300 {
		img, letter := Render(i, 9)
		low, high := 255.0, 0.0
		// The mean of 3 × 3 pixels keeps noise from passing as contrast.
		for y := 1; y < Size-1; y++ {
			for x := 1; x < Size-1; x++ {
				sum := 0.0
				for _, d := range [9]image.Point{{-1, -1}, {0, -1}, {1, -1}, {-1, 0}, {0, 0}, {1, 0}, {-1, 1}, {0, 1}, {1, 1}} {
					sum += float64(img.RGBAAt(x+d.X, y+d.Y).G)
				}
				low, high = min(low, sum/9), max(high, sum/9)
			}
		}
		if high-low < 50 {
			t.Errorf("image %d (%c): contrast %.0f levels", i, letter, high-low)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var buf bytes.Buffer
	i := 0
	for b.Loop() {
		buf.Reset()
		if _, _, err := Encode(&buf, i, 1); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
