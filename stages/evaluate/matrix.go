package evaluate

import (
	"context"
	"math"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Matrix is the features of images: row i is Data[i·Dim : (i+1)·Dim].
type Matrix struct {
	Rows, Dim int
	Data      []float32
}

// Row returns the i-th row, which is the matrix's own memory.
func (m *Matrix) Row(i int) []float32 { return m.Data[i*m.Dim : (i+1)*m.Dim] }

// norms returns the Euclidean norms of the rows.
func (m *Matrix) norms() []float64 {
	all := make([]float64, m.Rows)
	for i := range all {
		row := m.Row(i)
		all[i] = math.Sqrt(dot(row, row))
	}
	return all
}

// dot is the product of two vectors in float64, summed in an order of its own:
// four partial sums, the same for every caller.
func dot(a, b []float32) float64 {
	var s0, s1, s2, s3 float64
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// Standardise gives every column of train mean 0 and standard deviation 1, in
// place, and does the same, with train's statistics, to the others. The
// deviation is the population's, Σ(x−μ)²/n; a column that is constant in train
// is only centred. Statistics are float64, values are rounded to float32 once.
func Standardise(train *Matrix, others ...*Matrix) {
	mean, scale := train.statistics()
	for _, m := range append([]*Matrix{train}, others...) {
		_ = share(context.Background(), m.Rows, func(_ context.Context, _, _, from, to int) error {
			for i := from; i < to; i++ {
				row := m.Row(i)
				for j, x := range row {
					row[j] = float32((float64(x) - mean[j]) * scale[j])
				}
			}
			return nil
		})
	}
}

// statistics returns the mean of each column and one over its deviation, 1
// where that is 0.
func (m *Matrix) statistics() (mean, scale []float64) {
	mean, scale = make([]float64, m.Dim), make([]float64, m.Dim)
	n := float64(m.Rows)
	// Columns are apart from each other, so that the sums are the same however
	// many share them.
	_ = share(context.Background(), m.Dim, func(_ context.Context, _, _, from, to int) error {
		for i := range m.Rows {
			for j, x := range m.Row(i)[from:to] {
				mean[from+j] += float64(x)
			}
		}
		for j := from; j < to; j++ {
			mean[j] /= n
		}
		for i := range m.Rows {
			for j, x := range m.Row(i)[from:to] {
				d := float64(x) - mean[from+j]
				scale[from+j] += d * d
			}
		}
		for j := from; j < to; j++ {
			// What is left of a constant column is the rounding of its mean.
			if deviation := math.Sqrt(scale[j] / n); deviation > 1e-12*math.Abs(mean[j]) {
				scale[j] = 1 / deviation
			} else {
				scale[j] = 1
			}
		}
		return nil
	})
	return mean, scale
}

// shares is into how many parts work is cut, however many workers take them.
const shares = 16

// share calls do for parts of [0, n), several at once, and returns the first
// error. The parts follow from n alone.
func share(ctx context.Context, n int, do func(ctx context.Context, worker, part, from, to int) error) error {
	parts := min(n, shares)
	return parallel(ctx, parts, func(ctx context.Context, worker, part int) error {
		return do(ctx, worker, part, part*n/parts, (part+1)*n/parts)
	})
}

// parallel calls do for each i in [0, n), one worker for each processor, and
// returns the first error. The worker's number tells what is its own.
func parallel(ctx context.Context, n int, do func(ctx context.Context, worker, i int) error) error {
	var next atomic.Int64
	g, running := errgroup.WithContext(ctx)
	for w := range min(n, workers()) {
		g.Go(func() error {
			for running.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(running, w, i); err != nil {
					return err
				}
			}
			return running.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func workers() int { return runtime.GOMAXPROCS(0) }
