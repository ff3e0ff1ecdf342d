package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"sela/sinkhorn/internal/kernel"
)

// truth is what all entries say of potentials: computed densely, with package
// math, in the order of the rows.
type truth struct {
	f, l1, margin float64
	mass          []float64
	counts        []int64
	tied          int64
	labels        []int
}

func evenShares(clusters int) []float64 {
	b := make([]float64, clusters)
	for k := range b {
		b[k] = 1 / float64(clusters)
	}
	return b
}

func evaluateDense(m *memory, lambda float64, b, v []float64) truth {
	n := float64(m.len())
	out := truth{margin: math.Inf(1), mass: make([]float64, m.clusters), counts: make([]int64, m.clusters)}
	scores := make([]float64, m.clusters)
	for i := range m.len() {
		best, second, label := math.Inf(-1), math.Inf(-1), -1
		for k, x := range m.x[i*m.clusters : (i+1)*m.clusters] {
			scores[k] = float64(lambda*float64(x)) + v[k]
			if scores[k] > best {
				best, second, label = scores[k], best, k
			} else if scores[k] > second {
				second = scores[k]
			}
		}
		sum := 0.0
		for k, s := range scores {
			scores[k] = math.Exp(s - best)
			sum += scores[k]
		}
		for k, w := range scores {
			out.mass[k] += w / sum / n
		}
		out.f += (best + math.Log(sum)) / n
		out.counts[label]++
		out.labels = append(out.labels, label)
		if best == second {
			out.tied++
		}
		if best-second <= kernel.Cutoff {
			out.margin = min(out.margin, best-second)
		}
	}
	for k := range v {
		out.f -= b[k] * v[k]
		out.l1 += math.Abs(out.mass[k] - b[k])
	}
	return out
}

// verify recomputes everything that a result claims from all entries, and
// returns what it found.
func verify(t testing.TB, m *memory, o Options, res *Result) truth {
	t.Helper()
	o = o.WithDefaults()
	b := o.Marginals
	if b == nil {
		b = evenShares(m.clusters)
	}
	for k, v := range res.V {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("potential of cluster %d is %v", k, v)
		}
	}
	want, c := evaluateDense(m, o.Lambda, b, res.V), res.Certificate
	if (res.Status == Converged) != (res.Status.Err() == nil) || c.Status != res.Status {
		t.Errorf("status %v, certificate %v, error %v", res.Status, c.Status, res.Status.Err())
	}
	if o.Method != MethodSinkhorn {
		if converged := want.l1 <= o.Tol+1e-12; converged != (res.Status == Converged) && math.Abs(want.l1-o.Tol) > 1e-12 && c.Proof == ProofPass {
			t.Errorf("%v at an error of %g, tolerance %g", res.Status, want.l1, o.Tol)
		}
		if res.Status == Converged && (want.l1 > o.Tol+1e-12 || c.MarginalL1+2*c.DroppedBound > o.Tol+1e-12) {
			t.Errorf("converged at an error of %g (certificate: %g + 2·%g), tolerance %g", want.l1, c.MarginalL1, c.DroppedBound, o.Tol)
		}
	}
	slack := 2*c.DroppedBound + 1e-11
	if (c.Proof == ProofPass) != (c.DroppedBound == 0) {
		t.Errorf("proof by %s with a bound of %g", c.Proof, c.DroppedBound)
	}
	if math.Abs(c.MarginalL1-want.l1) > slack {
		t.Errorf("L1 error %g, want %g within %g", c.MarginalL1, want.l1, slack)
	}
	scale := math.Abs(want.f) + maxAbs(res.V)
	if math.Abs(c.Objective-want.f) > slack+1e-12*scale {
		t.Errorf("F = %v, want %v within %g", c.Objective, want.f, slack)
	}
	for k := range want.counts {
		if res.Counts[k] != want.counts[k] {
			t.Fatalf("cluster %d has %d rows, want %d", k, res.Counts[k], want.counts[k])
		}
		if math.Abs(res.Masses[k]-want.mass[k]) > slack {
			t.Fatalf("cluster %d has mass %v, want %v", k, res.Masses[k], want.mass[k])
		}
	}
	if c.TiedRows != want.tied {
		t.Errorf("%d tied rows, want %d", c.TiedRows, want.tied)
	}
	margin := math.Inf(1)
	if c.MinMargin != nil {
		margin = *c.MinMargin
	}
	if margin != want.margin && !(c.Proof == ProofBound && margin <= want.margin && margin >= boxSlack*(1-1e-12)) {
		t.Errorf("smallest margin %v, want %v (proof by %s)", margin, want.margin, c.Proof)
	}
	return want
}

var semidualMethods = []Method{MethodLists, MethodLBFGS}

// solveAll solves by both methods on the semi-dual, with and without a sample
// of half the rows, and verifies the results.
func solveAll(t *testing.T, m *memory, o Options, each func(name string, o Options, res *Result)) {
	t.Helper()
	for _, method := range semidualMethods {
		for _, sampled := range []bool{false, true} {
			o := o
			o.Method, o.Workers = method, 2
			name := fmt.Sprintf("%s/sample=%v", method, sampled)
			if sampled {
				o.Sample = split(m, m.len()/4)
				if !o.Sample.enough(m.clusters) {
					continue
				}
			}
			res, err := Solve(context.Background(), NewCPU(m, 2), o)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			verify(t, m, o, res)
			c := res.Certificate
			t.Logf("%s: %v by %s, %s: %d passes, %d sample passes, %d steps, L1 %.2g, bound %.2g", name, c.Status, c.Way, c.Proof, c.Passes, c.SamplePasses, c.ListSteps, c.MarginalL1, c.DroppedBound)
			if each != nil {
				each(name, o, res)
			}
		}
	}
}

func converges(t *testing.T) func(string, Options, *Result) {
	return func(name string, _ Options, res *Result) {
		t.Helper()
		if res.Status != Converged {
			t.Errorf("%s: %v after %d passes, L1 %g", name, res.Status, res.Passes, res.Certificate.MarginalL1)
		}
	}
}

// lower adds shift to the columns for which it is asked, in all rows.
func lower(m *memory, shift float32, columns ...int) *memory {
	for _, k := range columns {
		for i := k; i < len(m.x); i += m.clusters {
			m.x[i] += shift
		}
	}
	return m
}

// TestStarvedClusters gives one, several and most clusters a probability of
// e^-10000: x = −250,000, where p^λ has long underflowed. The optimal
// potentials absorb the shift.
func TestStarvedClusters(t *testing.T) {
	most := make([]int, 0, 30)
	for k := range 27 {
		most = append(most, k)
	}
	for _, c := range []struct {
		name    string
		columns []int
	}{{"one", []int{3}}, {"several", []int{0, 7, 11, 29}}, {"most", most}} {
		t.Run(c.name, func(t *testing.T) {
			plain := problem(61, 3000, 30, 2, 0.5)
			want := solve(t, plain, Options{Method: MethodSinkhorn, Tol: 1e-3})
			m := lower(problem(61, 3000, 30, 2, 0.5), -1e4, c.columns...)
			solveAll(t, m, Options{}, func(name string, o Options, res *Result) {
				converges(t)(name, o, res)
				shifted := append([]float64(nil), res.V...)
				for _, k := range c.columns {
					shifted[k] -= 25e4
				}
				// float32 rounds log p − 10000 to a thousandth.
				if d := distance(shifted, want.V); d > 0.1 {
					t.Errorf("%s: potentials differ by %g", name, d)
				}
			})
		})
	}
}

// distance returns the largest difference of two potentials up to a constant:
// half the range of their difference.
func distance(a, b []float64) float64 {
	low, high := math.Inf(1), math.Inf(-1)
	for k := range a {
		low, high = min(low, a[k]-b[k]), max(high, a[k]-b[k])
	}
	return (high - low) / 2
}

// TestImpossibleColumns has clusters with p = 0 in every row: named by every
// method, whatever the sample holds.
func TestImpossibleColumns(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, columns := range [][]int{{5}, {0, 19}} {
		m := lower(problem(62, 2500, 20, 3, 0), inf, columns...)
		sample, clean := split(m, 600), split(problem(62, 2500, 20, 3, 0), 600)
		for name, o := range map[string]Options{
			"sinkhorn": {Method: MethodSinkhorn}, "lists": {}, "lbfgs": {Method: MethodLBFGS},
			"lists, sample": {Sample: sample}, "lbfgs, sample": {Method: MethodLBFGS, Sample: sample},
			"lists, another sample": {Sample: clean},
			"lists, start":          {Start: make([]float64, 20)}, "lists, sample, start": {Start: make([]float64, 20), Sample: sample},
		} {
			_, err := Solve(context.Background(), NewCPU(m, 2), o)
			var bad *ColumnError
			if !errors.As(err, &bad) || fmt.Sprint(bad.Clusters) != fmt.Sprint(columns) {
				t.Errorf("%s: error %v, want clusters %v", name, err, columns)
			}
		}
	}
}

// TestSampleWithoutCluster has clusters that are possible in a few rows only,
// none of them in the sample, or none in one part of it.
func TestSampleWithoutCluster(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, part := range []string{"both", "solve", "judge"} {
		t.Run(part, func(t *testing.T) {
			m := problem(63, 4000, 20, 3, 0)
			sample := split(m, 1000)
			if part != "judge" {
				lower(sample.Solve.(*memory), inf, 5, 6)
			}
			if part != "solve" {
				lower(sample.Judge.(*memory), inf, 5, 6)
			}
			for _, method := range semidualMethods {
				o := Options{Method: method, Sample: sample}
				res := solve(t, m, o)
				verify(t, m, o, res)
				t.Logf("%s: %v by %s, %d passes", method, res.Status, res.Certificate.Way, res.Passes)
				if res.Status != Converged || res.Passes > 40 {
					t.Errorf("%s: %v by %s after %d passes", method, res.Status, res.Certificate.Way, res.Passes)
				}
			}
		})
	}
}

// TestOddRows solves rows that break methods which assume too much of them.
func TestOddRows(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, c := range []struct {
		name string
		m    *memory
		o    Options
	}{
		{"isolated −Inf", func() *memory {
			m, r := problem(64, 3000, 24, 2, 0.3), rand.New(rand.NewPCG(1, 2))
			for range 9000 {
				m.x[r.IntN(3000)*24+r.IntN(23)] = inf
			}
			return m
		}(), Options{}},
		{"rare columns", func() *memory { // possible in 60 of 3,000 rows, wanted in 125
			m := problem(65, 3000, 24, 2, 0.3)
			for i := range 3000 {
				if i%50 != 0 {
					m.x[i*24+7] = inf
				}
			}
			return m
		}(), Options{Marginals: func() []float64 {
			b := evenShares(24)
			b[7] = 0.01
			for k := range b {
				if k != 7 {
					b[k] = 0.99 / 23
				}
			}
			return b
		}()}},
		{"identical rows", repeat(problem(66, 1, 20, 2, 0), 2000), Options{}},
		{"half identical", join(repeat(problem(66, 1, 20, 2, 0), 1000), problem(67, 1000, 20, 2, 0)), Options{}},
		{"two kinds of rows", join(repeat(problem(68, 1, 20, 3, 0), 900), repeat(problem(69, 1, 20, 3, 0), 1100)), Options{}},
		{"duplicated rows", repeat(problem(70, 700, 20, 3, 0), 4), Options{}},
		{"N = K", problem(71, 60, 60, 3, 0), Options{}},
		{"N slightly above K", problem(72, 67, 60, 3, 0), Options{}},
		{"N slightly above K, flat", problem(73, 67, 60, 0.1, 0), Options{}},
		{"one row", problem(74, 1, 1, 1, 0), Options{}},
		{"one row, marginals", problem(74, 1, 7, 1, 0), Options{Marginals: []float64{.3, .1, .1, .1, .1, .2, .1}}},
		{"K = 1", problem(75, 1500, 1, 1, 0), Options{}},
		{"K > N, marginals", problem(76, 30, 50, 1, 0), Options{Marginals: evenShares(50)}},
		{"all equal", repeat(&memory{clusters: 30, x: func() []float32 {
			x := make([]float32, 30)
			for k := range x {
				x[k] = -3.4011974
			}
			return x
		}()}, 1800), Options{}},
		{"very flat", problem(77, 3000, 40, 0.001, 0), Options{}},
		{"very sharp", problem(78, 3000, 20, 3, 0.5), Options{Lambda: 200, MaxIterations: 600}},
		{"sharp beyond reason", problem(79, 1500, 12, 3, 0.5), Options{Lambda: 1000, MaxIterations: 600}},
		{"gaps in row numbers", func() *memory {
			m := problem(80, 2600, 20, 3, 0)
			for i := range 2600 {
				m.rows = append(m.rows, int64(5*ChunkRows+3*i+i/900*7000))
			}
			return m
		}(), Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			solveAll(t, c.m, c.o, func(name string, o Options, res *Result) {
				if o.MaxIterations == 0 {
					converges(t)(name, o, res)
				}
			})
		})
	}
}

func repeat(m *memory, times int) *memory {
	out := &memory{clusters: m.clusters}
	for range times {
		out.x = append(out.x, m.x...)
	}
	return out
}

func join(a, b *memory) *memory {
	return &memory{clusters: a.clusters, x: append(append([]float32(nil), a.x...), b.x...)}
}
