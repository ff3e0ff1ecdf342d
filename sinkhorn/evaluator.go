package sinkhorn

import (
	"context"
	"fmt"
	"math"
)

// Evaluator makes one pass over all rows. It is all that a method knows of the
// data: CPU is one evaluator, a pass on a GPU or one spread over machines are
// others.
//
// Below, x_ik = λ·log p_ik, lse_i(v) = log Σ_k exp(x_ik + v_k), and means are
// over the N rows present.
type Evaluator interface {
	// Pass evaluates req. The request's slices are only read; the caller owns
	// the result. On cancellation it returns an error that wraps ctx.Err().
	Pass(ctx context.Context, req Request) (*PassResult, error)
}

// Request says what a pass computes. The zero value of each optional field
// asks for nothing more.
type Request struct {
	// Lambda is λ > 0, the factor on log p.
	Lambda float64

	// V holds the K potentials in nats, all finite. nil asks for the pass
	// before the first iteration: every row scaled by 1/N alone, as if
	// lse_i = 0 and v = 0. Such a pass takes none of the options below.
	V []float64

	// Change asks for PassResult.Change, against the potentials Previous, or,
	// where Previous is nil, against the start (every row scaled by 1/N).
	Change   bool
	Previous []float64

	// Certify asks for what a certificate states of the labels and of x.
	Certify bool
}

// PassResult is what a pass found. Fields that were not asked for are zero.
type PassResult struct {
	// Rows is N.
	Rows int64

	// LogMass holds, for each cluster, log m_k where
	// m_k = mean_i exp(x_ik + v_k − lse_i(v)) is the share of the rows that it
	// gets: accurate however small m_k is, −Inf where p_ik = 0 in all rows.
	// Without V: log mean_i exp(x_ik).
	LogMass []float64

	// MeanLSE is mean_i lse_i(v), in nats.
	MeanLSE float64

	// Change is Σ_i |c_i/c'_i − 1|, a sum over rows, where c'_i =
	// exp(−lse_i(v))/N are the row scalings and c_i those under Previous.
	Change float64

	// Labels found by the pass: argmax_k (x_ik + v_k), lowest index on ties.
	Counts    []int64 // rows by cluster
	TiedRows  int64   // rows whose best and second-best scores are equal
	MinMargin float64 // smallest difference of the two, nats; +Inf for K = 1

	// MaxRange is max_i (max_k x_ik − min_k x_ik), in nats; +Inf where some
	// p_ik is 0.
	MaxRange float64

	// MinLSE and MaxLSE bound lse_i(v) over the rows, in nats. They are equal
	// when all rows are the same.
	MinLSE, MaxLSE float64
}

// validate checks a request against the number of clusters.
func (r *Request) validate(clusters int) error {
	if !(r.Lambda > 0) || math.IsInf(r.Lambda, 1) {
		return fmt.Errorf("%w: lambda is %v, want a positive number", ErrOptions, r.Lambda)
	}
	if r.V == nil {
		if r.Change || r.Certify || r.Previous != nil {
			return fmt.Errorf("%w: a pass without potentials yields column sums only", ErrOptions)
		}
		return nil
	}
	if err := checkPotentials(r.V, clusters); err != nil {
		return err
	}
	if r.Previous != nil {
		return checkPotentials(r.Previous, clusters)
	}
	return nil
}

func checkPotentials(v []float64, clusters int) error {
	if len(v) != clusters {
		return fmt.Errorf("%w: %d potentials for %d clusters", ErrOptions, len(v), clusters)
	}
	for k, vk := range v {
		if math.IsNaN(vk) || math.IsInf(vk, 0) {
			return fmt.Errorf("%w: potential of cluster %d is %v", ErrOptions, k, vk)
		}
	}
	return nil
}
