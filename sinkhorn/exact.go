package sinkhorn

import (
	"context"
	"errors"
	"fmt"
)

// Constants of the lists that a labelling with exact counts is found on.
const (
	exactMargin     = listMargin / 2 // nats of x; most rows list their few rivals
	exactLeast      = 1.0            // below it lists of flat rows say too little
	exactWiden      = 3.0            // for clusters that rows found no place in
	exactWidenTimes = 8
)

// Exact labels every row such that cluster k has ⌊b_k·N⌋ or ⌈b_k·N⌉ rows, as
// Balance does, on lists that it takes from ev under the potentials v, a
// solve's. Clusters for which rows find no place on their lists get wider
// margins and another pass, rows too flat for the memory narrower ones. It
// returns the labels, the rows' numbers in the same order, 12 bytes a row
// together, and the number of passes.
func Exact(ctx context.Context, ev Lister, v []float64, o Options) (b *Balanced, rows []int64, passes int, err error) {
	o = o.WithDefaults()
	margin := make([]float64, len(v))
	for k := range margin {
		margin[k] = exactMargin
	}
	lists := NewLists(o.Memory, o.Spill)
	for widened := 0; ; {
		_, err := ev.Pass(ctx, Request{Lambda: o.Lambda, V: v, Lists: &ListRequest{Margin: margin, Into: lists}})
		passes++
		if errors.Is(err, ErrListsFull) && margin[0]/2 >= exactLeast && widened == 0 {
			for k := range margin {
				margin[k] /= 2
			}
			continue
		}
		if err != nil {
			return nil, nil, passes, err
		}
		b, err = Balance(ctx, lists, v, BalanceOptions{Lambda: o.Lambda, Marginals: o.Marginals, ListV: v, Margin: margin})
		var short *UnplacedError
		if errors.As(err, &short) && widened < exactWidenTimes {
			widened++
			for _, k := range short.Clusters {
				margin[k] *= exactWiden
			}
			continue
		}
		if err != nil {
			return nil, nil, passes, err
		}
		rows, err = lists.rowNumbers()
		return b, rows, passes, err
	}
}

// rowNumbers returns the numbers of all rows, ascending.
func (l *Lists) rowNumbers() ([]int64, error) {
	rows := make([]int64, 0, l.rows)
	var buf ListBuffer
	for i := range l.chunks {
		c, err := l.Chunk(i, &buf)
		if err != nil {
			return nil, err
		}
		rows = append(rows, c.Rows...)
	}
	return rows, nil
}

// Exactly states what labels with exact counts cost, in a certificate.
type Exactly struct {
	// Cost is mean_i −x_{i,label} in nats; no labelling with these counts
	// costs less than DualBound, and Gap is the difference. Rivals is the
	// number of rows of which an entry outside their list might have been the
	// best: 0 means that the labels are the optimum of all entries.
	Cost      float64 `json:"cost_nats"`
	DualBound float64 `json:"dual_bound_nats"`
	Gap       float64 `json:"gap_nats"`
	Rivals    int64   `json:"rivals"`

	Moved  int64 `json:"moved_rows"` // rows whose label is not the one under the solve's potentials
	Passes int   `json:"passes"`     // full passes beyond the solve's
}

// WithExact returns the certificate of the labels in b, whose counts it states.
// What it says of shares and of F stays that of the solve's potentials, from
// which Exact started.
func (c Certificate) WithExact(b *Balanced, marginals []float64, passes int) Certificate {
	c.Exactly = &Exactly{Cost: b.Cost, DualBound: b.DualBound, Gap: b.Gap, Rivals: b.Unproved, Moved: b.Moved, Passes: passes}
	c.Warnings = nil
	c.HardGap, c.HardGapOverLambda = b.Gap, b.Gap/c.Lambda
	c.count(b.Counts, func(k int) float64 {
		if marginals == nil {
			return 1 / float64(len(b.Counts))
		}
		return marginals[k]
	})
	if c.EmptyClusters > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d of %d clusters have no row", c.EmptyClusters, c.Clusters))
	}
	return c
}
