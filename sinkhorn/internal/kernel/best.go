package kernel

import "math"

// Best returns the lowest column with the largest score t_k = λ·x_k + v_k,
// that score, and the largest score among the other columns (−Inf where there
// is none). The scores are the bits of Block's. Where no score exceeds −Inf the
// column is −1. NaN scores are passed over.
func Best(x []float32, v []float64, lambda float64) (column int, best, second float64) {
	v = v[:len(x)]
	column, best, second = -1, math.Inf(-1), math.Inf(-1)
	for k, xk := range x {
		t := Score(xk, v[k], lambda)
		if t > second {
			if t > best {
				column, best, second = k, t, best
			} else {
				second = t
			}
		}
	}
	return column, best, second
}

// Sum returns Block's sum of one row, to the bit, for the row's largest score
// max; NaN for a row that has none.
func Sum(x []float32, v []float64, lambda, max float64) float64 {
	v = v[:len(x)]
	var l [Lanes]float64
	for k, xk := range x {
		d := Score(xk, v[k], lambda) - max
		if !(d < -Cutoff) {
			l[k%Lanes] += Exp(d)
		}
	}
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}
