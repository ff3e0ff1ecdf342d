package augment

import (
	"math"
	"math/bits"
)

// exp returns eˣ for |x| ≤ 700 within a few units in the last place:
// x = n·ln 2 + r, and eʳ by its Taylor series.
func exp(x float64) float64 {
	const high = 0x1.62e42feep-1 // ln 2 in 30 bits: n·high is exact
	const low = math.Ln2 - high
	n := math.RoundToEven(x / math.Ln2)
	r := (x - float64(n*high)) - float64(n*low)
	y := 1.0
	for i := 14; i > 0; i-- { // |r| < 0.35, and 0.35¹⁵/15! < 2⁻⁶²
		y = 1 + float64(r*y)/float64(i)
	}
	return math.Ldexp(y, int(n))
}

// log returns ln x for positive x within a few units in the last place of
// max(|ln x|, 1): x = m·2ᵉ, and ln m = 2·artanh((m−1)/(m+1)).
func log(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	t := (m - 1) / (m + 1) // |t| < 0.172, and t²²·2/23 < 2⁻⁵⁹
	square := float64(t * t)
	sum := 0.0
	for i := 23; i > 0; i -= 2 {
		sum = float64(sum*square) + 1/float64(i)
	}
	return float64(2*float64(t*sum)) + float64(float64(e)*math.Ln2)
}

// fixed is a number with 60 bits after the point, |x| < 8.
type fixed int64

const (
	one   fixed = 1 << 60
	twoPi fixed = 0x6487ED5110B4611A // 2π·2⁶⁰
)

func toFixed(x float64) fixed { return fixed(math.RoundToEven(x * (1 << 60))) }

func (a fixed) float64() float64 { return float64(a) * 0x1p-60 }

func (a fixed) times(b fixed) fixed {
	hi, lo := bits.Mul64(uint64(max(a, -a)), uint64(max(b, -b)))
	v := fixed(hi<<4 | lo>>60)
	if (a < 0) != (b < 0) {
		return -v
	}
	return v
}

// rotation returns the cosine and sine of −degrees for |degrees| ≤ 45 as
// Pillow's rotate has them: of the angle brought into [0°, 360°), converted to
// radians in float64, and rounded to 15 decimals.
func rotation(degrees float64) (cos, sin float64) {
	if degrees < 0 {
		degrees += 360
	}
	x := toFixed(-float64(degrees * (math.Pi / 180)))
	if x < -twoPi/2 {
		x += twoPi
	}
	// The Taylor series; |x| < 0.79, so 20 terms leave less than 2⁻⁶⁸.
	var sums [2]fixed
	term := one
	for i := range fixed(20) {
		switch i % 4 {
		case 0, 1:
			sums[i%2] += term
		default:
			sums[i%2] -= term
		}
		term = term.times(x) / (i + 1)
	}
	return decimals(sums[0].float64()), decimals(sums[1].float64())
}

// decimals rounds |x| ≤ 1 to 15 decimals, halves to even, as Python's round
// does: exactly, on the number's full binary expansion.
func decimals(x float64) float64 {
	const scale = 1e15
	fraction, exponent := math.Frexp(math.Abs(x)) // ½ ≤ fraction < 1
	shift := 53 - exponent                        // |x| = (fraction·2⁵³)/2^shift
	if fraction == 0 || shift >= 104 {            // below 2⁻⁵¹ < ½·10⁻¹⁵
		return 0
	}
	hi, lo := bits.Mul64(uint64(float64(fraction*(1<<53))), uint64(scale))
	var n, rest, half uint64
	if shift > 64 {
		n = hi >> (shift - 64)
		rest = hi<<(128-shift) | min(lo, 1)
		half = 1 << 63
	} else {
		n = hi<<(64-shift) | lo>>shift
		rest, half = lo&(1<<shift-1), 1<<(shift-1)
	}
	if rest > half || rest == half && n&1 == 1 {
		n++
	}
	return math.Copysign(float64(n)/scale, x)
}
