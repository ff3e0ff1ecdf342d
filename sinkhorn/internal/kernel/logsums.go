package kernel

import "math"

// LogSums adds rows down columns in log domain, row after row, so that the
// result does not depend on how rows are cut into blocks. With the scores
// t = (λ·x_ik + v_k) − shift_i it keeps max_k and sum_k with
// log Σ_i e^t = max_k + log(sum_k), from max −Inf and sum 0 before the first
// row, by
//
//	t − max > 0:        sum = sum·e^(max−t) + 1, max = t
//	t − max ≥ −Cutoff:  sum = sum + e^(t−max)
//
// where e^(max−t) below e^−Cutoff counts as 0: of Σ_i e^t that leaves out a
// part of at most N·e^−60 < N·8.8e-27 for N rows.
//
// cols nil means all columns: max and sum have K entries and x holds
// len(x)/K rows, and it returns the first row with a score NaN or +Inf or
// without any above −Inf, after which it stops (max and sum are then not
// usable), or −1. Else max and sum are those of the columns cols (max[j] of
// column cols[j]), shift has one entry per row, and it returns −1; only +Inf
// and NaN must not be there. v nil means zeros; shift nil means zeros, with
// cols nil only.
func LogSums(max, sum []float64, cols []int32, x []float32, shift, v []float64, lambda float64) (bad int) {
	if cols != nil {
		logSumsOf(max[:len(cols)], sum[:len(cols)], cols, x, shift, v, lambda)
		return -1
	}
	clusters := len(max)
	sum = sum[:clusters]
	rows := len(x) / clusters
	if shift != nil {
		shift = shift[:rows]
	}
	if v != nil {
		v = v[:clusters]
	}
	return active.logSums(max, sum, x[:rows*clusters], shift, v, lambda)
}

// logSums is LogSums for all columns: the definition.
func logSums(max, sum []float64, x []float32, shift, v []float64, lambda float64) (bad int) {
	clusters := len(max)
	for i := range len(x) / clusters {
		s := 0.0
		if shift != nil {
			s = shift[i]
		}
		top, nan := math.Inf(-1), false
		for k, xk := range x[i*clusters : (i+1)*clusters] {
			vk := 0.0
			if v != nil {
				vk = v[k]
			}
			t := Score(xk, vk, lambda) - s
			if t > top {
				top = t
			}
			nan = nan || t != t
			logSum(&max[k], &sum[k], t)
		}
		if nan || math.IsInf(top, 0) {
			return i
		}
	}
	return -1
}

// logSumsOf is LogSums for the columns cols.
func logSumsOf(max, sum []float64, cols []int32, x []float32, shift, v []float64, lambda float64) {
	if len(shift) == 0 {
		return
	}
	clusters := len(x) / len(shift)
	for i, s := range shift {
		row := x[i*clusters : (i+1)*clusters]
		for j, k := range cols {
			vk := 0.0
			if v != nil {
				vk = v[k]
			}
			logSum(&max[j], &sum[j], Score(row[k], vk, lambda)-s)
		}
	}
}

// logSum adds e^t to e^max·sum.
func logSum(max, sum *float64, t float64) {
	switch d := t - *max; {
	case d > 0:
		*sum = float64(*sum*weight(-d)) + 1
		*max = t
	case d >= -Cutoff:
		*sum += Exp(d)
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
