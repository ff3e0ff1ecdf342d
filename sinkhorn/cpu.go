package sinkhorn

import (
	"context"
	"fmt"
	"sync"
)

// CPU is the Evaluator of this process: workers read and evaluate chunks of a
// Source side by side. A pass allocates O(K); memory held is, per worker, one
// block and O(K). Results have the same bits for any number of workers.
//
// One pass runs at a time: concurrent calls of Pass wait for each other.
type CPU struct {
	src     Source
	mu      sync.Mutex // held during a pass
	workers []*worker
	window  []*partial // ring: chunk i uses window[i%len(window)]
}

// NewCPU returns an evaluator over src that uses the given number of
// goroutines, at least one.
func NewCPU(src Source, workers int) *CPU {
	_, clusters := src.Dims()
	c := &CPU{src: src}
	for range max(workers, 1) {
		c.workers = append(c.workers, &worker{
			weights: make([]float64, clusters),
			shift:   make([]float64, 0, ChunkRows),
		})
	}
	for range 2 * len(c.workers) {
		c.window = append(c.window, newPartial(clusters))
	}
	return c
}

// Pass implements Evaluator. A row that cannot be assigned is a *RowError; of
// several faults the one in the first chunk is reported. Errors of ReadChunk
// are returned wrapped.
func (c *CPU) Pass(ctx context.Context, req Request) (*PassResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows, clusters := c.src.Dims()
	if clusters != len(c.workers[0].weights) || clusters < 1 {
		return nil, fmt.Errorf("%w: %d clusters", ErrSource, clusters)
	}
	if err := req.validate(clusters); err != nil {
		return nil, err
	}
	p := &pass{
		src: c.src, req: &req, window: c.window,
		chunks: c.src.Chunks(),
		total:  newTotals(clusters, req.Certify),
		ready:  make([]bool, len(c.window)),
	}
	p.moved.L = &p.mu
	var group sync.WaitGroup
	for _, w := range c.workers[:max(1, min(len(c.workers), p.chunks))] {
		group.Go(func() { p.run(ctx, w) })
	}
	group.Wait()
	if p.err != nil {
		return nil, p.err
	}
	if p.total.rows != rows {
		return nil, fmt.Errorf("%w: it has %d rows, its chunks hold %d", ErrSource, rows, p.total.rows)
	}
	return p.total.result(&req)
}

// pass is the shared state of one pass. Workers claim chunks in order, no
// further ahead of the merged ones than the window is long.
type pass struct {
	src    Source
	req    *Request
	window []*partial
	chunks int

	mu     sync.Mutex
	moved  sync.Cond // merged grew or err was set
	next   int       // first chunk not claimed
	merged int       // chunks merged into total
	ready  []bool    // by window position: evaluated, not merged
	total  *totals
	err    error // of the first faulty chunk
	faulty int   // that chunk
}

// run evaluates chunks until none is left or one has failed.
func (p *pass) run(ctx context.Context, w *worker) {
	for {
		i, ok := p.claim()
		if !ok {
			return
		}
		p.finish(i, p.chunk(ctx, w, i))
	}
}

// chunk reads and evaluates chunk i.
func (p *pass) chunk(ctx context.Context, w *worker, i int) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	if err := p.src.ReadChunk(ctx, i, &w.block); err != nil {
		return fmt.Errorf("sinkhorn: read chunk %d: %w", i, err)
	}
	if err := checkBlock(&w.block, i, len(w.weights)); err != nil {
		return err
	}
	return w.evaluate(ctx, p.req, p.window[i%len(p.window)])
}

// stopped is the error of a pass whose context has ended.
func stopped(ctx context.Context) error {
	return fmt.Errorf("sinkhorn: pass stopped: %w", ctx.Err())
}

// claim returns the next chunk to evaluate once its place in the window is
// free.
func (p *pass) claim() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && p.next < p.chunks && p.next >= p.merged+len(p.window) {
		p.moved.Wait()
	}
	if p.err != nil || p.next >= p.chunks {
		return 0, false
	}
	p.next++
	return p.next - 1, true
}

// finish records the outcome of chunk i and merges what is ready, in order.
func (p *pass) finish(i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.moved.Broadcast()
	if err != nil {
		if p.err == nil || i < p.faulty {
			p.err, p.faulty = err, i
		}
		return
	}
	p.ready[i%len(p.window)] = true
	for position := p.merged % len(p.window); p.ready[position]; position = p.merged % len(p.window) {
		p.total.merge(p.window[position])
		p.ready[position] = false
		p.merged++
	}
}
