package sinkhorn

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func solve(t *testing.T, m *memory, o Options) *Result {
	t.Helper()
	res, err := Solve(context.Background(), NewCPU(m, 2), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestAgainstTextbook solves random problems with the dense linear-domain
// loop too: uniform and other marginals.
func TestAgainstTextbook(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for n := range 24 {
		clusters := 1 + r.IntN(20)
		rows := clusters + r.IntN(2200)
		m := problem(uint64(n), rows, clusters, 0.2+1.5*r.Float64(), r.Float64())
		o := Options{Method: MethodSinkhorn, Lambda: 1 + 12*r.Float64(), Tol: []float64{0.01, 0.1, 1}[n%3]}
		if n%2 == 1 {
			o.Marginals = make([]float64, clusters)
			sum := 0.0
			for k := range o.Marginals {
				o.Marginals[k] = 0.2 + r.Float64()
				sum += o.Marginals[k]
			}
			for k := range o.Marginals {
				o.Marginals[k] /= sum
			}
		}
		want, got := solveTextbook(m, o.Lambda, o.Tol, o.Marginals), solve(t, m, o)
		if got.Iterations != want.iterations || got.Iterations%10 != 1 {
			t.Errorf("problem %d: %d iterations, want %d", n, got.Iterations, want.iterations)
		}
		for k, v := range want.v {
			if !(math.Abs(got.V[k]-v) <= 1e-10) {
				t.Fatalf("problem %d: log r of cluster %d is %v, want %v", n, k, got.V[k], v)
			}
			if !(math.Abs(got.Masses[k]-want.masses[k]) <= 1e-12) {
				t.Fatalf("problem %d: mass of cluster %d is %v, want %v", n, k, got.Masses[k], want.masses[k])
			}
		}
		for i, label := range labels(m, o.Lambda, got.V) {
			if int(label) != want.labels[i] {
				t.Fatalf("problem %d: row %d has label %d, want %d", n, i, label, want.labels[i])
			}
		}
	}
}

// TestMarginals checks masses against the shares that were asked for, so that
// no inverse of them passes.
func TestMarginals(t *testing.T) {
	m := problem(5, 3000, 4, 1, 0)
	b := []float64{0.1, 0.2, 0.3, 0.4}
	res := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10, Tol: 1e-6, Marginals: b})
	for k, mass := range res.Masses {
		if math.Abs(mass-b[k]) > 1e-8 {
			t.Errorf("cluster %d has mass %v, want %v", k, mass, b[k])
		}
		if share := float64(res.Counts[k]) / 3000; math.Abs(share-b[k]) > 0.02 {
			t.Errorf("cluster %d has a share %v of the labels, want about %v", k, share, b[k])
		}
	}
	if c := res.Certificate; c.MaxCountRatio > 1.1 || c.MarginalMaxRatio > 1e-7 {
		t.Errorf("%+v", c)
	}
}

// TestCertificate recomputes every figure from the matrix.
func TestCertificate(t *testing.T) {
	m := problem(8, 1500, 7, 1, 0.5)
	const lambda = 12.0
	res := solve(t, m, Options{Method: MethodSinkhorn, Lambda: lambda, Tol: 3})
	c, n := res.Certificate, float64(m.len())
	logs := make([]float64, m.len())
	mass, count := make([]float64, 7), make([]float64, 7)
	var best, hard, span, margin = 0.0, 0.0, 0.0, math.Inf(1)
	for i := range logs {
		x := m.x[i*7 : (i+1)*7]
		top, second, label := math.Inf(-1), math.Inf(-1), 0
		low, high := math.Inf(1), math.Inf(-1)
		for k := range x {
			xk := lambda * float64(x[k])
			low, high = math.Min(low, xk), math.Max(high, xk)
			if s := xk + res.V[k]; s > top {
				top, second, label = s, top, k
			} else if s > second {
				second = s
			}
		}
		sum := 0.0
		for k := range x {
			sum += math.Exp(lambda*float64(x[k]) + res.V[k] - top)
		}
		for k := range x {
			mass[k] += math.Exp(lambda*float64(x[k])+res.V[k]-top) / sum / n
		}
		logs[i] = top + math.Log(sum)
		best += top / n
		hard += lambda * float64(x[label]) / n
		span, margin = math.Max(span, high-low), math.Min(margin, top-second)
		count[label]++
	}
	f, dot, l1, most, entropy := 0.0, 0.0, 0.0, 0.0, 0.0
	low, high := math.Inf(1), math.Inf(-1)
	largest, smallest := 0.0, math.Inf(1)
	for _, l := range logs {
		f += l / n
	}
	for k, v := range res.V {
		dot += v / 7
		l1 += math.Abs(mass[k] - 1.0/7)
		most = math.Max(most, math.Abs(mass[k]-1.0/7))
		entropy -= count[k] / n * math.Log(count[k]/n)
		low, high = math.Min(low, v), math.Max(high, v)
		largest, smallest = math.Max(largest, count[k]), math.Min(smallest, count[k])
	}
	for _, x := range []struct {
		name      string
		got, want float64
	}{
		{"F", c.Objective, f - dot}, {"F/λ", c.ObjectiveOverLambda, (f - dot) / lambda},
		{"L1", c.MarginalL1, l1}, {"max", c.MarginalMax, most}, {"max ratio", c.MarginalMaxRatio, 7 * most},
		{"gap", *c.Gap, 0.5 * l1 * (high - low + span)}, {"gap/λ", *c.GapOverLambda, 0.5 * l1 * (high - low + span) / lambda},
		{"G", c.HardGap, best - dot - hard}, {"G/λ", c.HardGapOverLambda, (best - dot - hard) / lambda},
		{"largest", float64(c.LargestCount), largest}, {"smallest", float64(c.SmallestCount), smallest},
		{"ratio", c.MaxCountRatio, largest * 7 / n}, {"entropy", c.UseEntropy, entropy}, {"margin", *c.MinMargin, margin},
	} {
		if !(math.Abs(x.got-x.want) <= 1e-11*(1+math.Abs(x.want))) {
			t.Errorf("%s = %v, want %v", x.name, x.got, x.want)
		}
	}
	if c.Rows != 1500 || c.Clusters != 7 || c.Passes != c.Iterations+1 || c.Tol != 3 || *c.Change > 3 || c.Status != Converged || c.Warnings != nil {
		t.Errorf("%+v", c)
	}
	// The bound holds against a solution that is much closer to the minimum.
	if exact := solve(t, m, Options{Method: MethodSinkhorn, Lambda: lambda, Tol: 1e-9}); c.Objective-exact.Certificate.Objective > *c.Gap || *c.Gap <= 0 {
		t.Errorf("F − F* = %v exceeds its bound %v", c.Objective-exact.Certificate.Objective, *c.Gap)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Certificate
	if err := json.Unmarshal(data, &back); err != nil || back.Status != c.Status || *back.Gap != *c.Gap {
		t.Errorf("%s reads back as %+v, %v", data, back, err)
	}
}

// TestDeadCluster gives cluster 3 a probability of e^-60 or less, so that
// p^25 is 0 in float64 for every row.
func TestDeadCluster(t *testing.T) {
	m := problem(13, 2000, 8, 1, 0)
	for i := 3; i < len(m.x); i += 8 {
		m.x[i] -= 60
	}
	res := solve(t, m, Options{Method: MethodSinkhorn})
	if res.Status != Converged || res.Certificate.StarvedClusters != 1 {
		t.Fatalf("%+v", res.Certificate)
	}
	for k, count := range res.Counts {
		if count < 225 || count > 275 {
			t.Errorf("cluster %d has %d rows, want about 250", k, count)
		}
	}
	if w := strings.Join(res.Certificate.Warnings, "\n"); !strings.Contains(w, "clusters [3]") {
		t.Errorf("warnings %q do not name cluster 3", w)
	}
	// The shift is absorbed by the potential: the labels are those without it.
	plain := problem(13, 2000, 8, 1, 0)
	other := solve(t, plain, Options{Method: MethodSinkhorn})
	if res.Iterations != other.Iterations {
		t.Errorf("%d iterations, %d without the shift", res.Iterations, other.Iterations)
	}
	if drift := res.V[3] - other.V[3] - 25*60; math.Abs(drift) > 0.01 {
		t.Errorf("the potential differs by 1500 + %v nats", drift)
	}
}

// TestStarvedMidway checks a mass far below float64 at given potentials.
func TestStarvedMidway(t *testing.T) {
	m := problem(14, 3000, 5, 1, 0)
	v := []float64{0, 0, -3000, 0, -700}
	r, err := NewCPU(m, 2).Pass(context.Background(), Request{Lambda: 10, V: v, LogMass: true})
	if err != nil {
		t.Fatal(err)
	}
	for k := range v {
		top, terms := math.Inf(-1), []float64(nil)
		for i := range m.len() {
			x := m.x[i*5 : (i+1)*5]
			lse, row := math.Inf(-1), 0.0
			for j := range x {
				lse = math.Max(lse, 10*float64(x[j])+v[j])
			}
			for j := range x {
				row += math.Exp(10*float64(x[j]) + v[j] - lse)
			}
			terms = append(terms, 10*float64(x[k])+v[k]-lse-math.Log(row))
			top = math.Max(top, terms[i])
		}
		sum := 0.0
		for _, term := range terms {
			sum += math.Exp(term - top)
		}
		if want := top + math.Log(sum/float64(m.len())); !(math.Abs(r.LogMass[k]-want) <= 1e-12*math.Abs(want)) {
			t.Errorf("log mass of cluster %d is %v, want %v", k, r.LogMass[k], want)
		}
	}
}

func TestZeroProbabilities(t *testing.T) {
	m := problem(15, 1800, 6, 1, 0)
	r := rand.New(rand.NewPCG(1, 1))
	for range 900 {
		m.x[r.IntN(m.len())*6+r.IntN(5)] = float32(math.Inf(-1))
	}
	want, got := solveTextbook(m, 10, 0.1, nil), solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10})
	if got.Iterations != want.iterations {
		t.Errorf("%d iterations, want %d", got.Iterations, want.iterations)
	}
	for i, label := range labels(m, 10, got.V) {
		if int(label) != want.labels[i] {
			t.Fatalf("row %d has label %d, want %d", i, label, want.labels[i])
		}
	}
	if got.Certificate.Gap != nil {
		t.Errorf("gap bound %v although some p is 0", *got.Certificate.Gap)
	}
	if _, err := json.Marshal(got.Certificate); err != nil {
		t.Error(err)
	}
}

func TestIdenticalRows(t *testing.T) {
	m := &memory{clusters: 3}
	for range 1500 {
		m.x = append(m.x, -0.5, -1.2, -2.4)
	}
	res := solve(t, m, Options{Method: MethodSinkhorn})
	c := res.Certificate
	if res.Iterations != 1 || c.LargestCount != 1500 || c.EmptyClusters != 2 || c.UseEntropy != 0 {
		t.Errorf("%+v", c)
	}
	if len(c.Warnings) == 0 || !strings.Contains(c.Warnings[0], "all rows have the same log-probabilities") {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestDuplicateRowsShareALabel(t *testing.T) {
	m := problem(18, 900, 6, 1, 0.3)
	m.x = append(m.x, m.x...)
	res := solve(t, m, Options{Method: MethodSinkhorn})
	all := labels(m, DefaultLambda, res.V)
	for i := range 900 {
		if all[i] != all[900+i] {
			t.Fatalf("row %d has label %d, its copy %d", i, all[i], all[900+i])
		}
	}
}

func TestTies(t *testing.T) {
	// Two columns are equal in every row: each row is tied or has label 2.
	m := problem(19, 1200, 3, 1, 0)
	for i := 0; i < len(m.x); i += 3 {
		m.x[i+1] = m.x[i]
	}
	res := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10})
	if res.Counts[1] != 0 || res.Counts[0] != res.Certificate.TiedRows || res.V[0] != res.V[1] {
		t.Errorf("counts %v, %d tied rows, want the lowest of equal clusters", res.Counts, res.Certificate.TiedRows)
	}
	if *res.Certificate.MinMargin != 0 {
		t.Errorf("smallest margin %v, want 0", *res.Certificate.MinMargin)
	}
}

func TestSmallShapes(t *testing.T) {
	one := solve(t, problem(20, 1030, 1, 1, 0), Options{Method: MethodSinkhorn})
	if one.Counts[0] != 1030 || one.Iterations != 1 || one.Certificate.MinMargin != nil || one.Certificate.Warnings != nil {
		t.Errorf("K=1: %+v", one)
	}
	for _, c := range []struct{ rows, clusters int }{{1, 1}, {2, 2}, {1000, 2}, {40, 40}} {
		m := problem(21, c.rows, c.clusters, 1, 0)
		got, want := solve(t, m, Options{Method: MethodSinkhorn, Lambda: 10}), solveTextbook(m, 10, 0.1, nil)
		if got.Iterations != want.iterations {
			t.Errorf("N=%d, K=%d: %d iterations, want %d", c.rows, c.clusters, got.Iterations, want.iterations)
		}
		for i, label := range labels(m, 10, got.V) {
			if int(label) != want.labels[i] {
				t.Errorf("N=%d, K=%d: row %d has label %d, want %d", c.rows, c.clusters, i, label, want.labels[i])
			}
		}
	}
	if _, err := Solve(context.Background(), NewCPU(problem(22, 3, 4, 1, 0), 1), Options{Method: MethodSinkhorn}); !errors.Is(err, ErrTooFewRows) {
		t.Errorf("3 rows for 4 clusters: %v", err)
	}
	if _, err := Solve(context.Background(), NewCPU(&memory{clusters: 4}, 1), Options{Method: MethodSinkhorn}); !errors.Is(err, ErrNoRows) {
		t.Errorf("no rows: %v", err)
	}
}

func TestIterationLimit(t *testing.T) {
	m := problem(23, 1500, 10, 2, 1)
	for _, limit := range []int{1, 5, 11, 14} {
		res := solve(t, m, Options{Method: MethodSinkhorn, MaxIterations: limit, Tol: 1e-9})
		if res.Status != IterationLimit || !errors.Is(res.Status.Err(), ErrNotConverged) || res.Iterations != limit || res.Passes != limit+1 {
			t.Errorf("limit %d: %v after %d iterations, %d passes", limit, res.Status, res.Iterations, res.Passes)
		}
		if checked := res.Certificate.Change != nil; checked != (limit%10 == 1) || res.Counts == nil {
			t.Errorf("limit %d: %+v", limit, res.Certificate)
		}
	}
}

// progress records what a Recorder is told.
type progress []Progress

func (p *progress) Record(x Progress) { *p = append(*p, x) }

func TestFixed(t *testing.T) {
	m := problem(24, 2100, 6, 1, 0.2)
	var told progress
	solved := solve(t, m, Options{Method: MethodSinkhorn, Recorder: &told})
	if len(told) != solved.Passes {
		t.Errorf("%d records of %d passes", len(told), solved.Passes)
	}
	for i, p := range told {
		if p.Passes != i+1 || p.Iterations != i || p.Rows != 2100 || p.Checked != (i%10 == 1) {
			t.Errorf("record %d: %+v", i, p)
		}
	}
	m.reads.Store(0)
	fixed := solve(t, m, Options{Method: MethodFixed, Potentials: solved.V})
	if fixed.Status != Evaluated || fixed.Status.Err() != nil || fixed.Passes != 1 || m.reads.Load() != int64(m.Chunks()) {
		t.Errorf("%+v, %d chunks read", fixed, m.reads.Load())
	}
	a, b := solved.Certificate, fixed.Certificate
	if a.Objective != b.Objective || a.MarginalL1 != b.MarginalL1 || a.HardGap != b.HardGap || a.LargestCount != b.LargestCount {
		t.Errorf("solved %+v\nfixed %+v", a, b)
	}
}

func TestStatusText(t *testing.T) {
	for _, s := range []Status{Converged, Evaluated, IterationLimit} {
		text, _ := s.MarshalText()
		var back Status
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s reads back as %v, %v", text, back, err)
		}
	}
	if err := new(Status).UnmarshalText([]byte("done")); err == nil || Status(9).Err() == nil {
		t.Error("an unknown status is taken for a success")
	}
}
