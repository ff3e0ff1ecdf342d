package kernel

import "math"

// row evaluates row i, whose entries are x: the definition of Block. It
// reports whether the row has sums.
func (p *Params) row(s *Scratch, r *Rows, i int, mass []float64, x []float32, l *List) bool {
	w, v := s.weights[:p.clusters], p.v[:p.clusters]
	max := scores(w, x, v, p.lambda) + 0 // no −0
	r.Max[i] = max
	if r.Best != nil {
		r.Best[i], r.Second[i] = bestTwo(w, max)
	}
	if r.Low != nil {
		r.Low[i], r.High[i] = span(x)
	}
	sum := weights(w, max)
	r.Sum[i] = sum
	if sum != sum {
		return false
	}
	scale := 1 / sum
	if mass != nil {
		for k := range w {
			mass[k] += float64(scale * w[k])
		}
	}
	if l == nil {
		return true
	}
	for k, wk := range w {
		if d := Score(x[k], v[k], p.lambda) - max; d >= -l.Margin[k] {
			l.Cluster, l.X = append(l.Cluster, int32(k)), append(l.X, x[k])
		} else {
			l.Dropped[k] += float64(scale * wk)
		}
	}
	l.End = append(l.End, int32(len(l.Cluster)))
	return true
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

// bestTwo returns the lowest column whose score is max, −1 if none, and the
// largest other score, −Inf unless it is within Cutoff of max.
func bestTwo(t []float64, max float64) (best int32, second float64) {
	best, second = -1, math.Inf(-1)
	for k, tk := range t {
		if best < 0 && tk == max {
			best = int32(k)
		} else if tk > second {
			second = tk
		}
	}
	if second-max < -Cutoff {
		second = math.Inf(-1)
	}
	return best, second + 0
}

// weights replaces each score t_k by w_k = e^(t_k − max), 0 below −Cutoff, and
// returns the sum of the w_k; it is NaN where max is not finite or a score NaN.
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

// Score returns the score λ·x + v of one entry.
func Score(x float32, v, lambda float64) float64 { return float64(lambda*float64(x)) + v }

// span returns the smallest and the largest entry of x, which is not empty
// and holds no NaN.
func span(x []float32) (low, high float32) {
	low, high = x[0], x[0]
	for _, xk := range x[1:] {
		if xk < low {
			low = xk
		}
		if xk > high {
			high = xk
		}
	}
	return low + 0, high + 0 // no −0
}
