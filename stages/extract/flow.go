package extract

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
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

// flow moves the images of one task through fetch, decode, inference and
// writing, all overlapping. Every queue is bounded; the number of batches
// bounds what is between fetch and writing. When [flow.run] returns, no
// goroutine of the flow is left.
type flow struct {
	classifier *Classifier
	fetch      *fetcher
	out        *output
	decoders   int
	runners    int
	free       chan *batch
	written    int64 // batches
	timing     Timing
}

// Timing says how the time of a task went. Busy times are summed over
// goroutines and may exceed the wall time; waits are of one goroutine each.
type Timing struct {
	Wall      Nanos `json:"wall_ns"`
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

// newFlow makes the flow of one attempt, which has the batches to itself.
func newFlow(c *Classifier, batches []*batch, images *bucket.Bucket, out *output, spec *pipeline.Job) *flow {
	decoders := orCores(spec.Extract.Decoders)
	f := &flow{classifier: c, out: out, decoders: decoders, runners: c.runners,
		fetch: newFetcher(images, int64(spec.Extract.ReadAhead), int64(spec.Preprocess.MaxBytes), decoders),
		free:  make(chan *batch, len(batches))}
	for _, b := range batches {
		f.free <- b
	}
	return f
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
	defer f.timing.Wall.since(time.Now())
	group, ctx := errgroup.WithContext(ctx)
	spans := make(chan *span, f.fetch.requests)
	placements := make(chan placement, 2*f.decoders)
	ready := make(chan *batch, cap(f.free))
	done := make(chan *batch, cap(f.free))

	group.Go(func() error { f.fetch.run(ctx, images, spans); return ctx.Err() })
	group.Go(func() error { defer close(placements); return f.feed(ctx, images, spans, placements) })
	f.several(group, ctx, f.decoders, func(ctx context.Context) error { return f.decode(ctx, placements, ready) }, func() { close(ready) })
	f.several(group, ctx, f.runners, func(ctx context.Context) error { return f.infer(ctx, ready, done) }, func() { close(done) })
	group.Go(func() error { return f.write(ctx, done) })
	if err := group.Wait(); err != nil {
		return err
	}
	if batches := (len(images) + f.classifier.Batch - 1) / f.classifier.Batch; f.written != int64(batches) {
		return fmt.Errorf("%d of %d batches were written", f.written, batches)
	}
	return nil
}

// several runs n workers in the group, and after as soon as all have ended.
func (f *flow) several(group *errgroup.Group, ctx context.Context, n int, work func(context.Context) error, after func()) {
	workers, ctx := errgroup.WithContext(ctx)
	for range n {
		workers.Go(func() error { return work(ctx) })
	}
	group.Go(func() error { defer after(); return workers.Wait() })
}

// feed takes the spans in order, gives their images a place in a batch, and
// passes them on. It alone waits for batches, in order, so that the oldest one
// always has its slot and the flow cannot lock up.
func (f *flow) feed(ctx context.Context, images []schemas.Image, spans <-chan *span, placements chan<- placement) error {
	var current *batch
	size := int64(f.classifier.Batch)
	begin := time.Now()
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
				select {
				case current = <-f.free:
				case <-ctx.Done():
					return ctx.Err()
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
	waiting := map[int64]*batch{}
	for b := range done {
		waiting[b.index] = b
		for b := waiting[f.written]; b != nil; b = waiting[f.written] {
			delete(waiting, f.written)
			begin := time.Now()
			if err := f.out.write(b); err != nil {
				return err
			}
			f.timing.Write.since(begin)
			f.written++
			f.free <- b
		}
	}
	return ctx.Err()
}
