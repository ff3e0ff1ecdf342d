package clusters

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// best is the largest sum of gains over all pairings, by trying them all.
func best(gain [][]float64, row int, taken []bool, spare int) float64 {
	if row == len(gain) {
		return 0
	}
	most := math.Inf(-1)
	if spare > 0 { // more rows than columns: leave this one over
		most = best(gain, row+1, taken, spare-1)
	}
	for j, g := range gain[row] {
		if !taken[j] {
			taken[j] = true
			most = max(most, g+best(gain, row+1, taken, spare))
			taken[j] = false
		}
	}
	return most
}

func checkMatch(t *testing.T, gain [][]float64, match []int) (sum float64) {
	t.Helper()
	pairs, columns := 0, map[int]bool{}
	for i, j := range match {
		if j < 0 {
			continue
		}
		if columns[j] {
			t.Fatalf("column %d is taken twice: %v", j, match)
		}
		columns[j] = true
		pairs++
		sum += gain[i][j]
	}
	if len(match) != len(gain) || pairs != min(len(gain), len(gain[0])) {
		t.Fatalf("%d pairs of %d×%d: %v", pairs, len(gain), len(gain[0]), match)
	}
	return sum
}

// TestMatchIsBest compares with all pairings of small matrices, square and not,
// many with ties.
func TestMatchIsBest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for trial := range 3000 {
		rows, columns := 1+random.IntN(6), 1+random.IntN(6)
		gain := make([][]float64, rows)
		for i := range gain {
			gain[i] = make([]float64, columns)
			for j := range gain[i] {
				if trial%2 == 0 {
					gain[i][j] = float64(random.IntN(4) - 1)
				} else {
					gain[i][j] = random.NormFloat64()
				}
			}
		}
		match := Match(gain)
		got, want := checkMatch(t, gain, match), best(gain, 0, make([]bool, columns), max(0, rows-columns))
		if math.Abs(got-want) > 1e-12 {
			t.Fatalf("%v: %v has gain %v, the best %v", gain, match, got, want)
		}
		if again := Match(gain); !slices.Equal(again, match) {
			t.Fatalf("%v, then %v", match, again)
		}
	}
}

// TestMatchOfNothing has no pairs.
func TestMatchOfNothing(t *testing.T) {
	if m := Match(nil); len(m) != 0 {
		t.Error(m)
	}
	if m := Match([][]float64{{}, {}}); !slices.Equal(m, []int{-1, -1}) {
		t.Error(m)
	}
}
