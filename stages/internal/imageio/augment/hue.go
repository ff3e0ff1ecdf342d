package augment

import (
	"math"
	"sync"
)

// A hue step is Pillow's RGB → HSV, an addition to the 8-bit hue that wraps,
// and HSV → RGB. With high, mid and low the samples of a pixel in order:
//
//   - The hue depends on high−low, on high−mid and on which channel is which
//     (six orders); the saturation on high−low and high. Both are float32
//     arithmetic, truncated, and therefore tabulated.
//   - Back, the largest sample is high again; the smallest and the middle one
//     are high·(1 − s/255) and high·(1 − s/255·m/255), rounded, where
//     m/255 is the hue's way to the next sixth of the circle, or from the last.
//     Pillow rounds these after float32 and float64 arithmetic, but as
//     fractions of 65,025, which is odd, they never lie on a half, and for all
//     2²⁴ values of (hue, s, high) the integers come out the same (measured;
//     the tests do it again).
type hueTables struct {
	// hue is indexed by the order of the channels, then (high−low)·256 +
	// high−mid; saturation by (high−low)·256 + high. It holds, in its high byte,
	// also the smallest sample that comes back.
	hue        [8][1 << 16]uint8
	saturation [1 << 16]uint16
	sector     [256]sector // by hue
}

// sector holds m, and where in three bytes the largest, middle and smallest
// sample go: by how many bits they are shifted.
type sector struct {
	m              uint16
	high, mid, low uint8
}

var hues = sync.OnceValue(func() *hueTables {
	t := new(hueTables)
	for spread := range 256 {
		for down := range spread + 1 { // high − mid
			high, mid := byte(spread), byte(spread-down)
			at := spread<<8 | down
			for _, p := range [6][3]byte{
				{high, mid, 0}, {mid, high, 0}, {0, high, mid}, {0, mid, high}, {mid, 0, high}, {high, 0, mid},
			} {
				_, _, _, order := sorted(int32(p[0]), int32(p[1]), int32(p[2]))
				t.hue[order][at] = hueOf(p[0], p[1], p[2])
			}
		}
		for high := spread; high < 256; high++ {
			s := uint32(0)
			if spread > 0 {
				s = uint32(float64(float32(spread)/float32(high)) * 255)
			}
			t.saturation[spread<<8|high] = uint16(smallest(uint32(high), s)<<8 | s)
		}
	}
	shifts := [6][3]uint8{{0, 8, 16}, {8, 0, 16}, {8, 16, 0}, {16, 8, 0}, {16, 0, 8}, {0, 16, 8}}
	for h := range 256 {
		sixth, m := 6*h/255, 6*h%255
		if sixth%2 == 0 {
			m = 255 - m
		}
		to := shifts[sixth%6]
		t.sector[h] = sector{uint16(m), to[0], to[1], to[2]}
	}
	return t
})

// sorted returns the largest, middle and smallest of three samples, and a
// number for their order: one bit for each pair that rises. The compiler makes
// branches of min and max, which noise would mispredict.
func sorted(r, g, b int32) (high, mid, low, order uint32) {
	rg, gb, rb := (r-g)>>31, (g-b)>>31, (r-b)>>31 // −1 where the pair rises
	most := r + (g-r)&rg
	least := r + g - most
	h := most + (b-most)&((most-b)>>31)
	l := least + (b-least)&^((least-b)>>31)
	return uint32(h), uint32(r + g + b - h - l), uint32(l), uint32(rg&1 | gb&2 | rb&4)
}

// hueOf is Pillow's conversion.
func hueOf(r, g, b byte) uint8 {
	high, low := max(r, g, b), min(r, g, b)
	if high == low {
		return 0
	}
	spread := float32(high - low)
	rc, gc, bc := float32(high-r)/spread, float32(high-g)/spread, float32(high-b)/spread
	var h float32
	switch high {
	case r:
		h = bc - gc
	case g:
		h = float32(2 + float64(rc) - float64(bc))
	default:
		h = float32(4 + float64(gc) - float64(rc))
	}
	turns := float64(h)/6 + 1
	return uint8(float64(float32(turns-math.Floor(turns))) * 255)
}

// turnHue adds a fraction of the circle to the hue. As in torchvision, it is
// truncated to a multiple of 1/255.
func (t *hueTables) turnHue(pix []byte, turn float32) {
	shift := uint8(int32(float64(turn) * 255))
	for i := 0; i+3 <= len(pix); i += 3 {
		p := pix[i : i+3 : i+3]
		high, mid, low, order := sorted(int32(p[0]), int32(p[1]), int32(p[2]))
		spread := (high - low) << 8
		s := uint32(t.saturation[uint16(spread|high)])
		to := &t.sector[t.hue[order%8][uint16(spread|(high-mid))]+shift]
		out := high<<(to.high%32) | middle(high, s&255, uint32(to.m))<<(to.mid%32) | s>>8<<(to.low%32)
		p[0], p[1], p[2] = byte(out), byte(out>>8), byte(out>>16)
	}
}

// middle is high·(1 − s/255·m/255), rounded.
func middle(high, s, m uint32) uint32 {
	const unit = 255 * 255
	return (high*(unit-s*m) + unit/2) / unit
}

// smallest is high·(1 − s/255), rounded.
func smallest(high, s uint32) uint32 { return (high*(255-s) + 127) / 255 }
