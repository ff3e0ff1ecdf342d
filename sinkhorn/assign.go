package sinkhorn

import (
	"fmt"
	"math"
	"slices"

	"sela/sinkhorn/internal/kernel"
)

// Assign labels one row under potentials v: the label is argmax_k
// (λ·log p_k + v_k), lowest index on ties, and prob its share of the row,
// exp(x_label + v_label − lse). It decides in float64 with the same bits as a
// pass, so labels agree with a certificate's counts. A row that holds a NaN, a
// +Inf or nothing but −Inf has label −1 and prob NaN.
//
// x and v have length K. Assign allocates nothing and may run concurrently.
func Assign(x []float32, lambda float64, v []float64) (label int32, prob float64) {
	k, best, _ := kernel.Best(x, v, lambda)
	sum := kernel.Sum(x, v, lambda, best)
	if sum != sum {
		return -1, math.NaN()
	}
	return int32(k), 1 / sum
}

// Share returns the share of a row that cluster label gets under potentials v,
// exp(x_label + v_label − lse); NaN for a row that Assign refuses.
func Share(x []float32, lambda float64, v []float64, label int32) float64 {
	_, best, _ := kernel.Best(x, v, lambda)
	sum := kernel.Sum(x, v, lambda, best)
	return kernel.Exp(kernel.Score(x[label], v[label], lambda)-best) / sum
}

// Candidate is one cluster of a row with its share of the row.
type Candidate struct {
	Label int32
	Prob  float64
}

// TopK writes the clusters with the largest shares of a row under potentials
// v to dst, largest first, lowest index first among equals, and returns their
// number: len(dst), or fewer where fewer clusters have p > 0. A share is
// exp(x_k + v_k − lse); over all clusters shares sum to 1. It returns 0 for a
// row that Assign refuses, and otherwise dst[0] is what Assign returns.
//
// x and v have length K. TopK allocates nothing and may run concurrently with
// distinct dst.
func TopK(dst []Candidate, x []float32, lambda float64, v []float64) int {
	_, best, _ := kernel.Best(x, v, lambda)
	sum := kernel.Sum(x, v, lambda, best)
	if sum != sum {
		return 0
	}
	n := 0
	for k, xk := range x {
		// Prob holds the score while candidates are ranked.
		score := kernel.Score(xk, v[k], lambda)
		if math.IsInf(score, -1) || n == len(dst) && (n == 0 || score <= dst[n-1].Prob) {
			continue
		}
		if n < len(dst) {
			n++
		}
		at := n - 1
		for ; at > 0 && dst[at-1].Prob < score; at-- {
			dst[at] = dst[at-1]
		}
		dst[at] = Candidate{int32(k), score}
	}
	for i := range dst[:n] {
		dst[i].Prob = kernel.Exp(dst[i].Prob-best) / sum
	}
	return n
}

// Assignment is the label of one row.
type Assignment struct {
	Label int32   // argmax_k (x_k + v_k)
	Prob  float64 // the label's share of the row

	// The model's own choice: argmax_k log p_k, lowest index on ties, and its
	// probability exp(log p).
	ModelLabel int32
	ModelProb  float64
}

// Assigner labels blocks under potentials, as Assign does, at the speed of a
// pass. It is not safe for concurrent use.
type Assigner struct {
	clusters int
	params   *kernel.Params
	scratch  *kernel.Scratch
	rows     kernel.Rows
}

// NewAssigner returns an Assigner for potentials v at λ. It copies v.
func NewAssigner(lambda float64, v []float64) *Assigner {
	return &Assigner{clusters: len(v), params: kernel.NewParams(lambda, v), scratch: kernel.NewScratch(len(v))}
}

// Block labels the rows of a block, with the model's own choice beside the
// label. dst has at least as many elements as the block has rows. A row that
// cannot be labelled is a *RowError. Block allocates only where a block has
// more rows than any before.
func (a *Assigner) Block(dst []Assignment, b *Block) error {
	n := len(b.Rows)
	if len(b.X) != n*a.clusters || len(dst) < n {
		return fmt.Errorf("%w: %d values and room for %d labels, for %d rows of %d clusters", ErrSource, len(b.X), len(dst), n, a.clusters)
	}
	r := &a.rows
	r.Max, r.Sum, r.Second = slices.Grow(r.Max[:0], n)[:n], slices.Grow(r.Sum[:0], n)[:n], slices.Grow(r.Second[:0], n)[:n]
	r.Best = slices.Grow(r.Best[:0], n)[:n]
	if bad := a.params.Block(a.scratch, r, nil, b.X); bad >= 0 {
		return rowFault(b, bad)
	}
	for i := range n {
		x := b.X[i*a.clusters : (i+1)*a.clusters]
		model := 0
		for k, xk := range x {
			if xk > x[model] {
				model = k
			}
		}
		dst[i] = Assignment{r.Best[i], 1 / r.Sum[i], int32(model), kernel.Exp(float64(x[model]))}
	}
	return nil
}
