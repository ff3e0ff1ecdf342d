package kernel

import "math"

// Minimax coefficients of (2·atanh(s)/s − 2)/z in z = s², for
// |s| ≤ (√2−1)/(√2+1) (Remez exchange at 60 digits, relative error 1.3e-18).
const (
	g0 = 0x1.5555555555592p-1
	g1 = 0x1.999999997fd76p-2
	g2 = 0x1.24924941f5011p-2
	g3 = 0x1.c71c520604c53p-3
	g4 = 0x1.74663fa29acd4p-3
	g5 = 0x1.39a1a6ef62f17p-3
	g6 = 0x1.2f0634b5a71f6p-3
)

// Log returns the natural logarithm of x: −Inf for 0, NaN below 0. It writes
// x = m·2^k with m in [√½, √2) and uses log m = 2·atanh((m−1)/(m+1)). The
// error is below 2 units in the last place (1.84 measured against 200-bit
// arithmetic, see the tests), subnormal x included.
func Log(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	exponent := 0
	if x < 0x1p-1022 {
		x *= 0x1p54
		exponent = -54
	}
	bits := math.Float64bits(x)
	exponent += int(bits>>52) - 1023
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	if m > math.Sqrt2 {
		m *= 0.5
		exponent++
	}
	f := m - 1
	s := f / (2 + f)
	z := s * s
	z2 := z * z
	odd := g1 + float64(z2*(g3+float64(z2*g5)))
	even := g0 + float64(z2*(g2+float64(z2*(g4+float64(z2*g6)))))
	tail := float64(float64(s*z) * (even + float64(z*odd)))
	k := float64(exponent)
	return float64(k*ln2Hi) + (float64(2*s) + (tail + float64(k*ln2Lo)))
}
