package sinkhorn

import (
	"context"
	"math"

	"sela/sinkhorn/internal/kernel"
)

// partial is what one chunk contributes to a pass. Partials are computed in
// any order and merged in chunk order.
type partial struct {
	rows   int
	lse    float64   // Σ lse_i
	change float64   // Σ |c_i/c'_i − 1|
	mass   []float64 // [K] Σ of shares; 0 for the columns in starved

	// Columns too light for mass, kept as max + log(sum).
	starved  []int32
	max, sum []float64

	// For a certificate.
	labels         []int32 // by row of the chunk
	tied           int64
	margin         float64
	span           float64 // largest range of log p
	minLSE, maxLSE float64
}

func newPartial(clusters int) *partial {
	return &partial{
		mass:    make([]float64, clusters),
		starved: make([]int32, 0, clusters),
		max:     make([]float64, clusters),
		sum:     make([]float64, clusters),
		labels:  make([]int32, 0, ChunkRows),
	}
}

func (p *partial) reset() {
	clear(p.mass)
	*p = partial{
		mass: p.mass, starved: p.starved[:0], max: p.max, sum: p.sum, labels: p.labels[:0],
		margin: math.Inf(1), minLSE: math.Inf(1), maxLSE: math.Inf(-1),
	}
}

// worker holds the buffers of one goroutine of a pass.
type worker struct {
	block   Block
	weights []float64 // [K]
	shift   []float64 // lse_i by row of the chunk
}

// cancelRows is the number of rows between looks at the context.
const cancelRows = 128

// evaluate computes the contribution of w.block under req.
func (w *worker) evaluate(ctx context.Context, req *Request, p *partial) error {
	clusters := len(w.weights)
	p.reset()
	p.rows = len(w.block.Rows)
	w.shift = w.shift[:0]
	for i, row := range w.block.Rows {
		if i%cancelRows == 0 && ctx.Err() != nil {
			return stopped(ctx)
		}
		x := w.block.X[i*clusters : (i+1)*clusters]
		lse, err := 0.0, error(nil)
		if req.V == nil {
			err = checkRow(row, x)
		} else {
			lse, err = w.evaluateRow(req, p, row, x)
		}
		if err != nil {
			return err
		}
		w.shift = append(w.shift, lse)
	}
	if p.rows == 0 {
		return nil
	}
	v := req.V
	if v == nil {
		v = w.weights
		clear(v)
	}
	for k, mass := range p.mass {
		if mass < kernel.StarvedMass {
			p.starved = append(p.starved, int32(k))
			p.mass[k] = 0
		}
	}
	kernel.Columns(p.max[:len(p.starved)], p.sum[:len(p.starved)], p.starved, w.block.X, w.shift, v, req.Lambda)
	return nil
}

// evaluateRow adds one row to p and returns its log-sum-exp.
func (w *worker) evaluateRow(req *Request, p *partial, row int64, x []float32) (lse float64, err error) {
	top, sum := kernel.Row(w.weights, x, req.V, req.Lambda)
	if sum != sum {
		return 0, rowError(row, x)
	}
	kernel.Add(p.mass, w.weights, 1/sum)
	lse = top + kernel.Log(sum)
	p.lse += lse
	if req.Change {
		previous := 0.0
		if req.Previous != nil {
			top, sum := kernel.Row(w.weights, x, req.Previous, req.Lambda)
			previous = top + kernel.Log(sum)
		}
		p.change += math.Abs(kernel.Exp(lse-previous) - 1)
	}
	if req.Certify {
		label, best, second := kernel.Best(x, req.V, req.Lambda)
		low, high := kernel.Range(x)
		p.labels = append(p.labels, int32(label))
		if best == second {
			p.tied++
		}
		p.margin = min(p.margin, best-second)
		p.span = max(p.span, float64(high)-float64(low))
		p.minLSE = min(p.minLSE, lse)
		p.maxLSE = max(p.maxLSE, lse)
	}
	return lse, nil
}

// checkRow refuses a row without a finite log-sum-exp.
func checkRow(row int64, x []float32) error {
	high := float32(math.Inf(-1))
	for _, xk := range x {
		if xk != xk {
			return rowError(row, x)
		}
		if xk > high {
			high = xk
		}
	}
	if math.IsInf(float64(high), 0) {
		return rowError(row, x)
	}
	return nil
}

// totals is the sum of the partials merged so far.
type totals struct {
	partial
	rows   int64
	counts []int64
}

func newTotals(clusters int, certify bool) *totals {
	t := &totals{partial: *newPartial(clusters)}
	t.reset()
	for k := range t.max {
		t.max[k] = math.Inf(-1)
	}
	if certify {
		t.counts = make([]int64, clusters)
	}
	return t
}

// merge adds a chunk's contribution.
func (t *totals) merge(p *partial) {
	t.rows += int64(p.rows)
	t.lse += p.lse
	t.change += p.change
	if p.rows > 0 {
		kernel.Add(t.mass, p.mass, 1)
	}
	for j, k := range p.starved {
		kernel.MergeLogSums(&t.max[k], &t.sum[k], p.max[j], p.sum[j])
	}
	for _, k := range p.labels {
		t.counts[k]++
	}
	t.tied += p.tied
	t.margin = min(t.margin, p.margin)
	t.span = max(t.span, p.span)
	t.minLSE = min(t.minLSE, p.minLSE)
	t.maxLSE = max(t.maxLSE, p.maxLSE)
}

// result turns the sums into means.
func (t *totals) result(req *Request) (*PassResult, error) {
	if t.rows == 0 {
		return nil, ErrNoRows
	}
	n := float64(t.rows)
	r := &PassResult{Rows: t.rows, LogMass: t.mass, MeanLSE: t.lse / n, Change: t.change}
	for k, mass := range t.mass {
		log := kernel.Log(mass)
		if t.sum[k] > 0 {
			log = kernel.LogAdd(log, t.max[k]+kernel.Log(t.sum[k]))
		}
		r.LogMass[k] = log - kernel.Log(n)
	}
	if req.Certify {
		r.Counts, r.TiedRows, r.MinMargin = t.counts, t.tied, t.margin
		r.MaxRange = req.Lambda * t.span
		r.MinLSE, r.MaxLSE = t.minLSE, t.maxLSE
	}
	return r, nil
}
