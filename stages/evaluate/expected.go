package evaluate

import (
	"math"
	"slices"
)

// expectedInformation is the mean mutual information, in nats, of clusterings
// with the table's sizes. The overlap of a cluster of a rows and a class of b
// is hypergeometric, so the mean is a sum over pairs of sizes (Vinh et al.
// 2010, theorem 2); pairs of equal sizes are summed once.
func (t *table) expectedInformation() float64 {
	clusters, classes := multiset(t.clusters), multiset(t.classes)
	mean := 0.0
	for _, a := range clusters {
		for _, b := range classes {
			mean += float64(a.times) * float64(b.times) * overlap(t.rows, a.size, b.size)
		}
	}
	return mean
}

type sizes struct{ size, times int64 }

// multiset groups equal counts, in ascending order.
func multiset(counts []int64) []sizes {
	sorted := slices.Sorted(slices.Values(counts))
	var out []sizes
	for _, n := range sorted {
		if len(out) == 0 || out[len(out)-1].size != n {
			out = append(out, sizes{n, 0})
		}
		out[len(out)-1].times++
	}
	return out
}

// negligible is the weight relative to the mode's at which a tail is cut. The
// distribution is log-concave, so what follows is smaller still.
const negligible = 1e-25

// overlap is the mean of m/n·log(n·m/(a·b)) over the overlap m of a random
// cluster of a rows with a class of b, of n rows. Weights are taken relative to
// the mode's, from which they follow by ratios, and divided by their sum: no
// factorials, hence no cancellation of large logarithms.
func overlap(n, a, b int64) float64 {
	lowest, highest := max(0, a+b-n), min(a, b)
	N, A, B := float64(n), float64(a), float64(b)
	mode := min(max(int64((A+1)*(B+1)/(N+2)), lowest), highest)

	total, sum := 0.0, 0.0
	add := func(m int64, weight float64) {
		total += weight
		if m > 0 {
			sum += weight * float64(m) * math.Log(N*float64(m)/(A*B))
		}
	}
	add(mode, 1)
	weight := 1.0
	for m := mode; m < highest && weight > negligible; m++ {
		weight *= float64(a-m) * float64(b-m) / (float64(m+1) * float64(n-a-b+m+1))
		add(m+1, weight)
	}
	weight = 1
	for m := mode; m > lowest && weight > negligible; m-- {
		weight *= float64(m) * float64(n-a-b+m) / (float64(a-m+1) * float64(b-m+1))
		add(m-1, weight)
	}
	return sum / total / N
}
