package kernel

import "math"

// Row computes one row's scores t_k = λ·x_k + v_k and their exponentials
// relative to the largest score:
//
//	max  = max_k t_k
//	w_k  = e^(t_k − max), or 0 where t_k − max < −Cutoff
//	sum  = Σ_k w_k, in the lane order of the package comment
//
// so that the row's log-sum-exp is max + log(sum), 1 ≤ sum ≤ K, and
// w_k/sum is the share of the row that column k gets. x and v have the same
// length K, w at least K. Entries of x may be −Inf. Where the row has no such
// sums (a NaN, a +Inf, nothing but −Inf, or an overflow) sum is NaN.
func Row(w []float64, x []float32, v []float64, lambda float64) (max, sum float64) {
	w, v = w[:len(x)], v[:len(x)]
	max = scores(w, x, v, lambda)
	return max, weights(w, max)
}

// scores sets t_k = λ·x_k + v_k and returns the largest that is not NaN, or
// −Inf.
func scores(t []float64, x []float32, v []float64, lambda float64) float64 {
	t, v = t[:len(x)], v[:len(x)]
	max := math.Inf(-1)
	k := 0
	for ; k+4 <= len(x); k += 4 {
		a, b, c := x[k:k+4:k+4], v[k:k+4:k+4], t[k:k+4:k+4]
		t0 := Score(a[0], b[0], lambda)
		t1 := Score(a[1], b[1], lambda)
		t2 := Score(a[2], b[2], lambda)
		t3 := Score(a[3], b[3], lambda)
		c[0], c[1], c[2], c[3] = t0, t1, t2, t3
		if t0 > max {
			max = t0
		}
		if t1 > max {
			max = t1
		}
		if t2 > max {
			max = t2
		}
		if t3 > max {
			max = t3
		}
	}
	for ; k < len(x); k++ {
		t[k] = Score(x[k], v[k], lambda)
		if t[k] > max {
			max = t[k]
		}
	}
	return max
}

// weights replaces each score t_k by w_k and returns the sum of the w_k.
func weights(t []float64, max float64) float64 {
	var l0, l1, l2, l3, l4, l5, l6, l7 float64
	k := 0
	for ; k+Lanes <= len(t); k += Lanes {
		w := t[k : k+Lanes : k+Lanes]
		d0, d1, d2, d3 := w[0]-max, w[1]-max, w[2]-max, w[3]-max
		d4, d5, d6, d7 := w[4]-max, w[5]-max, w[6]-max, w[7]-max
		if d0 < -Cutoff && d1 < -Cutoff && d2 < -Cutoff && d3 < -Cutoff {
			w[0], w[1], w[2], w[3] = 0, 0, 0, 0
		} else {
			w[0], w[1], w[2], w[3] = weights4(d0, d1, d2, d3)
			l0 += w[0]
			l1 += w[1]
			l2 += w[2]
			l3 += w[3]
		}
		if d4 < -Cutoff && d5 < -Cutoff && d6 < -Cutoff && d7 < -Cutoff {
			w[4], w[5], w[6], w[7] = 0, 0, 0, 0
		} else {
			w[4], w[5], w[6], w[7] = weights4(d4, d5, d6, d7)
			l4 += w[4]
			l5 += w[5]
			l6 += w[6]
			l7 += w[7]
		}
	}
	lanes := [Lanes]float64{l0, l1, l2, l3, l4, l5, l6, l7}
	for j := 0; k < len(t); j, k = j+1, k+1 {
		t[k] = weight(t[k] - max)
		lanes[j] += t[k]
	}
	return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

// weight returns e^d, or 0 below −Cutoff; NaN stays NaN.
func weight(d float64) float64 {
	if d < -Cutoff {
		return 0
	}
	return Exp(d)
}

// Add adds scale·w_k to sums[k] for every k: a row's shares to the column
// sums, when w is what Row left and scale is 1/sum.
func Add(sums, w []float64, scale float64) {
	w = w[:len(sums)]
	for k := range sums {
		sums[k] += float64(scale * w[k])
	}
}
