package clusters

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"

	"sela/sinkhorn"
)

// ErrNoVariance says that all rows are the same: there is nothing to whiten.
var ErrNoVariance = errors.New("all rows have the same features")

// Whitening projects rows on their directions of largest variance and divides
// by the standard deviation there: y = M·(x − mean). It is immutable.
type Whitening struct {
	Components int       // P
	Mean       []float32 // [D]
	Matrix     []float32 // row-major [P·D]: eigenvectors of the covariance over the roots of their eigenvalues, the largest first
	Variance   float64   // the share of all variance in the P directions
}

// flat is the share of the largest variance below which a direction counts as
// having none: divided by its root, rounding errors of float32 would be as large
// as the features themselves.
const flat = 1e-10

// WhitenMemory is the number of bytes that [Engine.Whiten] takes for rows of so
// many columns.
func (e *Engine) WhitenMemory(width int) int64 {
	d, workers := int64(width), int64(e.workers)
	return 8*d*d*(workers+4) + 12*d*sinkhorn.ChunkRows*workers
}

// Whiten finds the whitening of source's rows with the given numbers, ascending,
// to at most so many components: fewer where D or the rank of the covariance is
// less. It reads the rows twice and holds workers + 4 matrices [D·D] of float64.
// Errors are [*RowError] or [ErrNoVariance], or come from the source.
func (e *Engine) Whiten(ctx context.Context, source sinkhorn.Source, numbers []int64, components int) (*Whitening, error) {
	m := &moments{source: source, numbers: numbers, starts: starts(numbers, source.Chunks()), workers: e.workers}
	_, m.width = source.Dims()
	mean, err := m.mean(ctx)
	if err != nil {
		return nil, err
	}
	covariance, err := m.covariance(ctx, mean)
	if err != nil {
		return nil, err
	}
	return whitening(mean, covariance, components)
}

// whitening turns the mean and the upper triangle of the covariance into the
// projection.
func whitening(mean []float64, covariance blas64.Symmetric, components int) (*Whitening, error) {
	d := len(mean)
	var eigen mat.EigenSym
	if !eigen.Factorize(mat.NewSymDense(d, covariance.Data), true) {
		return nil, fmt.Errorf("whiten: the eigenvalues of the covariance were not found")
	}
	values := eigen.Values(nil) // ascending
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	total := 0.0
	for _, v := range values {
		total += max(v, 0)
	}
	w := &Whitening{Mean: make([]float32, d)}
	for j, v := range mean {
		w.Mean[j] = float32(v)
	}
	largest := values[d-1]
	if !(largest > 0) {
		return nil, ErrNoVariance
	}
	for c := d - 1; c >= 0 && w.Components < components && values[c] > flat*largest; c-- {
		scale := 1 / math.Sqrt(values[c])
		for j := range d {
			w.Matrix = append(w.Matrix, float32(scale*vectors.At(j, c)))
		}
		w.Components++
		w.Variance = min(w.Variance+values[c]/total, 1)
	}
	return w, nil
}

// centre subtracts the mean from rows.
func (w *Whitening) centre(x []float32) {
	for ; len(x) > 0; x = x[len(w.Mean):] {
		for j, m := range w.Mean {
			x[j] -= m
		}
	}
}

// moments sums over rows, chunk by chunk: chunks side by side, their sums in
// order.
type moments struct {
	source  sinkhorn.Source
	numbers []int64
	starts  []int
	width   int
	workers int
}

// sum adds up what do leaves in a slice of n numbers for each chunk.
func (m *moments) sum(ctx context.Context, n int, do func(numbers []int64, x []float32, scratch, part []float64) error) ([]float64, error) {
	type state struct {
		block   sinkhorn.Block
		x       []float32
		scratch []float64
		part    []float64
	}
	states := make([]state, m.workers)
	for i := range states {
		states[i] = state{x: make([]float32, sinkhorn.ChunkRows*m.width), scratch: make([]float64, sinkhorn.ChunkRows*m.width), part: make([]float64, n)}
	}
	total := make([]float64, n)
	chunks := m.source.Chunks()
	for from := 0; from < chunks; from += m.workers {
		to := min(from+m.workers, chunks)
		err := parallel(ctx, m.workers, from, to, func(ctx context.Context, _, chunk int) error {
			s := &states[chunk-from]
			numbers := m.numbers[m.starts[chunk]:m.starts[chunk+1]]
			clear(s.part)
			if err := gather(ctx, m.source, chunk, &s.block, numbers, s.x); err != nil {
				return err
			}
			size := len(numbers) * m.width
			return do(numbers, s.x[:size], s.scratch[:size], s.part)
		})
		if err != nil {
			return nil, err
		}
		for i := range to - from {
			for j, v := range states[i].part {
				total[j] += v
			}
		}
	}
	return total, nil
}

// mean returns that of each column.
func (m *moments) mean(ctx context.Context) ([]float64, error) {
	mean, err := m.sum(ctx, m.width, func(numbers []int64, x []float32, _, part []float64) error {
		for i, number := range numbers {
			all := 0.0
			for j, v := range x[i*m.width : (i+1)*m.width] {
				part[j] += float64(v)
				all += float64(v)
			}
			if math.IsNaN(all) || math.IsInf(all, 0) {
				return &RowError{number}
			}
		}
		return nil
	})
	for j := range mean {
		mean[j] /= float64(len(m.numbers))
	}
	return mean, err
}

// covariance returns the upper triangle of that of the columns, with divisor
// N − 1.
func (m *moments) covariance(ctx context.Context, mean []float64) (blas64.Symmetric, error) {
	d := m.width
	sums, err := m.sum(ctx, d*d, func(numbers []int64, x []float32, scratch, part []float64) error {
		if len(numbers) == 0 {
			return nil
		}
		for i := range numbers {
			for j, v := range x[i*d : (i+1)*d] {
				scratch[i*d+j] = float64(v) - mean[j]
			}
		}
		rows := blas64.General{Rows: len(numbers), Cols: d, Stride: d, Data: scratch}
		blas64.Syrk(blas.Trans, 1, rows, 0, blas64.Symmetric{Uplo: blas.Upper, N: d, Stride: d, Data: part})
		return nil
	})
	for j := range sums {
		sums[j] /= float64(max(len(m.numbers)-1, 1))
	}
	return blas64.Symmetric{Uplo: blas.Upper, N: d, Stride: d, Data: sums}, err
}
