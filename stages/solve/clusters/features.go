package clusters

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sela/sinkhorn"
)

// ErrTooFewRows says that there are fewer rows than clusters.
var ErrTooFewRows = errors.New("fewer rows than clusters")

// ErrMemory says that memory does not suffice for so many clusters of so many
// columns, however rows are read.
var ErrMemory = errors.New("not enough memory for the clusters")

// RowError is about a row whose features are unusable.
type RowError struct {
	Row int64 // its number
}

// Error implements error.
func (e *RowError) Error() string {
	return fmt.Sprintf("row %d: a feature is NaN or infinite", e.Row)
}

// Features are the rows that are clustered: those of a source, whitened or not,
// each divided by its length. A row of zeros stays as it is. They serve one call
// at a time.
type Features struct {
	engine  *Engine
	source  sinkhorn.Source
	white   *Whitening // nil: rows as they are
	width   int
	numbers []int64
	starts  []int       // of each chunk's rows among all, then the end
	held    []float32   // all rows; nil where they are read for each pass
	window  [][]float32 // else: those of some chunks
	readers []*reader   // one for each worker
}

// reader is what a worker reads rows with.
type reader struct {
	block   sinkhorn.Block
	project *product // nil where rows are not whitened
}

// Options say how features are held.
type Options struct {
	// Whitening is applied to the rows first; nil is none.
	Whitening *Whitening
	// Memory bounds the bytes of what rows are held in. Rows that do not fit
	// are read again in each pass, for the same result.
	Memory int64
}

// windowChunks is the number of chunks that a worker reads between two sums
// where rows are not held.
const windowChunks = 2

// Open prepares the rows of source, whose X are features, for [Features.KMeans].
// numbers are the row numbers of all its rows, ascending; they stay the
// caller's, who changes neither them nor the source before Close. Errors are
// [*RowError], or come from the source or the engine.
func Open(ctx context.Context, e *Engine, source sinkhorn.Source, numbers []int64, o Options) (_ *Features, err error) {
	rows, width := source.Dims()
	if rows != int64(len(numbers)) {
		return nil, fmt.Errorf("%w: it has %d rows, %d are numbered", sinkhorn.ErrSource, rows, len(numbers))
	}
	f := &Features{engine: e, source: source, white: o.Whitening, width: width, numbers: numbers, starts: starts(numbers, source.Chunks())}
	if f.white != nil {
		f.width = f.white.Components
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for range e.workers {
		r := new(reader)
		f.readers = append(f.readers, r)
		if f.white == nil {
			continue
		}
		if r.project, err = e.product(ctx, width, f.width); err != nil {
			return nil, err
		}
		copy(r.project.w, f.white.Matrix)
	}
	if 4*rows*int64(f.width) <= o.Memory {
		held := make([]float32, rows*int64(f.width))
		err := f.each(ctx, 0, source.Chunks(), func(ctx context.Context, worker, chunk int) error {
			return f.read(ctx, worker, chunk, held[f.starts[chunk]*f.width:f.starts[chunk+1]*f.width])
		})
		f.held = held
		return f, err
	}
	for range windowChunks * e.workers {
		f.window = append(f.window, make([]float32, sinkhorn.ChunkRows*f.width))
	}
	return f, nil
}

// starts returns the index of each chunk's first row, and the end.
func starts(numbers []int64, chunks int) []int {
	all := make([]int, chunks+1)
	for c := range chunks {
		n, _ := slices.BinarySearch(numbers[all[c]:], int64(c+1)*sinkhorn.ChunkRows)
		all[c+1] = all[c] + n
	}
	return all
}

// Close gives the features' memory back.
func (f *Features) Close() error {
	var errs []error
	for _, r := range f.readers {
		if r.project != nil {
			errs = append(errs, r.project.slot.Close())
		}
	}
	f.readers, f.held, f.window = nil, nil, nil
	return errors.Join(errs...)
}

// Held tells whether all rows are in memory.
func (f *Features) Held() bool { return f.held != nil }

// each calls do for the chunks in [from, to), by all workers side by side.
func (f *Features) each(ctx context.Context, from, to int, do func(ctx context.Context, worker, chunk int) error) error {
	return parallel(ctx, f.engine.workers, from, to, do)
}

func parallel(ctx context.Context, workers, from, to int, do func(ctx context.Context, worker, item int) error) error {
	next := atomic.Int64{}
	next.Store(int64(from))
	group, ctx := errgroup.WithContext(ctx)
	for worker := range min(workers, to-from) {
		group.Go(func() error {
			for {
				item := int(next.Add(1)) - 1
				if item >= to {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(ctx, worker, item); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// read puts a chunk's rows, ready for use, into dst, which has their size.
func (f *Features) read(ctx context.Context, worker, chunk int, dst []float32) error {
	r, numbers := f.readers[worker], f.numbers[f.starts[chunk]:f.starts[chunk+1]]
	raw := dst
	if r.project != nil {
		raw = r.project.x
	}
	if err := gather(ctx, f.source, chunk, &r.block, numbers, raw); err != nil {
		return err
	}
	if r.project != nil && len(numbers) > 0 {
		f.white.centre(raw[:len(numbers)*len(f.white.Mean)])
		if err := r.project.run(ctx); err != nil {
			return err
		}
		copy(dst, r.project.y)
	}
	for i, number := range numbers {
		if !normalise(dst[i*f.width : (i+1)*f.width]) {
			return &RowError{number}
		}
	}
	return nil
}

// gather copies a chunk's rows, whose numbers are given, to dst.
func gather(ctx context.Context, source sinkhorn.Source, chunk int, block *sinkhorn.Block, numbers []int64, dst []float32) error {
	err := source.ReadChunk(ctx, chunk, block, func(b *sinkhorn.Block) error {
		if n := len(b.Rows); n > len(numbers) || !slices.Equal(b.Rows, numbers[:n]) {
			return fmt.Errorf("%w: chunk %d has other rows than are numbered", sinkhorn.ErrSource, chunk)
		}
		dst = dst[copy(dst, b.X):]
		numbers = numbers[len(b.Rows):]
		return nil
	})
	if err == nil && len(numbers) > 0 {
		err = fmt.Errorf("%w: chunk %d lacks row %d", sinkhorn.ErrSource, chunk, numbers[0])
	}
	return err
}

// normalise divides x by its length; it returns false if that is not finite.
func normalise(x []float32) bool {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return false
	}
	if sum > 0 {
		scale := 1 / math.Sqrt(sum)
		for j, v := range x {
			x[j] = float32(float64(v) * scale)
		}
	}
	return true
}

// span is rows one after the other: x are those of the indices from first on.
type span struct {
	first int
	x     []float32
}

// sweep calls do for the rows of each chunk, by all workers side by side, and
// between times, on its own, fold with those that were done, in order. What it
// hands out is valid until the call returns.
func (f *Features) sweep(ctx context.Context, do func(ctx context.Context, worker int, s span) error, fold func(s span) error) error {
	chunks := f.source.Chunks()
	step := chunks
	if !f.Held() {
		step = len(f.window)
	}
	for from := 0; from < chunks; from += step {
		to := min(from+step, chunks)
		err := f.each(ctx, from, to, func(ctx context.Context, worker, chunk int) error {
			s := f.span(chunk, from)
			if !f.Held() {
				if err := f.read(ctx, worker, chunk, s.x); err != nil {
					return err
				}
			}
			if len(s.x) == 0 {
				return nil
			}
			return do(ctx, worker, s)
		})
		if err != nil {
			return err
		}
		if fold == nil {
			continue
		}
		// Rows that are held lie side by side: one span for all.
		if f.Held() {
			return fold(span{0, f.held})
		}
		for chunk := from; chunk < to; chunk++ {
			if err := fold(f.span(chunk, from)); err != nil {
				return err
			}
		}
	}
	return nil
}

// span returns the place of a chunk's rows in a window that begins with from.
func (f *Features) span(chunk, from int) span {
	first, end := f.starts[chunk], f.starts[chunk+1]
	if f.Held() {
		return span{first, f.held[first*f.width : end*f.width]}
	}
	return span{first, f.window[chunk-from][:(end-first)*f.width]}
}

// row copies the row of an index to dst.
func (f *Features) row(ctx context.Context, index int, dst []float32) error {
	if f.Held() {
		copy(dst, f.held[index*f.width:])
		return nil
	}
	chunk := int(f.numbers[index] / sinkhorn.ChunkRows)
	s := f.span(chunk, chunk)
	if err := f.read(ctx, 0, chunk, s.x); err != nil {
		return err
	}
	copy(dst, s.x[(index-s.first)*f.width:])
	return nil
}
