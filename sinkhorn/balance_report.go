package sinkhorn

import (
	"cmp"
	"context"
	"slices"

	"sela/sinkhorn/internal/kernel"
)

// report measures the labels placed against those under the potentials given
// and against the dual bound.
func (b *balancer) report(ctx context.Context, o *BalanceOptions) (*Balanced, error) {
	clusters, n := len(b.v), float64(b.lists.rows)
	out := &Balanced{Labels: b.labels, Counts: b.counts, V: make([]float64, clusters)}
	for k := range out.V {
		out.V[k] = b.v[k] + float64(float64(b.price[k])*b.unit)
	}
	hidden := newHidden(out.V, o)
	cost, slack := 0.0, 0.0
	err := b.eachRow(ctx, func(ordinal int64, x []float32, listed []int32) {
		label := b.labels[ordinal]
		first, _, _ := bestEntry(x, listed, b.v, b.lambda)
		if first != label {
			out.Moved++
		}
		_, then, _ := bestEntry(x, listed, o.ListV, b.lambda)
		_, top, _ := bestEntry(x, listed, out.V, b.lambda)
		if bound := hidden.bound(then, top, listed); bound > top {
			out.Unproved++
			top = bound
		}
		e, _ := slices.BinarySearch(listed, label)
		slack += top - kernel.Score(x[e], out.V[label], b.lambda)
		cost -= float64(b.lambda * float64(x[e]))
	})
	if err != nil {
		return nil, err
	}
	for k, count := range b.counts {
		out.Surplus += max(0, b.first[k]-count)
	}
	out.Cost = cost / n
	out.Gap = slack/n + b.slotSlack(out.V)/n
	out.DualBound = out.Cost - out.Gap
	return out, nil
}

// slotSlack returns Σ_k n_k·w_k − min(low_k·w_k, high_k·w_k) for the counts
// n_k and w_k = u_k − s, with the level s that divides the slots.
func (b *balancer) slotSlack(u []float64) (slack float64) {
	var given, kept []float64
	for k, count := range b.counts {
		switch {
		case b.high[k] == b.low[k]:
		case count == b.high[k]:
			given = append(given, u[k])
		default:
			kept = append(kept, u[k])
		}
	}
	if len(given) == 0 || len(kept) == 0 {
		return 0
	}
	// Clusters given a slot have the lower potentials, to rounding.
	level := slices.Max(given)
	for _, uk := range kept {
		slack += max(0, level-uk)
	}
	return slack
}

// hidden bounds the entries that lists leave out: where the best entry of a
// row had the score t when lists were written, any left out of cluster k had
// less than t − Margin[k], and has u_k − ListV[k] more under u.
type hidden struct {
	order []int32   // clusters, the largest rise first
	rise  []float64 // in that order
}

func newHidden(u []float64, o *BalanceOptions) *hidden {
	h := &hidden{order: make([]int32, len(u)), rise: make([]float64, len(u))}
	for k := range u {
		h.order[k] = int32(k)
		h.rise[k] = u[k] - o.ListV[k] - o.Margin[k]
	}
	slices.SortFunc(h.order, func(j, k int32) int {
		return cmp.Or(cmp.Compare(h.rise[k], h.rise[j]), cmp.Compare(j, k))
	})
	slices.SortFunc(h.rise, func(a, b float64) int { return cmp.Compare(b, a) })
	return h
}

// bound returns a score that no cluster missing from a row's list exceeds, if
// it is above top, and otherwise some number that is not. The search ends at
// the row's best cluster when lists were written, if not before.
func (h *hidden) bound(then, top float64, listed []int32) float64 {
	for i := 0; ; i++ {
		score := then + h.rise[i]
		if _, ok := slices.BinarySearch(listed, h.order[i]); score <= top || !ok {
			return score
		}
	}
}
