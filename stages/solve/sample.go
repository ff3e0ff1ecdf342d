package solve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
)

// ErrNoSample says that a run has no sample of a head, or that the wanted part
// of it has no rows. Whoever wants one to start from can do without.
var ErrNoSample = errors.New("no sample")

// Sample is a head's sample: rows drawn by the hashes of their images' keys,
// always in float32. It is safe for concurrent use.
type Sample struct {
	source  *Source
	numbers []int64      // of all rows, ascending
	left    atomic.Int64 // of the budget, in bytes
}

// OpenSample fetches and checks a head's sample. Its parts are held in memory as
// long as they fit into budget bytes together, and are read from disk again and
// again beyond that. The row numbers, 8 bytes each, are held in any case.
func OpenSample(ctx context.Context, run *pipeline.Run, shards *extract.Shards, head int, budget int64) (*Sample, error) {
	files, err := shards.Sample(head)
	if err != nil {
		return nil, fmt.Errorf("head %d: %w: %w", head, ErrNoSample, err)
	}
	open := maxOpen
	if !run.Work.Local() {
		open = 2 // the cache is for the shards
	}
	s := &Sample{source: newSource(run, shards, schemas.BlocksMeta{Kind: schemas.KindSample, Head: head, Width: shards.Heads[head].Clusters}, files, open)}
	if s.source.rows == 0 {
		return nil, fmt.Errorf("head %d: %w: its tables have no rows", head, ErrNoSample)
	}
	s.left.Store(budget)
	if s.numbers, err = s.source.numbers(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("head %d: sample: %w", head, err)
	}
	return s, nil
}

// Rows returns the number of rows of the whole sample.
func (s *Sample) Rows() int64 { return s.source.rows }

// Part returns the i-th of so many disjoint parts of about equal size that make
// up the sample, with the rows' own numbers: Part(ctx, 0, 1) is all of it. Which
// rows a part has follows from their numbers alone. A part without rows is
// [ErrNoSample].
//
// A part that fits into what is left of the budget is read now and stays valid
// after Close; its blocks are its own memory. Any other is read from the files,
// and costs the reading of the whole sample each time.
func (s *Sample) Part(ctx context.Context, i, of int) (sinkhorn.Source, error) {
	if i < 0 || i >= of {
		return nil, fmt.Errorf("part %d of %d of a sample", i, of)
	}
	part := share{uint64(i), uint64(of)}
	var numbers []int64
	for _, row := range s.numbers {
		if part.has(row) {
			numbers = append(numbers, row)
		}
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("head %d: %w: part %d of %d of %d rows is empty", s.source.shards.want.Head, ErrNoSample, i, of, len(s.numbers))
	}
	bytes := int64(len(numbers)) * int64(8+4*s.source.clusters)
	if s.left.Add(-bytes) < 0 {
		s.left.Add(bytes)
		return &streamed{s.source, part, int64(len(numbers))}, nil
	}
	held, err := s.load(ctx, part, numbers)
	if err != nil {
		s.left.Add(bytes)
		return nil, err
	}
	return held, nil
}

// Close closes the sample's files.
func (s *Sample) Close() { s.source.Close() }

// streamed is a part that is read from the files.
type streamed struct {
	source *Source
	part   share
	rows   int64
}

func (p *streamed) Dims() (rows int64, clusters int) { return p.rows, p.source.clusters }
func (p *streamed) Chunks() int                      { return p.source.chunks }

func (p *streamed) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	return p.source.read(ctx, i, buf, p.part, yield)
}

// held is a part in memory, cut into blocks beforehand.
type held struct {
	rows     int64
	clusters int
	blocks   []sinkhorn.Block
	ends     []int // of each chunk's blocks
}

func (p *held) Dims() (rows int64, clusters int) { return p.rows, p.clusters }
func (p *held) Chunks() int                      { return len(p.ends) }

func (p *held) ReadChunk(ctx context.Context, i int, _ *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	from := 0
	if i > 0 {
		from = p.ends[i-1]
	}
	for k := from; k < p.ends[i]; k++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(&p.blocks[k]); err != nil {
			return err
		}
	}
	return nil
}

// load reads the rows of a part, whose numbers are given.
func (s *Sample) load(ctx context.Context, part share, numbers []int64) (*held, error) {
	k := s.source.clusters
	p := &held{rows: int64(len(numbers)), clusters: k, ends: make([]int, s.source.chunks)}
	x := make([]float32, len(numbers)*k)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for chunk, at := 0, 0; chunk < s.source.chunks; chunk++ {
		size, _ := slices.BinarySearch(numbers[at:], int64(chunk+1)*sinkhorn.ChunkRows)
		for from, step := at, int(s.source.blockRows); from < at+size; from += step {
			to := min(from+step, at+size)
			p.blocks = append(p.blocks, sinkhorn.Block{Rows: numbers[from:to:to], X: x[from*k : to*k : to*k]})
		}
		p.ends[chunk] = len(p.blocks)
		if size > 0 {
			rows, values := numbers[at:at+size], x[at*k:(at+size)*k]
			group.Go(func() error { return s.copy(ctx, chunk, part, rows, values) })
		}
		at += size
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("head %d: sample: %w", s.source.shards.want.Head, err)
	}
	return p, nil
}

// copy reads the rows of a part in a chunk into x, of their size.
func (s *Sample) copy(ctx context.Context, chunk int, part share, rows []int64, x []float32) error {
	var buf sinkhorn.Block
	return s.source.read(ctx, chunk, &buf, part, func(b *sinkhorn.Block) error {
		if len(b.Rows) > len(rows) || !slices.Equal(b.Rows, rows[:len(b.Rows)]) {
			return fmt.Errorf("chunk %d has other rows than before", chunk)
		}
		copy(x, b.X)
		rows, x = rows[len(b.Rows):], x[len(b.X):]
		return nil
	})
}
