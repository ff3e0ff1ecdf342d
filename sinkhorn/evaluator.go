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
	// Dims returns N and K. Both stay the same for the life of the evaluator.
	Dims() (rows int64, clusters int)

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
	// where Previous is nil, against the start (every row scaled by 1/N). With
	// Previous, Certify also counts PassResult.Changed.
	Change   bool
	Previous []float64

	// Certify asks for what a certificate states of the labels and of x.
	Certify bool

	// LogMass asks for every PassResult.LogMass to be accurate, however small
	// the mass. It may cost a second read of the data. A pass without V always
	// is.
	LogMass bool

	// Lists asks for each row's entries near its best, where it is not nil.
	// Only an evaluator that implements Lister grants it.
	Lists *ListRequest
}

// ListRequest asks a pass for lists: row i's holds the entries with
// x_ik + v_k ≥ max_k (x_ik + v_k) − Margin[k].
type ListRequest struct {
	Margin []float64 // [K], nats, positive
	Into   *Lists    // emptied first; unusable if the pass fails
}

// Lister is an Evaluator that may grant Request.Lists.
type Lister interface {
	Evaluator
	// GrantsLists tells whether it does.
	GrantsLists() bool
}

// PassResult is what a pass found. Fields that were not asked for are zero.
type PassResult struct {
	// Rows is N.
	Rows int64

	// LogMass holds, for each cluster, log m_k where
	// m_k = mean_i exp(x_ik + v_k − lse_i(v)) is the share of the rows that it
	// gets; without V: log mean_i exp(x_ik). Where Request.LogMass or the
	// lack of V asks for it, it is accurate however small m_k is, and −Inf only
	// where p_ik = 0 in all rows. Else a mass below StarvedShare may come out
	// too small, or −Inf.
	LogMass []float64

	// MeanLSE is mean_i lse_i(v), in nats.
	MeanLSE float64

	// Change is Σ_i |c_i/c'_i − 1|, a sum over rows, where c'_i =
	// exp(−lse_i(v))/N are the row scalings and c_i those under Previous.
	Change float64

	// Labels found by the pass: argmax_k (x_ik + v_k), lowest index on ties.
	Counts    []int64 // rows by cluster
	Changed   int64   // rows whose label under Previous is another; 0 without Previous
	TiedRows  int64   // rows whose best and second-best scores are equal
	MinMargin float64 // smallest difference of the two, nats; above 60, and for K = 1, +Inf

	// MaxRange is max_i (max_k x_ik − min_k x_ik), in nats; +Inf where some
	// p_ik is 0.
	MaxRange float64

	// MinLSE and MaxLSE bound lse_i(v) over the rows, in nats. They are equal
	// when all rows are the same.
	MinLSE, MaxLSE float64

	// Of lists: Dropped[k] is mean_i of the shares of column k that the lists
	// leave out, up to DroppedTail in each entry.
	Dropped []float64
}

// StarvedShare is the share of the rows below which a cluster's mass is
// accurate only on request: entries that weigh less than e^−60 = 8.8e-27 in
// their row are left out of a pass, less than 1e-12 of such a mass.
const StarvedShare = 1e-14

// DroppedTail bounds the share of its row that a pass leaves out of Dropped in
// one entry: e^−60.
const DroppedTail = 8.76e-27

// validate checks a request against the number of clusters.
func (r *Request) validate(clusters int) error {
	if !(r.Lambda > 0) || math.IsInf(r.Lambda, 1) {
		return fmt.Errorf("%w: lambda is %v, want a positive number", ErrOptions, r.Lambda)
	}
	if r.V == nil {
		if r.Change || r.Certify || r.Previous != nil || r.Lists != nil {
			return fmt.Errorf("%w: a pass without potentials yields column sums only", ErrOptions)
		}
		return nil
	}
	if err := checkPotentials(r.V, clusters); err != nil {
		return err
	}
	if r.Previous != nil {
		if err := checkPotentials(r.Previous, clusters); err != nil {
			return err
		}
	}
	if r.Lists == nil {
		return nil
	}
	if len(r.Lists.Margin) != clusters || r.Lists.Into == nil {
		return fmt.Errorf("%w: lists of %d margins for %d clusters", ErrOptions, len(r.Lists.Margin), clusters)
	}
	for k, m := range r.Lists.Margin {
		if !(m > 0) || math.IsInf(m, 1) {
			return fmt.Errorf("%w: list margin of cluster %d is %v", ErrOptions, k, m)
		}
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
