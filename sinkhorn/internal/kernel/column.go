package kernel

import "math"

// Columns adds down columns in log domain, for columns so light that the sum
// of their shares leaves the range of float64 or of Row. For each j, with
// k = cols[j] and t_i = (λ·x_ik + v_k) − shift_i over the rows i of x:
//
//	max_j = max_i t_i
//	sum_j = Σ_i e^(t_i − max_j), terms below −Cutoff left out, in row order
//
// so that log Σ_i e^t_i = max_j + log(sum_j). x holds len(shift) rows of
// len(v) entries, none of them NaN or +Inf; max and sum are as long as cols.
// A column of −Inf has max −Inf and sum 0.
func Columns(max, sum []float64, cols []int32, x []float32, shift, v []float64, lambda float64) {
	max, sum = max[:len(cols)], sum[:len(cols)]
	for j := range max {
		max[j], sum[j] = math.Inf(-1), 0
	}
	for i, s := range shift {
		row := x[i*len(v) : (i+1)*len(v)]
		for j, k := range cols {
			if t := Score(row[k], v[k], lambda) - s; t > max[j] {
				max[j] = t
			}
		}
	}
	for i, s := range shift {
		row := x[i*len(v) : (i+1)*len(v)]
		for j, k := range cols {
			t := Score(row[k], v[k], lambda) - s
			if d := t - max[j]; d >= -Cutoff {
				sum[j] += Exp(d)
			}
		}
	}
}

// MergeLogSums adds two sums kept as max + log(sum), the second to the first.
func MergeLogSums(max, sum *float64, max2, sum2 float64) {
	switch {
	case sum2 == 0:
	case max2 > *max:
		*sum = float64(*sum*Exp(*max-max2)) + sum2
		*max = max2
	default:
		*sum += float64(sum2 * Exp(max2-*max))
	}
}

// LogAdd returns log(e^a + e^b).
func LogAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if b == math.Inf(-1) {
		return a
	}
	return a + Log(1+Exp(b-a))
}
