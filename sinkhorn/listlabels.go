package sinkhorn

import (
	"context"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// listLabels is what a certificate states of the rows of a group of chunks,
// found on their lists.
type listLabels struct {
	counts         []int64
	tied, changed  int64
	margin         float64
	minLSE, maxLSE float64
}

func (l *listLabels) reset(clusters int) {
	if cap(l.counts) < clusters {
		l.counts = make([]int64, clusters)
	}
	clear(l.counts)
	*l = listLabels{counts: l.counts[:clusters], margin: math.Inf(1), minLSE: math.Inf(1), maxLSE: math.Inf(-1)}
}

func (l *listLabels) merge(o *listLabels) {
	for k, n := range o.counts {
		l.counts[k] += n
	}
	l.tied += o.tied
	l.changed += o.changed
	l.margin = min(l.margin, o.margin)
	l.minLSE, l.maxLSE = min(l.minLSE, o.minLSE), max(l.maxLSE, o.maxLSE)
}

// certify evaluates potentials v on the lists as a full pass would on all
// entries, labels included; changed rows are those whose best entry is another
// than under previous. maxRange is a fact of the rows, known from a full pass.
func (p *listProblem) certify(ctx context.Context, v, previous []float64, maxRange float64) (*PassResult, error) {
	copy(p.v, v)
	r := &PassResult{Rows: p.lists.rows, LogMass: make([]float64, len(v)), MaxRange: maxRange}
	var all listLabels
	all.reset(len(v))
	lse := 0.0
	err := p.each(ctx, func(w *listWorker, i int, c *ListChunk, part *listPartial) {
		weights := p.room(w, i, c)
		first := int32(0)
		for _, end := range c.End {
			row, shares := p.row(w, c, first, end, weights)
			part.lse += row
			for e, k := range c.Cluster[first:end] {
				part.mass[k] += shares[e]
			}
			part.labels.row(c.X[first:end], c.Cluster[first:end], v, previous, p.lambda, row)
			first = end
		}
	}, func(part *listPartial) {
		lse += part.lse
		add(r.LogMass, part.mass)
		all.merge(&part.labels)
	})
	if err != nil {
		return nil, err
	}
	r.MeanLSE = lse / p.rows
	for k, mass := range r.LogMass {
		r.LogMass[k] = kernel.Log(mass / p.rows)
	}
	r.Counts, r.TiedRows, r.MinMargin, r.Changed = all.counts, all.tied, all.margin, all.changed
	r.MinLSE, r.MaxLSE = all.minLSE, all.maxLSE
	return r, nil
}

// row adds a row's label.
func (l *listLabels) row(x []float32, clusters []int32, v, previous []float64, lambda, lse float64) {
	label, best, second := bestEntry(x, clusters, v, lambda)
	l.counts[label]++
	if best == second {
		l.tied++
	}
	if before, _, _ := bestEntry(x, clusters, previous, lambda); before != label {
		l.changed++
	}
	l.margin = min(l.margin, best-second)
	l.minLSE, l.maxLSE = min(l.minLSE, lse), max(l.maxLSE, lse)
}

// bestEntry returns the lowest column with the largest score, that score and
// the largest other one, −Inf beyond kernel.Cutoff.
func bestEntry(x []float32, clusters []int32, v []float64, lambda float64) (label int32, best, second float64) {
	label, best, second = -1, math.Inf(-1), math.Inf(-1)
	for e, k := range clusters {
		t := kernel.Score(x[e], v[k], lambda)
		if t > best {
			label, best, second = k, t, best
		} else {
			second = max(second, t)
		}
	}
	if best-second > kernel.Cutoff { // as in a full pass
		second = math.Inf(-1)
	}
	return label, best, second
}
