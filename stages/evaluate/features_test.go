package evaluate

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"sela/stages/internal/ort/orttest"
)

// reference is testdata/features.json.
type reference struct {
	Neighbours struct {
		Bank, Queries [][]float32
		Labels        []int32
		Order         [][]int32
		Votes         []struct {
			K         int
			Sigma     float64
			Predicted []int32
		}
	}
	Regression struct {
		Train, Test   [][]float32
		Labels, Truth []int32
		Fits          []struct {
			L2, Objective float64
			Weights       [][]float64
			Predicted     []int32
		}
	}
}

func readReference(t *testing.T) *reference {
	t.Helper()
	raw, err := os.ReadFile("testdata/features.json")
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{}
	if err := json.Unmarshal(raw, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func matrix(rows [][]float32) *Matrix {
	return &Matrix{Rows: len(rows), Dim: len(rows[0]), Data: slices.Concat(rows...)}
}

func engine(t *testing.T) *Engine {
	t.Helper()
	e, err := NewEngine(orttest.Open(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestNearestAgainstNumPy(t *testing.T) {
	ref := readReference(t).Neighbours
	bank, queries := matrix(ref.Bank), matrix(ref.Queries)
	n, err := engine(t).Nearest(t.Context(), bank, queries, 60, nil)
	if err != nil {
		t.Fatal(err)
	}
	for q, want := range ref.Order {
		if got := n.Rows[q*n.K : (q+1)*n.K]; !slices.Equal(got, want) {
			t.Errorf("query %d: rows %v, want %v", q, got, want)
		}
	}
	all, err := engine(t).Nearest(t.Context(), bank, queries, 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	if all.K != bank.Rows {
		t.Errorf("%d neighbours among %d rows", all.K, bank.Rows)
	}
	for _, v := range ref.Votes {
		if got := all.Vote(ref.Labels, 5, v.K, v.Sigma); !slices.Equal(got, v.Predicted) {
			t.Errorf("K %d σ %v: %v, want %v", v.K, v.Sigma, got, v.Predicted)
		}
	}
}

// brute ranks all rows by float64 cosines.
func brute(bank, queries *Matrix, k int) (rows []int32, cosines []float64) {
	norms := bank.norms()
	for q := range queries.Rows {
		row := queries.Row(q)
		norm := math.Sqrt(dot(row, row))
		all := make([]neighbour, bank.Rows)
		for i := range all {
			all[i] = neighbour{int32(i), dot(row, bank.Row(i)) / (norm * norms[i])}
		}
		slices.SortStableFunc(all, func(a, b neighbour) int {
			if a.cosine > b.cosine {
				return -1
			}
			if a.cosine < b.cosine {
				return 1
			}
			return 0
		})
		for _, n := range all[:k] {
			rows, cosines = append(rows, n.row), append(cosines, n.cosine)
		}
	}
	return rows, cosines
}

// TestNearestIsExact has rows whose cosines differ by less than float32 tells,
// several blocks of bank and queries, and other numbers of processors.
func TestNearestIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 0))
	fill := func(rows int) *Matrix {
		m := &Matrix{Rows: rows, Dim: 33, Data: make([]float32, rows*33)}
		for i := range m.Data {
			m.Data[i] = 1 + float32(random.NormFloat64())*2e-3
		}
		return m
	}
	bank, queries := fill(4200), fill(520)
	copy(bank.Row(4150), bank.Row(17))
	rows, cosines := brute(bank, queries, 50)
	e := engine(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, processors := range []int{1, 3} {
		runtime.GOMAXPROCS(processors)
		finished := make(chan int, 10)
		n, err := e.Nearest(t.Context(), bank, queries, 50, func(n int) { finished <- n })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(n.Rows, rows) || !slices.Equal(n.Cosines, cosines) {
			t.Errorf("%d processors: other neighbours than in float64", processors)
		}
		if total := <-finished + <-finished; total != queries.Rows {
			t.Errorf("told of %d queries", total)
		}
	}
}

func TestVoteTies(t *testing.T) {
	n := &Neighbours{K: 3, Rows: []int32{2, 1, 0}, Cosines: []float64{0.5, 0.5, 0.1}}
	if got := n.Vote([]int32{3, 1, 2}, 4, 2, 0.1); got[0] != 1 {
		t.Errorf("of equal votes class %d won, want the lower, 1", got[0])
	}
	if got := n.Vote([]int32{1, 1, 2}, 4, 3, 1e3); got[0] != 1 {
		t.Errorf("class %d won, want 1 with two votes", got[0])
	}
}

func TestLargest(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 0))
	for range 200 {
		v := make([]float32, 1+random.IntN(40))
		for i := range v {
			v[i] = float32(random.IntN(12))
		}
		sorted := slices.Clone(v)
		slices.Sort(sorted)
		k := 1 + random.IntN(len(v))
		if got := largest(slices.Clone(v), k); got != sorted[len(v)-k] {
			t.Errorf("the %d-th largest of %v is %v", k, v, got)
		}
	}
}

// TestFitAgainstScikitLearn holds the minimum against scikit-learn's in float64:
// objectives to 5e-6, weights to 0.5 % of the largest, every prediction. Fits end
// at a gradient of 1e-4, which is that far from it.
func TestFitAgainstScikitLearn(t *testing.T) {
	ref := readReference(t).Regression
	train, test := matrix(ref.Train), matrix(ref.Test)
	Standardise(train, test)
	e := engine(t)
	l, err := e.newLogistic(t.Context(), train, ref.Labels, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.use(func(int) bool { return true })
	p := make([]float64, l.params())
	for _, fit := range ref.Fits {
		n, converged, err := l.fit(t.Context(), p, fit.L2)
		if err != nil || !converged {
			t.Fatalf("L2 %g: converged %v, %v", fit.L2, converged, err)
		}
		objective, err := l.evaluate(t.Context(), p, fit.L2, make([]float64, len(p)))
		if err != nil {
			t.Fatal(err)
		}
		largest, worst := 0.0, 0.0
		for i, row := range fit.Weights {
			for c, w := range row {
				largest, worst = max(largest, math.Abs(w)), max(worst, math.Abs(w-p[i*4+c]))
			}
		}
		t.Logf("L2 %g: %d evaluations, objective off by %.1e, weights by %.1e of %.2f", fit.L2, n, objective-fit.Objective, worst, largest)
		if math.Abs(objective-fit.Objective) > 5e-6 || worst > 5e-3*largest {
			t.Errorf("L2 %g: objective %v, want %v; weights off by %v, the largest is %v", fit.L2, objective, fit.Objective, worst, largest)
		}
		predicted, err := l.of(test).predict(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(predicted, fit.Predicted) {
			t.Errorf("L2 %g: %.1f %% of the predictions are scikit-learn's", fit.L2, 100*Accuracy(predicted, fit.Predicted))
		}
	}
}

// TestProbe chooses the penalty on the rows held out and fits all rows with it,
// on other numbers of processors to the same bits.
func TestProbe(t *testing.T) {
	ref := readReference(t).Regression
	e := engine(t)
	var first *Probe
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, processors := range []int{2, 1, 5} {
		runtime.GOMAXPROCS(processors)
		done := 0
		p, err := e.Probe(t.Context(), matrix(ref.Train), ref.Labels, matrix(ref.Test), ref.Truth, 4, func() { done++ })
		if err != nil {
			t.Fatal(err)
		}
		if done != len(Penalties)+1 || p.HeldOutRows != len(ref.Train)/heldOutShare || !p.Converged {
			t.Errorf("%d fits, %d rows held out, converged %v", done, p.HeldOutRows, p.Converged)
		}
		at := slices.Index(Penalties, p.L2)
		if at < 0 || p.HeldOut[at] != slices.Max(p.HeldOut) || slices.Contains(p.HeldOut[:at], p.HeldOut[at]) {
			t.Errorf("L2 %g was chosen of %v", p.L2, p.HeldOut)
		}
		for _, fit := range ref.Fits {
			if fit.L2 == p.L2 && Accuracy(fit.Predicted, ref.Truth) != p.Accuracy {
				t.Errorf("L2 %g: accuracy %v, scikit-learn has %v", p.L2, p.Accuracy, Accuracy(fit.Predicted, ref.Truth))
			}
		}
		if first == nil {
			first = p
		} else if !reflect.DeepEqual(p, first) {
			t.Errorf("%d processors: %+v, before %+v", processors, p, first)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Probe(ctx, matrix(ref.Train), ref.Labels, matrix(ref.Test), ref.Truth, 4, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	if _, err := e.Probe(t.Context(), matrix(ref.Train[:5]), ref.Labels[:5], matrix(ref.Test), ref.Truth, 4, nil); err == nil {
		t.Error("five rows have none to hold out, and are fitted")
	}
}

func TestStandardise(t *testing.T) {
	train := &Matrix{Rows: 4, Dim: 2, Data: []float32{1, 7, 2, 7, 3, 7, 6, 7}}
	test := &Matrix{Rows: 1, Dim: 2, Data: []float32{3, 9}}
	Standardise(train, test)
	s := math.Sqrt(3.5)
	want := []float32{float32(-2 / s), 0, float32(-1 / s), 0, 0, 0, float32(3 / s), 0}
	for i, w := range want {
		if math.Abs(float64(train.Data[i]-w)) > 1e-7 {
			t.Errorf("value %d is %v, want %v", i, train.Data[i], w)
		}
	}
	if test.Data[0] != 0 || test.Data[1] != 2 {
		t.Errorf("others become %v", test.Data)
	}
}
