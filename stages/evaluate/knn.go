package evaluate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sela/stages/internal/ort"
)

// Neighbours are the nearest rows of a bank to each query, the nearest first.
type Neighbours struct {
	K       int       // of each query
	Rows    []int32   // [queries, K], of the bank
	Cosines []float64 // [queries, K], descending
}

// queryRows is how many queries go through the bank together.
const queryRows = 512

// Nearest finds the k rows of the bank with the largest cosines to each query;
// of equal cosines the lower row is the nearer. A row of zeros has cosine 0 to
// all. Where the bank has fewer rows, K is their number.
//
// Cosines are float64, of features in float32. Products in float32, whose error
// is bounded, only say which rows need them: the result is that of computing all
// in float64, and the same for any number of processors. Memory is some 20 MiB
// for each of these. It tells done of queries that are finished.
func (e *Engine) Nearest(ctx context.Context, bank, queries *Matrix, k int, done func(queries int)) (_ *Neighbours, err error) {
	if k < 1 || bank.Rows < 1 || bank.Dim != queries.Dim {
		return nil, fmt.Errorf("nearest neighbours: %d of %d×%d for queries of %d features: want at least one of each and equal widths", k, bank.Rows, bank.Dim, queries.Dim)
	}
	s := &search{bank: bank, queries: queries, norms: bank.norms(), block: blockRows(bank.Dim), session: e.products, done: done}
	s.found = &Neighbours{K: min(k, bank.Rows)}
	s.found.Rows, s.found.Cosines = make([]int32, queries.Rows*s.found.K), make([]float64, queries.Rows*s.found.K)
	blocks := (queries.Rows + queryRows - 1) / queryRows
	dim := int64(bank.Dim)
	all, err := slots(ctx, e.products, min(blocks, workers()), []int64{queryRows, dim}, []int64{int64(s.block), dim})
	if err != nil {
		return nil, fmt.Errorf("nearest neighbours: %w", err)
	}
	defer func() { err = errors.Join(err, closeSlots(all)) }()
	shortlists := make([][]shortlist, len(all))
	for w := range shortlists {
		shortlists[w] = make([]shortlist, queryRows)
	}
	err = parallel(ctx, blocks, func(ctx context.Context, worker, block int) error {
		return s.run(ctx, all[worker], shortlists[worker], block)
	})
	if err != nil {
		return nil, fmt.Errorf("nearest neighbours: %w", err)
	}
	return s.found, nil
}

// search is one call of Nearest.
type search struct {
	bank, queries *Matrix
	norms         []float64 // of the bank's rows
	block         int       // rows of the bank at a time
	session       *ort.Session
	found         *Neighbours
	done          func(int)
}

// run finds the neighbours of a block of queries.
func (s *search) run(ctx context.Context, slot *ort.Slot, lists []shortlist, block int) error {
	from := block * queryRows
	to := min(from+queryRows, s.queries.Rows)
	a, b, c := slot.Inputs[0].Float32(), slot.Inputs[1].Float32(), slot.Outputs[0].Float32()
	norms := make([]float64, to-from)
	for i := range norms {
		row := s.queries.Row(from + i)
		norms[i] = math.Sqrt(dot(row, row))
		scaled(a[i*s.bank.Dim:], row, norms[i])
		lists[i].reset(s.found.K, margin(s.bank.Dim))
	}
	for first := 0; first < s.bank.Rows; first += s.block {
		rows := min(s.block, s.bank.Rows-first)
		for i := range rows {
			scaled(b[i*s.bank.Dim:], s.bank.Row(first+i), s.norms[first+i])
		}
		if err := s.session.Run(ctx, slot); err != nil {
			return err
		}
		for i := range norms {
			lists[i].offer(c[i*s.block:i*s.block+rows], int32(first))
		}
	}
	for i := range norms {
		s.settle(from+i, norms[i], &lists[i])
	}
	if s.done != nil {
		s.done(to - from)
	}
	return nil
}

// scaled writes row/norm, or zeros, to the beginning of dst.
func scaled(dst, row []float32, norm float64) {
	inverse := 0.0
	if norm > 0 {
		inverse = 1 / norm
	}
	dst = dst[:len(row)]
	for j, x := range row {
		dst[j] = float32(float64(x) * inverse)
	}
}

// settle ranks a query's shortlist by cosines in float64.
func (s *search) settle(query int, norm float64, l *shortlist) {
	l.cut()
	row := s.queries.Row(query)
	ranked := make([]neighbour, len(l.all))
	for i, c := range l.all {
		cosine := 0.0
		if product := norm * s.norms[c.row]; product > 0 {
			cosine = dot(row, s.bank.Row(int(c.row))) / product
		}
		ranked[i] = neighbour{c.row, cosine}
	}
	slices.SortFunc(ranked, func(a, b neighbour) int { return cmp.Or(cmp.Compare(b.cosine, a.cosine), cmp.Compare(a.row, b.row)) })
	k := s.found.K
	for i, n := range ranked[:k] {
		s.found.Rows[query*k+i], s.found.Cosines[query*k+i] = n.row, n.cosine
	}
}

type neighbour struct {
	row    int32
	cosine float64
}

// margin bounds how far two cosines of float32 products can lie from their order
// in float64, twice the error of one: the sum of D products in any order is off
// by D·u·Σ|ab| at most, u = 2⁻²⁴ (N. J. Higham, "Accuracy and Stability of
// Numerical Algorithms", 2nd edition, section 3.1), scaling by two roundings
// more, and Σ|ab| ≤ 1 for rows of norm 1.
func margin(dim int) float32 {
	n := float64(dim+8) * 0x1p-24
	return float32(2 * n / (1 - n))
}

// shortlist holds the rows that may be among the k nearest to a query: those
// whose product is within the margin of the k-th largest so far.
type shortlist struct {
	k         int
	margin    float32
	threshold float32 // what a product must reach
	limit     int     // length at which it is cut
	all       []candidate
	scratch   []float32
}

type candidate struct {
	product float32
	row     int32
}

func (l *shortlist) reset(k int, margin float32) {
	l.k, l.margin, l.threshold, l.limit, l.all = k, margin, float32(math.Inf(-1)), max(8*k, 1024), l.all[:0]
}

// offer takes the products of the rows from first on.
func (l *shortlist) offer(products []float32, first int32) {
	for i, p := range products {
		if p >= l.threshold {
			l.all = append(l.all, candidate{p, first + int32(i)})
			if len(l.all) >= l.limit {
				l.cut()
				// Where many are all but equal, they stay.
				l.limit = max(l.limit, 2*len(l.all))
			}
		}
	}
}

// cut raises the threshold and drops what is below it.
func (l *shortlist) cut() {
	if len(l.all) <= l.k {
		return
	}
	l.scratch = l.scratch[:0]
	for _, c := range l.all {
		l.scratch = append(l.scratch, c.product)
	}
	l.threshold = largest(l.scratch, l.k) - l.margin
	l.all = slices.DeleteFunc(l.all, func(c candidate) bool { return c.product < l.threshold })
}

// largest returns the k-th largest of v, k from 1, which it reorders (C. A. R.
// Hoare, "Algorithm 65: Find", 1961).
func largest(v []float32, k int) float32 {
	lo, hi, want := 0, len(v)-1, k-1
	for lo < hi {
		pivot, i, j := v[lo+(hi-lo)/2], lo, hi
		for i <= j {
			for v[i] > pivot {
				i++
			}
			for v[j] < pivot {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i++
				j--
			}
		}
		switch {
		case want <= j:
			hi = j
		case want >= i:
			lo = i
		default:
			return v[want]
		}
	}
	return v[want]
}

// Vote classifies each query by its first k neighbours, whose classes are
// labels[row] in [0, classes): the class with the largest sum of exp(cos/σ)
// (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
// Discrimination", section 3.4), of equal ones the lower.
func (n *Neighbours) Vote(labels []int32, classes, k int, sigma float64) []int32 {
	k = min(k, n.K)
	votes := make([]float64, classes)
	chosen := make([]int32, len(n.Rows)/n.K)
	for q := range chosen {
		clear(votes)
		for i := q * n.K; i < q*n.K+k; i++ {
			votes[labels[n.Rows[i]]] += math.Exp(n.Cosines[i] / sigma)
		}
		for class, v := range votes {
			if v > votes[chosen[q]] {
				chosen[q] = int32(class)
			}
		}
	}
	return chosen
}

// Accuracy is the share of predictions that are right.
func Accuracy(predicted, truth []int32) float64 {
	right := 0
	for i, p := range predicted {
		if p == truth[i] {
			right++
		}
	}
	return float64(right) / float64(len(truth))
}
