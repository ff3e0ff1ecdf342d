package resample

import (
	"bytes"
	"image"
	"math/rand/v2"
	"slices"
	"testing"
)

// use makes w the active twin for the rest of the test.
func use(t testing.TB, w twin) {
	before := active
	active = w
	t.Cleanup(func() { active = before })
}

var filters = []Filter{Box, Bilinear, Bicubic, Lanczos, Nearest}

// random returns any scaling of sides up to most.
func random(r *rand.Rand, most int) Scaling {
	side := func() int { return 1 + r.IntN(1+r.IntN(most)) }
	s := Scaling{From: image.Pt(side(), side()), To: image.Pt(side(), side()), Filter: filters[r.IntN(len(filters))], Order: HorizontalFirst}
	switch r.IntN(8) {
	case 0:
		s.To.X = s.From.X
	case 1:
		s.To.Y = s.From.Y
	case 2:
		s.To = s.From
	}
	if r.IntN(2) == 0 {
		s.Order = Pillow13
	}
	s.Keep = image.Rectangle{Max: s.To}
	if r.IntN(2) == 0 {
		s.Keep.Min = image.Pt(r.IntN(s.To.X), r.IntN(s.To.Y))
		s.Keep.Max = s.Keep.Min.Add(image.Pt(1+r.IntN(s.To.X-s.Keep.Min.X), 1+r.IntN(s.To.Y-s.Keep.Min.Y)))
	}
	return s
}

func noise(r *rand.Rand, n int) []byte {
	pix := make([]byte, n)
	for i := range pix {
		pix[i] = byte(r.Uint32())
		if r.IntN(3) == 0 {
			pix[i] = byte(-int(pix[i] & 1))
		}
	}
	return pix
}

// TestTwinsMatchPortable compares every twin with the portable code on random
// scalings, and checks that the bytes between the rows are left alone and that
// pixels outside Window do not count.
func TestTwinsMatchPortable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]Resizer, len(twins))
	runs := 1200
	if testing.Short() {
		runs = 300
	}
	for range runs {
		s := random(r, []int{20, 150, 500}[r.IntN(3)])
		pitch, outPitch := 3*s.From.X+r.IntN(50), 3*s.Keep.Dx()+r.IntN(50)
		src, before := noise(r, pitch*s.From.Y), noise(r, outPitch*s.Keep.Dy())
		var want []byte
		for i, w := range twins {
			use(t, w)
			got := bytes.Clone(before)
			if w.name != portable.name {
				spoil(src, pitch, s)
			}
			all[i].Resize(got, outPitch, src, pitch, s)
			if want == nil {
				want = got
				for y := range s.Keep.Dy() {
					gap := y*outPitch + 3*s.Keep.Dx()
					if !bytes.Equal(got[gap:(y+1)*outPitch], before[gap:(y+1)*outPitch]) {
						t.Fatalf("%s, %+v: writes beyond row %d", w.name, s, y)
					}
				}
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%s, %+v: differs from portable", w.name, s)
			}
		}
	}
}

// spoil changes every pixel that Window says is not read.
func spoil(src []byte, pitch int, s Scaling) {
	w := s.Window()
	for y := range s.From.Y {
		for x := range s.From.X {
			if !image.Pt(x, y).In(w) {
				src[y*pitch+3*x]++
			}
		}
	}
}

// TestSplit puts the digits together again, and checks that a coefficient fits
// the digits of every layout: the largest occur at the edge of small images.
func TestSplit(t *testing.T) {
	for _, l := range []layout{{4, 3}, {2, 2}, {1, 1}} {
		for _, f := range []Filter{Box, Bilinear, Bicubic, Lanczos} {
			for in := 1; in < 40; in++ {
				for _, out := range []int{1, 2, 3, 16, 39, 333} {
					var p taps
					p.prepare(axis{f, in, out, 0, out}, l)
					bits := 32 / l.size
					for i := range out {
						got := make([]int32, p.groups*l.size)
						for j := range got {
							for d := l.count - 1; d >= 0; d-- {
								word := p.digits[(i*p.groups+j/l.size)*l.count+d]
								digit := word << (32 - bits - j%l.size*bits) >> (32 - bits)
								got[j] = int32(int64(got[j])<<bits) + digit
							}
						}
						want := make([]int32, len(got))
						copy(want[p.start[i]-int(p.group[i])*l.size:], p.coeff[i*p.stride:][:p.count[i]])
						for j := range got {
							if got[j] != want[j] {
								t.Fatalf("%v, %s %d→%d: coefficient %d of output %d is %d, split into %d", l, f, in, out, j, i, want[j], got[j])
							}
						}
					}
				}
			}
		}
	}
}

// TestCache runs more sizes than are kept, and ones too large to keep many.
func TestCache(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var c cache
	for range 300 {
		a := axis{filter: Lanczos, in: 1 + r.IntN(40), out: 1 + r.IntN(3), n: 1}
		if r.IntN(20) == 0 {
			a.in = 1 << 17
		}
		l := []layout{{4, 3}, {2, 2}}[r.IntN(2)]
		got := c.get(a, l)
		var want taps
		want.prepare(a, l)
		if got.axis != a || got.layout != l || got != c[0] || got.first != want.first || got.groups != want.groups {
			t.Fatalf("%+v: got %+v", a, got.axis)
		}
		if n := want.count[0]; got.count[0] != n || !slices.Equal(got.coeff[:n], want.coeff[:n]) {
			t.Fatalf("%+v: coefficients %v, want %v", a, got.coeff[:n], want.coeff[:n])
		}
		if len(c) > keptTables || len(c) > 2 && c.numbers() > keptNumbers+4<<20 {
			t.Fatalf("%d tables with %d numbers are kept", len(c), c.numbers())
		}
	}
}

func TestNoAllocation(t *testing.T) {
	src, out := make([]byte, 3*300*300), make([]byte, 3*64*64)
	for _, w := range twins {
		use(t, w)
		var z Resizer
		n := 0
		run := func() { // more sizes than tables are kept
			n++
			side := 200 + n%40*2
			z.Resize(out, 3*64, src, 900, Scaling{From: image.Pt(side, side+1), To: image.Pt(64, 64), Keep: image.Rect(0, 0, 64, 64), Filter: Bicubic, Order: HorizontalFirst})
		}
		for range 600 {
			run()
		}
		if got := testing.AllocsPerRun(100, run); got != 0 {
			t.Errorf("%s: %v allocations per image", w.name, got)
		}
	}
}
