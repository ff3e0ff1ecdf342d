package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

const precision = 200

// exact returns e^x to about 190 bits.
func exact(x float64) *big.Float {
	const halvings = 12
	f := func(v float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(v) }
	r := f(x)
	r.SetMantExp(r, -halvings)
	sum, term := f(1), f(1)
	for n := 1; n < 32; n++ {
		term.Mul(term, r)
		term.Quo(term, f(float64(n)))
		sum.Add(sum, term)
	}
	for range halvings {
		sum.Mul(sum, sum)
	}
	return sum
}

// ulps returns |got − want| in units of got's last place.
func ulps(got float64, want *big.Float) float64 {
	d := new(big.Float).SetPrec(precision).SetFloat64(got)
	d.Sub(d, want)
	e, _ := d.Float64()
	ulp := math.Nextafter(math.Abs(got), math.Inf(1)) - math.Abs(got)
	return math.Abs(e) / ulp
}

func TestExpAccuracy(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ low, high, limit float64 }{
		{-Cutoff, 0, 1}, {-1, 1, 1}, {-700, 700, 1}, {-1e-9, 1e-9, 0.51},
	} {
		worst := 0.0
		for range 2000 {
			x := c.low + r.Float64()*(c.high-c.low)
			worst = math.Max(worst, ulps(Exp(x), exact(x)))
		}
		t.Logf("[%g, %g]: %.4f ulp", c.low, c.high, worst)
		if worst > c.limit {
			t.Errorf("[%g, %g]: error %.4f ulp, want at most %g", c.low, c.high, worst, c.limit)
		}
	}
}

func TestLogAccuracy(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	worst := 0.0
	for range 5000 {
		x := math.Exp(r.NormFloat64() * math.Pow(10, float64(r.IntN(5)-2)))
		if !(x > 0x1p-1020) || math.IsInf(x, 0) || x == 1 {
			continue
		}
		// log x = y + log(x/e^y), and the last is tiny.
		y := Log(x)
		q := new(big.Float).SetPrec(precision).SetFloat64(x)
		q.Quo(q, exact(y))
		q.Sub(q, big.NewFloat(1).SetPrec(precision))
		square := new(big.Float).SetPrec(precision).Mul(q, q)
		q.Sub(q, square.Quo(square, big.NewFloat(2)))
		q.Add(q, new(big.Float).SetFloat64(y))
		worst = math.Max(worst, ulps(y, q))
	}
	t.Logf("%.4f ulp", worst)
	if worst > 2 {
		t.Errorf("error %.4f ulp, want at most 2", worst)
	}
}

func TestExpAndLogSpecialValues(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	same := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) || a != a && b != b }
	for _, c := range [][2]float64{
		{0, 1}, {math.Copysign(0, -1), 1}, {-inf, 0}, {inf, inf}, {nan, nan}, {710, inf}, {-746, 0}, {-1e300, 0}, {1e300, inf},
		{-745.13, 0x1p-1074},
	} {
		if got := Exp(c[0]); !same(got, c[1]) {
			t.Errorf("Exp(%v) = %v, want %v", c[0], got, c[1])
		}
	}
	for _, x := range []float64{-720, -708.5, -708.3, 709.7, 709.2} {
		want, _ := exact(x).Float64()
		if got := Exp(x); math.Abs(got/want-1) > 1e-11 {
			t.Errorf("Exp(%v) = %v, want %v", x, got, want)
		}
	}
	for _, c := range [][2]float64{{0, -inf}, {1, 0}, {inf, inf}, {nan, nan}, {-1, nan}, {-inf, nan}} {
		if got := Log(c[0]); !same(got, c[1]) {
			t.Errorf("Log(%v) = %v, want %v", c[0], got, c[1])
		}
	}
	for _, x := range []float64{0x1p-1074, 0x1.8p-1030, math.MaxFloat64, 0x1p-1022, math.Sqrt2, math.Nextafter(math.Sqrt2, 2), math.Nextafter(1, 0)} {
		back, _ := new(big.Float).Quo(exact(Log(x)), new(big.Float).SetFloat64(x)).Float64()
		if math.Abs(back-1) > 1e-12 {
			t.Errorf("Log(%v) = %v: e to it is off by %v", x, Log(x), back-1)
		}
	}
}
