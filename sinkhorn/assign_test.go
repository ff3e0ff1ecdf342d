package sinkhorn

import (
	"encoding/binary"
	"errors"
	"math"
	"sort"
	"testing"
)

// ranked is the naive definition of TopK, over all clusters with p > 0.
func ranked(x []float32, lambda float64, v []float64) (all []Candidate) {
	top := math.Inf(-1)
	for k := range x {
		top = math.Max(top, float64(lambda*float64(x[k]))+v[k])
	}
	sum := 0.0
	for k := range x {
		score := float64(lambda*float64(x[k])) + v[k]
		sum += math.Exp(score - top)
		if !math.IsInf(score, -1) {
			all = append(all, Candidate{int32(k), score})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Prob > all[j].Prob })
	for i := range all {
		all[i].Prob = math.Exp(all[i].Prob-top) / sum
	}
	return all
}

func checkAssign(t *testing.T, x []float32, lambda float64, v []float64) {
	t.Helper()
	label, prob := Assign(x, lambda, v)
	want := ranked(x, lambda, v)
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-12*b+1e-300 }
	if label != want[0].Label || !near(prob, want[0].Prob) {
		t.Fatalf("Assign(%v, %v, %v) = %d, %v, want %+v", x, lambda, v, label, prob, want[0])
	}
	for _, n := range []int{0, 1, 3, len(x), len(x) + 2} {
		dst := make([]Candidate, n)
		got := dst[:TopK(dst, x, lambda, v)]
		if len(got) != min(n, len(want)) {
			t.Fatalf("TopK(%v) of %d returned %d", x, n, len(got))
		}
		for i := range got {
			if got[i].Label != want[i].Label || !near(got[i].Prob, want[i].Prob) {
				t.Fatalf("TopK(%v, %v, %v)[%d] = %+v, want %+v", x, lambda, v, i, got[i], want[i])
			}
		}
		if n > 0 && (got[0] != Candidate{label, prob}) {
			t.Fatalf("TopK begins with %+v, Assign says %d, %v", got[0], label, prob)
		}
	}
}

func TestAssign(t *testing.T) {
	inf := float32(math.Inf(1))
	zero := make([]float64, 5)
	for _, x := range [][]float32{
		{-1}, {-1, -1}, {-2, -1, -1, -3}, {-inf, -1, -inf}, {-1, -2, -inf, -1, -0.5}, {0, 0, 0, 0, 0}, {-1000, 0, -1000},
	} {
		checkAssign(t, x, 25, zero[:len(x)])
	}
	for _, x := range [][]float32{{-inf, -inf}, {-1, inf, -2}, {-1, float32(math.NaN()), -2}} {
		label, prob := Assign(x, 25, zero[:len(x)])
		if label != -1 || !math.IsNaN(prob) || TopK(make([]Candidate, 2), x, 25, zero[:len(x)]) != 0 {
			t.Errorf("Assign(%v) = %d, %v", x, label, prob)
		}
	}
}

func FuzzAssign(f *testing.F) {
	f.Add([]byte("some bytes to be read as numbers"), 25.0)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}, 1.0)
	f.Fuzz(func(t *testing.T, data []byte, lambda float64) {
		if !(lambda > 0) || lambda > 1000 {
			return
		}
		var x []float32
		var v []float64
		for ; len(data) >= 4; data = data[4:] {
			a, b := int16(binary.LittleEndian.Uint16(data)), int16(binary.LittleEndian.Uint16(data[2:]))
			x, v = append(x, float32(a)/256), append(v, float64(b)/64)
			if a == math.MinInt16 {
				x[len(x)-1] = float32(math.Inf(-1))
			}
		}
		if len(ranked(x, lambda, v)) > 0 {
			checkAssign(t, x, lambda, v)
		}
	})
}

func TestAssigner(t *testing.T) {
	m := problem(51, 600, 11, 1, 0.5)
	v := []float64{3, -2, 0, 0, 1, 9, 0, 0, -4, 0, 2}
	b := &Block{X: m.x}
	for i := range 600 {
		b.Rows = append(b.Rows, int64(i)*2)
	}
	dst, a := make([]Assignment, 600), NewAssigner(10, v)
	if err := a.Block(dst, b); err != nil {
		t.Fatal(err)
	}
	for i, got := range dst {
		x := m.x[i*11 : (i+1)*11]
		label, prob := Assign(x, 10, v)
		model := ranked(x, 1, make([]float64, 11))[0].Label
		if got.Label != label || got.Prob != prob || got.ModelLabel != model || math.Abs(got.ModelProb-math.Exp(float64(x[model]))) > 1e-15 {
			t.Fatalf("row %d: %+v, want %d, %v, %d", i, got, label, prob, model)
		}
	}
	if n := testing.AllocsPerRun(5, func() {
		top := [4]Candidate{}
		a.Block(dst, b)
		TopK(top[:], b.X[:11], 10, v)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	b.X[7*11] = float32(math.NaN())
	var bad *RowError
	if err := a.Block(dst, b); !errors.As(err, &bad) || bad.Row != 14 {
		t.Errorf("error %v, want row 14", err)
	}
	if err := a.Block(dst[:5], b); !errors.Is(err, ErrSource) {
		t.Errorf("short dst: %v", err)
	}
}
