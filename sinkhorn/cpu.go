package sinkhorn

import (
	"context"
	"fmt"
	"sync"

	"sela/sinkhorn/internal/kernel"
)

// CPU is the Evaluator of this process: workers read and evaluate chunks of a
// Source side by side. A pass allocates O(K); memory held is, per worker, one
// block and O(K). Results have the same bits for any number of workers.
//
// One pass runs at a time: concurrent calls of Pass wait for each other.
type CPU struct {
	src      Source
	clusters int
	mu       sync.Mutex // held during a pass
	workers  []*worker
	window   []*partial
}

// Kernels names the vector kernels that passes use on this processor: avx512,
// avx2, neon or portable. Results have the same bits with any of them.
func Kernels() string { return kernel.Twin() }

// NewCPU returns an evaluator over src that uses the given number of
// goroutines, at least one.
func NewCPU(src Source, workers int) *CPU {
	_, clusters := src.Dims()
	c := &CPU{src: src, clusters: clusters}
	for range max(workers, 1) {
		c.workers = append(c.workers, newWorker(clusters))
	}
	for range 2 * len(c.workers) {
		c.window = append(c.window, newPartial(clusters))
	}
	return c
}

// Dims implements Evaluator.
func (c *CPU) Dims() (rows int64, clusters int) { return c.src.Dims() }

// GrantsLists implements Lister.
func (c *CPU) GrantsLists() bool { return true }

// Pass implements Evaluator. A row that cannot be assigned is a *RowError; of
// several faults the one in the first chunk is reported. Errors of ReadChunk
// are returned wrapped.
func (c *CPU) Pass(ctx context.Context, req Request) (*PassResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows, clusters := c.src.Dims()
	if clusters != c.clusters || clusters < 1 {
		return nil, fmt.Errorf("%w: %d clusters", ErrSource, clusters)
	}
	if err := req.validate(clusters); err != nil {
		return nil, err
	}
	p := newPass(&req)
	total := newTotals(clusters, &req)
	if req.Lists != nil {
		req.Lists.Into.reset(clusters, c.src.Chunks())
	}
	err := c.each(ctx, func(w *worker, b *Block, part *partial) error {
		return p.block(w, b, part)
	}, func(i int, part *partial) error {
		if req.Lists != nil {
			if err := req.Lists.Into.put(i, &part.list); err != nil {
				return err
			}
		}
		return total.merge(part)
	})
	if err != nil {
		return nil, err
	}
	if total.rows != rows {
		return nil, fmt.Errorf("%w: it has %d rows, its chunks hold %d", ErrSource, rows, total.rows)
	}
	if p.starved = total.starved(&req); p.starved != nil {
		total.openLogSums(len(p.starved))
		err := c.each(ctx, func(w *worker, b *Block, part *partial) error {
			return p.starvedBlock(w, b, part)
		}, func(_ int, part *partial) error {
			return total.mergeLogSums(part)
		})
		if err != nil {
			return nil, err
		}
	}
	return total.result(&req, p.starved)
}

// each evaluates all blocks, with a fresh partial for each chunk, and merges
// the partials in chunk order.
func (c *CPU) each(ctx context.Context, block func(*worker, *Block, *partial) error, merge func(int, *partial) error) error {
	for _, w := range c.workers {
		w.block = func(b *Block) error { return block(w, b, w.part) }
	}
	return inOrder(ctx, len(c.workers), c.src.Chunks(), c.window, func(worker, i int, part *partial) error {
		w := c.workers[worker]
		part.reset()
		w.part = part
		return w.reader.read(ctx, c.src, i, w.block)
	}, merge)
}

// worker holds the buffers of one goroutine of a pass.
type worker struct {
	reader                 *reader
	part                   *partial
	block                  func(*Block) error
	scratch                *kernel.Scratch
	rows, previous         kernel.Rows
	best, previousBest     []int32
	second, previousSecond []float64
	low, high              []float32
	shift                  []float64
	list                   kernel.List
}

func newWorker(clusters int) *worker {
	w := &worker{reader: newReader(clusters), scratch: kernel.NewScratch(clusters)}
	for _, f := range []*[]float64{&w.rows.Max, &w.rows.Sum, &w.previous.Max, &w.previous.Sum, &w.second, &w.previousSecond, &w.shift} {
		*f = make([]float64, ChunkRows)
	}
	w.best, w.previousBest = make([]int32, ChunkRows), make([]int32, ChunkRows)
	w.low, w.high = make([]float32, ChunkRows), make([]float32, ChunkRows)
	return w
}

// size fits the row buffers to n rows.
func (w *worker) size(n int, certify bool) {
	w.rows = kernel.Rows{Max: w.rows.Max[:n], Sum: w.rows.Sum[:n]}
	w.previous = kernel.Rows{Max: w.previous.Max[:n], Sum: w.previous.Sum[:n]}
	if certify {
		w.previous.Best, w.previous.Second = w.previousBest[:n], w.previousSecond[:n]
		w.rows.Best, w.rows.Second, w.rows.Low, w.rows.High = w.best[:n], w.second[:n], w.low[:n], w.high[:n]
	}
}
