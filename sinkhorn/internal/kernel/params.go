package kernel

import "math"

// Params are what the rows of a pass share. They are read-only after
// NewParams and safe for concurrent use.
type Params struct {
	lambda   float64
	clusters int
	v        []float64 // padded with zeros to whole groups

	// For the screen.
	v32      []float32 // v rounded, padded with zeros to whole tiles
	largest  float64   // max |v_k|
	screened bool      // false: no float32 bound holds, every row is evaluated by row
}

// NewParams returns the parameters of scores λ·x_k + v_k. It copies v, which
// has one entry per cluster and is not empty.
func NewParams(lambda float64, v []float64) *Params {
	p := &Params{
		lambda:   lambda,
		clusters: len(v),
		v:        make([]float64, ceil(len(v), Lanes)),
		v32:      make([]float32, ceil(len(v), tileColumns)),
	}
	copy(p.v, v)
	for k, vk := range v {
		p.v32[k] = float32(vk)
		if a := math.Abs(vk); !(a <= p.largest) {
			p.largest = a // NaN stays, as no comparison with it holds
		}
	}
	p.screened = lambda >= 1/screenLimit && lambda <= screenLimit && p.largest <= screenLimit
	return p
}

// Rows is what Block wrote for the rows of a block. The caller owns it and
// may reuse it; n is the number of rows.
type Rows struct {
	Max []float64 // [n] largest score of the row
	Sum []float64 // [n] Σ_k e^(t_k − max) over the entries within Cutoff of it, in lane order: 1 ≤ sum ≤ K
	// Best and Second are [n] or nil, both or neither: the lowest column with
	// the largest score, and the largest score among the other columns, −Inf
	// where none lies within Cutoff of the best.
	Best   []int32
	Second []float64
	// Low and High are [n] or nil, both or neither: the smallest and the
	// largest x of the row.
	Low, High []float32
}

// List collects entries of rows.
type List struct {
	Margin  []float64 // [K], positive, may exceed Cutoff: how far below the best an entry is listed
	End     []int32   // appended to, one per row: end of the row's entries in Cluster and X
	Cluster []int32   // appended to, ascending within a row
	X       []float32 // appended to
	Dropped []float64 // [K], added to: shares of the entries within Cutoff of the best that are not listed
}

// Scratch holds the buffers of one goroutine.
type Scratch struct {
	weights []float64 // portable: [K]; twins: the groups that take part, one after the other
	groups  []int32   // their numbers
	hits    []int32   // tiles that may hold such a group
	listed  []uint8   // by group, a bit per lane
	tiles   []float32 // float32 scores, the largest of each lane of a tile
	reach   []float32 // by column: max(Cutoff, Margin)
	bounds  []float32 // the largest reach of each lane of a tile
}

// NewScratch returns buffers for rows of the given number of clusters.
func NewScratch(clusters int) *Scratch {
	groups, tiles := ceil(clusters, Lanes)/Lanes, ceil(clusters, tileColumns)/tileColumns
	return &Scratch{
		weights: make([]float64, groups*Lanes),
		groups:  make([]int32, groups+Lanes), // a twin writes Lanes numbers at once
		hits:    make([]int32, tiles),
		listed:  make([]uint8, groups),
		tiles:   make([]float32, tiles*tileLanes),
		reach:   make([]float32, tiles*tileColumns),
		bounds:  make([]float32, tiles*tileLanes),
	}
}

// Block evaluates the n = len(r.Max) rows of x, row-major [n·K], under the
// scores t_k = λ·x_k + v_k and fills r. Unless mass is nil, each row's shares
// w_k/sum with w_k = e^(t_k − max) are added to mass [K] (not −0), row after
// row, as w_k·(1/sum). Entries of x may be −Inf.
//
// It returns the index of the first row that has no sums (a NaN, a +Inf,
// nothing but −Inf, or an overflow), or −1. That row has Sum NaN and adds
// nothing, rows after it are not evaluated.
func (p *Params) Block(s *Scratch, r *Rows, mass []float64, x []float32) (bad int) {
	return p.BlockLists(s, r, mass, x, nil)
}

// BlockLists is Block that also appends to l, unless it is nil, each row's
// entries with t_k − max ≥ −Margin[k]; the best one is always among them. It
// allocates only where l's slices are too small.
func (p *Params) BlockLists(s *Scratch, r *Rows, mass []float64, x []float32, l *List) (bad int) {
	n := p.check(s, r, mass, x, l)
	for i := 0; i < n; i++ {
		if p.screened {
			i = active.block(p, s, r, i, mass, x, l)
		}
		if i < n && !p.row(s, r, i, mass, x[i*p.clusters:(i+1)*p.clusters], l) {
			return i
		}
	}
	return -1
}

// check panics where a slice is too short, for a twin would not, and returns
// the number of rows.
func (p *Params) check(s *Scratch, r *Rows, mass []float64, x []float32, l *List) int {
	n := len(r.Max)
	_, _, _ = x[:n*p.clusters], r.Sum[:n], s.weights[:len(p.v)]
	if r.Best != nil {
		_, _ = r.Best[:n], r.Second[:n]
	}
	if r.Low != nil {
		_, _ = r.Low[:n], r.High[:n]
	}
	if mass != nil {
		_ = mass[:p.clusters]
	}
	if l != nil {
		_, _ = l.Margin[:p.clusters], l.Dropped[:p.clusters]
	}
	return n
}

// ceil returns n rounded up to a multiple of unit.
func ceil(n, unit int) int { return (n + unit - 1) / unit * unit }
