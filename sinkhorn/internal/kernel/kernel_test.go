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

// row returns random inputs of Row.
func row(r *rand.Rand, n int, spread float64) (x []float32, v []float64) {
	x, v = make([]float32, n), make([]float64, n)
	for k := range x {
		x[k], v[k] = float32(r.NormFloat64()*spread), r.NormFloat64()*spread
		if r.IntN(20) == 0 {
			x[k] = float32(math.Inf(-1))
		}
	}
	x[r.IntN(n)] = 1
	return x, v
}

func TestRowAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const guard = 12345.0
	for n := 1; n < 70; n++ {
		for _, spread := range []float64{0.01, 1, 5, 40} {
			lambda := 0.5 + 20*r.Float64()
			x, v := row(r, n, spread)
			w := make([]float64, n+1)
			w[n] = guard
			top, sum := Row(w, x, v, lambda)
			want, lanes := math.Inf(-1), [Lanes]float64{}
			for k := range x {
				want = math.Max(want, float64(lambda*float64(x[k]))+v[k])
			}
			for k := range x {
				d := (float64(lambda*float64(x[k])) + v[k]) - want
				share := 0.0
				if d >= -Cutoff {
					share = Exp(d)
				}
				if w[k] != share {
					t.Fatalf("K=%d: w[%d] = %v, want %v", n, k, w[k], share)
				}
				lanes[k%Lanes] += share
			}
			total := ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
			if top != want || sum != total {
				t.Fatalf("K=%d: max %v, sum %v, want %v, %v", n, top, sum, want, total)
			}
			if got := Sum(x, v, lambda, top); got != sum {
				t.Fatalf("K=%d: Sum %v, Row %v", n, got, sum)
			}
			if w[n] != guard {
				t.Fatalf("K=%d: wrote past the row", n)
			}
			if k, best, second := Best(x, v, lambda); best != want || Score(x[k], v[k], lambda) != want || second > best {
				t.Fatalf("K=%d: best %d, %v, %v, want %v", n, k, best, second, want)
			}
		}
	}
}

func TestRowWithoutSums(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, n := range []int{1, 3, 4, 8, 11, 24} {
		for at := range n {
			for _, bad := range []float32{inf, nan} {
				x := make([]float32, n)
				x[at] = bad
				if _, sum := Row(make([]float64, n), x, make([]float64, n), 25); sum == sum {
					t.Errorf("K=%d, entry %d %v: sum %v, want NaN", n, at, bad, sum)
				}
			}
		}
		x := make([]float32, n)
		for k := range x {
			x[k] = -inf
		}
		if _, sum := Row(make([]float64, n), x, make([]float64, n), 25); sum == sum {
			t.Errorf("K=%d, all -Inf: sum %v, want NaN", n, sum)
		}
	}
}

func TestBestTiesAndSingle(t *testing.T) {
	inf := math.Inf(-1)
	for _, c := range []struct {
		x            []float32
		column       int
		best, second float64
	}{
		{[]float32{1}, 0, 1, inf},
		{[]float32{2, 2, 1}, 0, 2, 2},
		{[]float32{1, 2, 2}, 1, 2, 2},
		{[]float32{1, 3, 2}, 1, 3, 2},
		{[]float32{3, 1, 2}, 0, 3, 2},
		{[]float32{float32(inf), float32(inf)}, -1, inf, inf},
		{[]float32{float32(inf), -5}, 1, -5, inf},
	} {
		column, best, second := Best(c.x, make([]float64, len(c.x)), 1)
		if column != c.column || best != c.best || second != c.second {
			t.Errorf("Best(%v) = %d, %v, %v", c.x, column, best, second)
		}
	}
}

func TestColumnsAndMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const rows, clusters = 37, 9
	x, shift, v := make([]float32, rows*clusters), make([]float64, rows), make([]float64, clusters)
	for i := range x {
		x[i] = float32(-100 * r.Float64())
	}
	for i := range shift {
		shift[i] = 50 * r.NormFloat64()
		x[i*clusters+4] = float32(math.Inf(-1))
	}
	v[2] = -5000
	cols := []int32{1, 2, 4, 8}
	top, sum := make([]float64, len(cols)), make([]float64, len(cols))
	Columns(top, sum, cols, x, shift, v, 3)
	halfTop, halfSum := make([]float64, len(cols)), make([]float64, len(cols))
	restTop, restSum := make([]float64, len(cols)), make([]float64, len(cols))
	Columns(halfTop, halfSum, cols, x[:20*clusters], shift[:20], v, 3)
	Columns(restTop, restSum, cols, x[20*clusters:], shift[20:], v, 3)
	for j, k := range cols {
		if k == 4 {
			if !math.IsInf(top[j], -1) || sum[j] != 0 {
				t.Errorf("column of -Inf: %v, %v", top[j], sum[j])
			}
			continue
		}
		high := math.Inf(-1)
		for i := range shift {
			high = math.Max(high, 3*float64(x[i*clusters+int(k)])+v[k]-shift[i])
		}
		want := 0.0
		for i := range shift {
			want += math.Exp(3*float64(x[i*clusters+int(k)]) + v[k] - shift[i] - high)
		}
		got := top[j] + Log(sum[j])
		if math.Abs(got-(high+math.Log(want))) > 1e-12*math.Abs(got) {
			t.Errorf("column %d: %v, want %v", k, got, high+math.Log(want))
		}
		MergeLogSums(&halfTop[j], &halfSum[j], restTop[j], restSum[j])
		if merged := halfTop[j] + Log(halfSum[j]); math.Abs(merged-got) > 1e-12*math.Abs(got) {
			t.Errorf("column %d: merged %v, at once %v", k, merged, got)
		}
	}
}

func TestLogAdd(t *testing.T) {
	inf := math.Inf(-1)
	for _, c := range [][3]float64{{inf, inf, inf}, {inf, 3, 3}, {3, inf, 3}, {-2000, -2000, -2000 + math.Ln2}, {0, -800, 0}} {
		if got := LogAdd(c[0], c[1]); got != c[2] && math.Abs(got-c[2]) > 1e-12 {
			t.Errorf("LogAdd(%v, %v) = %v, want %v", c[0], c[1], got, c[2])
		}
	}
}

// FuzzRow checks any inputs against a plain evaluation.
func FuzzRow(f *testing.F) {
	f.Add(uint64(1), uint8(9), 3.0)
	f.Add(uint64(2), uint8(1), 0.0)
	f.Add(uint64(3), uint8(255), 500.0)
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, spread float64) {
		if n == 0 || !(math.Abs(spread) < 1e6) {
			return
		}
		x, v := row(rand.New(rand.NewPCG(seed, 0)), int(n), spread)
		w := make([]float64, n)
		top, sum := Row(w, x, v, 2)
		want := 0.0
		for k := range x {
			want += math.Exp(2*float64(x[k]) + v[k] - top)
		}
		if math.Abs(sum-want) > 1e-13*want {
			t.Errorf("sum %v, want %v", sum, want)
		}
		sums := make([]float64, n)
		Add(sums, w, 1/sum)
		total := 0.0
		for _, s := range sums {
			total += s
		}
		if math.Abs(total-1) > 1e-13 {
			t.Errorf("shares sum to %v", total)
		}
	})
}

// BenchmarkRow measures Row and Add on 256 rows: flat rows need every
// exponential, peaked ones few.
func BenchmarkRow(b *testing.B) {
	for _, c := range []struct {
		name   string
		k      int
		spread float64
	}{{"K=128/flat", 128, 0.3}, {"K=128/peaked", 128, 3}, {"K=3000/flat", 3000, 0.3}, {"K=3000/peaked", 3000, 3}} {
		b.Run(c.name, func(b *testing.B) {
			const rows = 256
			r := rand.New(rand.NewPCG(9, 10))
			x := make([]float32, rows*c.k)
			for i := range x {
				x[i] = float32(r.NormFloat64() * c.spread)
			}
			v, w, sums := make([]float64, c.k), make([]float64, c.k), make([]float64, c.k)
			for b.Loop() {
				for i := range rows {
					_, sum := Row(w, x[i*c.k:(i+1)*c.k], v, 25)
					Add(sums, w, 1/sum)
				}
			}
			b.ReportMetric(float64(rows*c.k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gelem/s")
		})
	}
}

var sink float64

// BenchmarkExp compares Exp, and the form inside Row, with the standard
// library's on [−20, 0].
func BenchmarkExp(b *testing.B) {
	x := make([]float64, 1024)
	for i := range x {
		x[i] = -20 * float64(i) / 1024
	}
	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(1024*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gelem/s")
		})
	}
	run("four", func() {
		for k := 0; k < len(x); k += 4 {
			y0, y1, y2, y3 := weights4(x[k], x[k+1], x[k+2], x[k+3])
			sink += (y0 + y1) + (y2 + y3)
		}
	})
	run("Exp", func() {
		for _, d := range x {
			sink += Exp(d)
		}
	})
	run("math.Exp", func() {
		for _, d := range x {
			sink += math.Exp(d)
		}
	})
}
