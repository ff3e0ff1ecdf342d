package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

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

// TestBestAndSumAgreeWithBlock checks the promise that labels of single rows
// are those of a pass.
func TestBestAndSumAgreeWithBlock(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	for kind := range kinds {
		for clusters := 1; clusters < 70; clusters++ {
			p := newProblem(r, kind, 1, clusters)
			want := p.solve()
			column, best, second := Best(p.x, p.v, p.lambda)
			sum := Sum(p.x, p.v, p.lambda, best)
			if want.bad >= 0 {
				if sum == sum {
					t.Fatalf("%s, K=%d: sum %v of a row without", kinds[kind].name, clusters, sum)
				}
				continue
			}
			if second-best < -Cutoff {
				second = math.Inf(-1)
			}
			if column != int(want.rows.Best[0]) || best != want.rows.Max[0] || second != want.rows.Second[0] || sum != want.rows.Sum[0] {
				t.Fatalf("%s, K=%d: %d %v %v %v, Block %+v", kinds[kind].name, clusters, column, best, second, sum, want.rows)
			}
		}
	}
}
