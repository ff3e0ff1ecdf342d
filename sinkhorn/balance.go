package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// BalanceOptions says what Balance solves. All fields are needed but
// Marginals.
type BalanceOptions struct {
	// Lambda is λ, the factor on log p that the potentials belong to.
	Lambda float64

	// Marginals holds the share b_k > 0 of each cluster; nil means 1/K each.
	Marginals []float64

	// ListV and Margin are the potentials and margins, in nats, of the pass
	// that wrote the lists. They bound the entries that the lists leave out.
	ListV, Margin []float64
}

// Balanced is a labelling in which cluster k has ⌊b_k·N⌋ or ⌈b_k·N⌉ rows.
// Costs are means over the N rows of −x_ik = −λ·log p_ik, in nats; divided by
// λ they are mean −log p.
type Balanced struct {
	// Labels holds the cluster of each row present, in order of row number: 4
	// bytes a row.
	Labels []int32

	// Counts holds the number of rows of each cluster.
	Counts []int64

	// V holds the potentials u in nats at λ under which the labels were found:
	// each row's label is among the best of its list, to within 1e-10.
	V []float64

	// Cost is mean_i −x_{i,y_i} of the labels y. No labelling of the full
	// matrix with counts of ⌊b_k·N⌋ or ⌈b_k·N⌉ costs less than DualBound, and
	// Gap ≥ 0 is the difference of the two. With w_k = u_k − s for a number s,
	//
	//	−DualBound = mean_i max_k (x_ik + u_k) − s − Σ_k min(⌊b_k·N⌋·w_k, ⌈b_k·N⌉·w_k)/N
	//
	// is the dual of the linear programme, which N·K numbers would be needed
	// to evaluate; an entry outside the lists counts as the largest that it
	// can be.
	Cost, DualBound, Gap float64

	// Unproved counts the rows that have an entry outside their list which
	// might be their best under V. Where it is 0 the labels are the optimum of
	// the full matrix and Gap is rounding; else only of the lists, and Gap
	// bounds the loss. Lists written at V would prove more.
	Unproved int64

	// Moved counts the rows whose label is not argmax_k (x_ik + v_k) of the
	// potentials given.
	Moved int64

	// Surplus is the number of rows above Counts, over all clusters, of the
	// labels under the potentials given: what the repair had to move at least.
	Surplus int64
}

// UnplacedError says that no labelling on the lists has the counts wanted.
// Lists with wider margins for the clusters named may have one.
type UnplacedError struct {
	Clusters []int // those that rows with no place left do not list, ascending
	Rows     int64 // rows without a place
}

func (e *UnplacedError) Error() string {
	return fmt.Sprintf("sinkhorn: balance: %d rows have no place on their lists; wider margins are needed for clusters %s", e.Rows, listed(e.Clusters))
}

// Balance labels every row such that cluster k has ⌊b_k·N⌋ or ⌈b_k·N⌉ rows, at
// the least cost that the lists allow. Any v will do; potentials that converged
// at λ leave the least to mend.
//
// Rows get their best clusters under v, and then move along shortest paths
// between clusters from those with too many to those with too few; at the end
// no exchange of rows lowers the cost. (Ahuja, Magnanti, Orlin, "Network
// flows", 1993, sections 9.7 and 12.4; Peyré and Cuturi, "Computational Optimal
// Transport", 2019, section 3.5.) Of equal rows those with lower numbers move
// first, and of equal clusters the lowest has the row, so identical rows part
// in a fixed way. Following the entropic optimum to larger λ first leaves fewer
// rows to move, but takes longer than moving them.
//
// Memory: the labels, and for each entry within a nat of its row's best, where
// a row has several, 12 bytes and up to 32 more in the graph; entries further
// away join where potentials have to move by more than a nat. Time: three to
// five readings of the lists, and for each of up to some hundred rounds a run
// of Dijkstra's algorithm over the clusters. All of it is done by the caller's
// goroutine.
//
// The error is an *UnplacedError where the lists are too short. On
// cancellation it wraps ctx.Err(). The lists are only read.
func Balance(ctx context.Context, lists *Lists, v []float64, o BalanceOptions) (*Balanced, error) {
	if err := o.validate(lists, v); err != nil {
		return nil, err
	}
	b, err := newBalancer(lists, v, &o)
	if err != nil {
		return nil, err
	}
	if err := b.place(ctx); err != nil {
		return nil, err
	}
	return b.report(ctx, &o)
}

// quotas returns the least and the largest number of rows of each cluster. A
// share that is a whole number of rows but for rounding is taken as that.
func quotas(marginals []float64, rows int64, clusters int) (low, high []int64) {
	low, high = make([]int64, clusters), make([]int64, clusters)
	if marginals == nil {
		for k := range low {
			low[k] = rows / int64(clusters)
			high[k] = low[k] + min(1, rows%int64(clusters))
		}
		return low, high
	}
	sum := 0.0
	for _, bk := range marginals {
		sum += bk
	}
	// Below 1/2K, so that the least numbers still sum to N at most and the
	// largest to N at least.
	tolerance := min(1e-6, 0.5/float64(clusters))
	for k, bk := range marginals {
		share := bk / sum * float64(rows)
		low[k], high[k] = int64(math.Floor(share)), int64(math.Ceil(share))
		if whole := math.Round(share); math.Abs(share-whole) <= tolerance {
			low[k], high[k] = int64(whole), int64(whole)
		}
	}
	return low, high
}

func (o *BalanceOptions) validate(lists *Lists, v []float64) error {
	clusters := lists.clusters
	if !(o.Lambda > 0) || math.IsInf(o.Lambda, 1) {
		return fmt.Errorf("%w: lambda is %v, want a positive number", ErrOptions, o.Lambda)
	}
	if err := checkPotentials(v, clusters); err != nil {
		return err
	}
	if err := checkPotentials(o.ListV, clusters); err != nil {
		return fmt.Errorf("of the lists: %w", err)
	}
	if len(o.Margin) != clusters || slices.ContainsFunc(o.Margin, func(m float64) bool { return !(m > 0) || math.IsInf(m, 1) }) {
		return fmt.Errorf("%w: lists have positive margins for %d clusters", ErrOptions, clusters)
	}
	if err := checkMarginals(o.Marginals); err != nil {
		return err
	}
	if o.Marginals != nil && len(o.Marginals) != clusters {
		return fmt.Errorf("%w: %d marginals for %d clusters", ErrOptions, len(o.Marginals), clusters)
	}
	if lists.rows == 0 {
		return ErrNoRows
	}
	return nil
}
