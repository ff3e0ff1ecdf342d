package ort_test

import (
	"math"
	"math/big"
	"testing"

	"sela/stages/internal/ort"
)

func encode(v float32) uint16 {
	var h [1]uint16
	ort.EncodeFloat16(h[:], []float32{v})
	return h[0]
}

func decode(h uint16) float32 {
	var v [1]float32
	ort.DecodeFloat16(v[:], []uint16{h})
	return v[0]
}

// exact is the definition of binary16 for a finite h.
func exact(h uint16) float64 {
	exponent, mantissa := int(h>>10&31), float64(h&1023)
	v := math.Ldexp(mantissa, -24)
	if exponent > 0 {
		v = math.Ldexp(1024+mantissa, exponent-25)
	}
	if h>>15 == 1 {
		v = -v
	}
	return v
}

func TestFloat16AllValues(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		v := decode(h)
		switch {
		case h&0x7fff > 0x7c00:
			if v == v || encode(v)&0x7fff <= 0x7c00 {
				t.Fatalf("%04x: NaN became %v and %04x", h, v, encode(v))
			}
			continue
		case h&0x7fff == 0x7c00:
			if !math.IsInf(float64(v), 1-2*int(h>>15)) {
				t.Fatalf("%04x: %v", h, v)
			}
		case float64(v) != exact(h) || math.Signbit(float64(v)) != (h>>15 == 1):
			t.Fatalf("%04x: %v, want %v", h, v, exact(h))
		}
		if got := encode(v); got != h {
			t.Fatalf("%04x became %04x", h, got)
		}
	}
}

// Between two neighbours the nearer wins, and the even one in the middle.
func TestFloat16Rounding(t *testing.T) {
	for i := range 0x7c00 {
		low, high := exact(uint16(i)), exact(uint16(i)+1)
		if i == 0x7bff {
			high = 65536 // what would follow, were it not infinite
		}
		middle := float32((low + high) / 2)
		even := uint16(i + i%2)
		for _, tt := range []struct {
			v    float32
			want uint16
		}{
			{middle, even},
			{math.Nextafter32(middle, 0), uint16(i)},
			{math.Nextafter32(middle, float32(math.Inf(1))), uint16(i) + 1},
		} {
			if got := encode(tt.v); got != tt.want {
				t.Fatalf("%v: %04x, want %04x", tt.v, got, tt.want)
			}
			if got := encode(-tt.v); got != tt.want|0x8000 {
				t.Fatalf("%v: %04x, want %04x", -tt.v, got, tt.want|0x8000)
			}
		}
	}
	if got := encode(math.MaxFloat32); got != 0x7c00 {
		t.Errorf("largest float32: %04x", got)
	}
	if got := encode(math.SmallestNonzeroFloat32); got != 0 {
		t.Errorf("smallest float32: %04x", got)
	}
}

func FuzzFloat16(f *testing.F) {
	f.Add(uint32(0x3f800000))
	f.Add(uint32(0x477ff000))
	f.Fuzz(func(t *testing.T, bits uint32) {
		v := math.Float32frombits(bits)
		if v != v || math.Abs(float64(v)) >= 65520 {
			return
		}
		h := encode(v)
		// No binary16 is nearer than the one chosen.
		distance := func(h uint16) *big.Float {
			d := new(big.Float).SetFloat64(float64(v) - exact(h))
			return d.Abs(d)
		}
		best := distance(h)
		for _, n := range []uint16{h - 1, h + 1} {
			if n&0x7fff < 0x7c00 && distance(n).Cmp(best) < 0 {
				t.Errorf("%v became %04x, %04x is nearer", v, h, n)
			}
		}
	})
}
