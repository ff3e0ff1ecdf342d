package extract

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/ort"
)

// A batch is the images with indices [index·n, (index+1)·n) of a task, in one
// slot of the session. Batches are cut at fixed indices and an unusable image
// keeps its place, so that what shares a batch with an image depends on the
// listing only. Batches are used over and over.
type batch struct {
	index   int64
	images  []schemas.Image
	digests [][32]byte // by position
	rejects []*reject  // by position; nil where the image is usable
	slot    *ort.Slot
	pending atomic.Int64 // images not yet decoded
}

// A placement is one image on its way to its place in a batch.
type placement struct {
	batch *batch
	pos   int
	span  *span
	item  int // within the span
}

// lane is what the flows of a stage share: its batches, and the turn to feed
// images into them. A flow whose turn it is not fetches ahead; one that has fed
// its last image passes the turn on while the last batches are under way, so
// that nothing stands still between two tasks.
type lane struct {
	turn chan struct{} // holds an element while a flow feeds
	free chan *batch
}

// newLane makes a lane of n batches.
func newLane(ctx context.Context, c *Classifier, n int) (*lane, error) {
	l := &lane{turn: make(chan struct{}, 1), free: make(chan *batch, n)}
	for range n {
		slot, err := c.NewSlot(ctx)
		if err != nil {
			l.close()
			return nil, err
		}
		l.free <- &batch{slot: slot, digests: make([][32]byte, c.Batch), rejects: make([]*reject, c.Batch)}
	}
	return l, nil
}

// close frees the batches. No flow may be under way.
func (l *lane) close() {
	for len(l.free) > 0 {
		_ = (<-l.free).slot.Close() // memory only
	}
}

// flow moves the images of one task through fetch, decode, inference and
// writing, all overlapping. Every queue is bounded; the number of batches
// bounds what is between fetch and writing. When [flow.run] returns, no
// goroutine of the flow is left and its batches are back in the lane.
type flow struct {
	classifier *Classifier
	lane       *lane
	fetch      *fetcher
	out        *output
	decoders   int
	timing     Timing
	begun      time.Time // its turn

	mu      sync.Mutex
	taken   map[*batch]bool // from the lane
	written int             // batches
}

// Timing says how the time of a task went. Busy times are summed over
// goroutines and may exceed the wall time; waits are of one goroutine each.
type Timing struct {
	Wall      Nanos `json:"wall_ns"`           // from its turn to its last batch
	Fetch     Nanos `json:"fetch_wait_ns"`     // feeder waiting for the next span: the store is slow
	Slot      Nanos `json:"slot_wait_ns"`      // feeder waiting for a batch: the model is slow
	Decode    Nanos `json:"decode_busy_ns"`    // decoding, resizing, hashing
	Inference Nanos `json:"inference_busy_ns"` // inside ONNX Runtime
	Write     Nanos `json:"write_busy_ns"`     // Arrow and Parquet
}

// Nanos is a duration that goroutines add to.
type Nanos struct{ atomic.Int64 }

// MarshalJSON writes the number of nanoseconds.
func (n *Nanos) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%d", n.Load()), nil }

// UnmarshalJSON reads it.
func (n *Nanos) UnmarshalJSON(raw []byte) error {
	var v int64
	_, err := fmt.Sscan(string(raw), &v)
	n.Store(v)
	return err
}

func (n *Nanos) since(t time.Time) { n.Add(int64(time.Since(t))) }

// newFlow makes the flow of one attempt.
func newFlow(c *Classifier, l *lane, images *bucket.Bucket, out *output, spec *pipeline.Job) *flow {
	decoders := orCores(spec.Extract.Decoders)
	return &flow{classifier: c, lane: l, out: out, decoders: decoders, taken: map[*batch]bool{},
		fetch: newFetcher(images, int64(spec.Extract.ReadAhead), int64(spec.Preprocess.MaxBytes), decoders)}
}

func orCores(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// run processes the images of a task and hands every batch, in order, to the
// output.
func (f *flow) run(ctx context.Context, images []schemas.Image) error {
	group, ctx := errgroup.WithContext(ctx)
	spans := make(chan *span, f.fetch.requests)
	placements := make(chan placement, 2*f.decoders)
	ready := make(chan *batch, cap(f.lane.free))
	done := make(chan *batch, cap(f.lane.free))

	group.Go(func() error { f.fetch.run(ctx, images, spans); return ctx.Err() })
	group.Go(func() error { defer close(placements); return f.feed(ctx, images, spans, placements) })
	f.several(group, ctx, f.decoders, func(ctx context.Context) error { return f.decode(ctx, placements, ready) }, func() { close(ready) })
	f.several(group, ctx, f.classifier.runners, func(ctx context.Context) error { return f.infer(ctx, ready, done) }, func() { close(done) })
	group.Go(func() error { return f.write(ctx, done) })
	err := group.Wait()
	for b := range f.taken { // by a flow that failed
		f.lane.free <- b
	}
	f.timing.Wall.since(f.begun)
	if batches := (len(images) + f.classifier.Batch - 1) / f.classifier.Batch; err == nil && f.written != batches {
		err = fmt.Errorf("%d of %d batches were written", f.written, batches)
	}
	return err
}

// several runs n workers in the group, and after as soon as all have ended.
func (f *flow) several(group *errgroup.Group, ctx context.Context, n int, work func(context.Context) error, after func()) {
	workers, ctx := errgroup.WithContext(ctx)
	for range n {
		workers.Go(func() error { return work(ctx) })
	}
	group.Go(func() error { defer after(); return workers.Wait() })
}

// feed waits for its turn, takes the spans in order, gives their images a place
// in a batch, and passes them on. It alone waits for batches, in order, so that
// the oldest one always has its slot and the flow cannot lock up.
func (f *flow) feed(ctx context.Context, images []schemas.Image, spans <-chan *span, placements chan<- placement) error {
	select {
	case f.lane.turn <- struct{}{}:
		defer func() { <-f.lane.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f.begun = time.Now()
	begin := f.begun
	var current *batch
	size := int64(f.classifier.Batch)
	for s := range spans {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.timing.Fetch.since(begin)
		if s.err != nil && !errors.As(s.err, new(*reject)) {
			return s.err
		}
		for i := range s.images {
			at := s.first + int64(i)
			if current == nil || current.index != at/size {
				begin := time.Now()
				var err error
				if current, err = f.take(ctx); err != nil {
					return err
				}
				f.timing.Slot.since(begin)
				f.begin(current, at/size, images)
			}
			select {
			case placements <- placement{batch: current, pos: int(at % size), span: s, item: i}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		begin = time.Now()
	}
	return ctx.Err()
}

func (f *flow) take(ctx context.Context) (*batch, error) {
	select {
	case b := <-f.lane.free:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.taken[b] = true
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// give returns a batch that is written.
func (f *flow) give(b *batch) {
	f.mu.Lock()
	delete(f.taken, b)
	f.written++
	f.mu.Unlock()
	f.lane.free <- b
}

// begin makes b the batch of the given index.
func (f *flow) begin(b *batch, index int64, images []schemas.Image) {
	size := f.classifier.Batch
	images = images[int(index)*size:]
	b.index, b.images = index, images[:min(size, len(images))]
	clear(b.rejects)
	b.pending.Store(int64(len(b.images)))
	f.classifier.blank(b.slot, len(b.images), size)
}

// decode turns encoded images into tensors until the placements end.
func (f *flow) decode(ctx context.Context, placements <-chan placement, ready chan<- *batch) error {
	worker := f.classifier.pre.NewWorker()
	for p := range placements {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		begin := time.Now()
		err := p.span.err
		if err == nil {
			data := p.span.bytesOf(p.item)
			p.batch.digests[p.pos] = sha256.Sum256(data)
			err = f.classifier.preprocess(worker, data, p.batch.slot, p.pos)
		} else {
			f.classifier.blank(p.batch.slot, p.pos, p.pos+1)
		}
		if err != nil {
			bad := new(reject)
			if !errors.As(err, &bad) {
				return fmt.Errorf("image %s: %w", place(p.span.images[p.item]), err)
			}
			p.batch.rejects[p.pos] = bad
		}
		f.fetch.done(p.span)
		f.timing.Decode.since(begin)
		if p.batch.pending.Add(-1) > 0 {
			continue
		}
		select {
		case ready <- p.batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// infer runs the model on batches until they end. The first batch of the run
// has shown that the model can run on such batches, so that a failure now is
// one of memory or device.
func (f *flow) infer(ctx context.Context, ready <-chan *batch, done chan<- *batch) error {
	for b := range ready {
		begin := time.Now()
		if err := f.classifier.session.Run(ctx, b.slot); err != nil {
			err = fmt.Errorf("rows %d to %d: %w", b.images[0].Row, b.images[len(b.images)-1].Row, err)
			if errors.Is(err, ort.ErrRun) {
				err = pipeline.Retryable(err)
			}
			return err
		}
		f.timing.Inference.since(begin)
		select {
		case done <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// write puts the batches back in order and writes them.
func (f *flow) write(ctx context.Context, done <-chan *batch) error {
	waiting, next := map[int64]*batch{}, int64(0)
	for b := range done {
		waiting[b.index] = b
		for b := waiting[next]; b != nil; b = waiting[next] {
			delete(waiting, next)
			next++
			begin := time.Now()
			if err := f.out.write(b); err != nil {
				return err
			}
			f.timing.Write.since(begin)
			f.give(b)
		}
	}
	return ctx.Err()
}
