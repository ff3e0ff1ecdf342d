package sinkhorn

import (
	"math"

	"sela/sinkhorn/internal/kernel"
)

// partial is what one chunk contributes to a pass. Partials are computed in
// any order and merged in chunk order.
type partial struct {
	rows   int
	lse    float64   // Σ lse_i
	change float64   // Σ |c_i/c'_i − 1|
	mass   []float64 // [K] Σ of shares

	// Column sums in log domain, max + log(sum), of all columns or of the
	// starved ones; of length 0 until opened.
	max, sum []float64

	// For a certificate.
	labels         []int32 // by row of the chunk
	tied, changed  int64
	margin         float64
	span           float64 // largest range of log p
	minLSE, maxLSE float64

	// For lists.
	list    ListChunk
	dropped []float64 // [K]
}

func newPartial(clusters int) *partial {
	return &partial{
		mass:   make([]float64, clusters),
		labels: make([]int32, 0, ChunkRows),
	}
}

func (p *partial) reset() {
	clear(p.mass)
	clear(p.dropped)
	p.list.empty()
	*p = partial{
		mass: p.mass, max: p.max[:0], sum: p.sum[:0], labels: p.labels[:0], list: p.list, dropped: p.dropped,
		margin: math.Inf(1), minLSE: math.Inf(1), maxLSE: math.Inf(-1),
	}
}

// openLogSums starts n column sums in log domain, unless that has been done.
func (p *partial) openLogSums(n int) {
	if len(p.max) == n {
		return
	}
	if cap(p.max) < n {
		p.max, p.sum = make([]float64, n), make([]float64, n)
	}
	p.max, p.sum = p.max[:n], p.sum[:n]
	for k := range p.max {
		p.max[k], p.sum[k] = math.Inf(-1), 0
	}
}

// certify adds what the kernel found for row r.
func (p *partial) certify(rows *kernel.Rows, r int, lse float64) {
	p.labels = append(p.labels, rows.Best[r])
	if rows.Max[r] == rows.Second[r] {
		p.tied++
	}
	p.margin = min(p.margin, rows.Max[r]-rows.Second[r])
	p.span = max(p.span, float64(rows.High[r])-float64(rows.Low[r]))
	p.minLSE = min(p.minLSE, lse)
	p.maxLSE = max(p.maxLSE, lse)
}

// totals is the sum of the partials merged so far.
type totals struct {
	partial
	rows   int64
	counts []int64
}

func newTotals(clusters int, req *Request) *totals {
	t := &totals{partial: *newPartial(clusters)}
	t.reset()
	if req.V == nil {
		t.openLogSums(clusters)
	}
	if req.Certify {
		t.counts = make([]int64, clusters)
	}
	if req.Lists != nil {
		t.dropped = make([]float64, clusters)
	}
	return t
}

// merge adds a chunk's contribution.
func (t *totals) merge(p *partial) error {
	t.rows += int64(p.rows)
	t.lse += p.lse
	t.change += p.change
	for _, k := range p.labels {
		t.counts[k]++
	}
	t.tied += p.tied
	t.changed += p.changed
	t.margin = min(t.margin, p.margin)
	t.span = max(t.span, p.span)
	t.minLSE = min(t.minLSE, p.minLSE)
	t.maxLSE = max(t.maxLSE, p.maxLSE)
	if p.rows == 0 {
		return nil
	}
	add(t.mass, p.mass)
	if t.dropped != nil {
		add(t.dropped, p.dropped)
	}
	return t.mergeLogSums(p)
}

func (t *totals) mergeLogSums(p *partial) error {
	for j := range p.max {
		kernel.MergeLogSums(&t.max[j], &t.sum[j], p.max[j], p.sum[j])
	}
	return nil
}

// add adds a to sum, element by element.
func add(sum, a []float64) {
	a = a[:len(sum)]
	for k := range sum {
		sum[k] += a[k]
	}
}

// starved returns the columns whose mass is to be summed again in log domain.
func (t *totals) starved(req *Request) (columns []int32) {
	if req.V == nil || !req.LogMass {
		return nil
	}
	for k, mass := range t.mass {
		if mass < StarvedShare*float64(t.rows) {
			columns = append(columns, int32(k))
		}
	}
	return columns
}

// result turns the sums into means.
func (t *totals) result(req *Request, starved []int32) (*PassResult, error) {
	if t.rows == 0 {
		return nil, ErrNoRows
	}
	n := float64(t.rows)
	r := &PassResult{Rows: t.rows, LogMass: t.mass, MeanLSE: t.lse / n, Change: t.change, Dropped: t.dropped}
	if req.V == nil {
		for k := range t.max {
			r.LogMass[k] = t.max[k] + kernel.Log(t.sum[k]) - kernel.Log(n)
		}
		return r, nil
	}
	for k, mass := range t.mass {
		r.LogMass[k] = kernel.Log(mass) - kernel.Log(n)
	}
	for j, k := range starved {
		r.LogMass[k] = t.max[j] + kernel.Log(t.sum[j]) - kernel.Log(n)
	}
	for k := range r.Dropped {
		r.Dropped[k] /= n
	}
	if req.Certify {
		r.Counts, r.TiedRows, r.Changed, r.MinMargin = t.counts, t.tied, t.changed, t.margin
		r.MaxRange = req.Lambda * t.span
		r.MinLSE, r.MaxLSE = t.minLSE, t.maxLSE
	}
	return r, nil
}
