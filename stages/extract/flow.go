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
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// A batch is the images with indices [first, first+n) of a task, in one slot of
// the session. Batches are cut at fixed indices and an unusable image keeps its
// place, so that what shares a batch with an image depends on the listing only.
type batch struct {
	index   int64
	images  []schemas.Image
	digests [][32]byte
	rejects []*imageio.Error // by position; nil where the image is usable
	slot    *ort.Slot
	pending atomic.Int64
}

// A job is one image on its way to its place in a batch.
type job struct {
	batch *batch
	pos   int
	span  *span
	item  item
}

// flow moves the images of one task through fetch, decode, inference and
// writing, all overlapping. Every queue is bounded; the slots bound the batches.
type flow struct {
	classifier *Classifier
	fetch      *fetcher
	out        *output
	decoders   int
	runners    int
	slots      *slotPool
	timing     *Timing
}

// slotPool keeps a classifier's slots between tasks: they hold the big buffers.
type slotPool struct{ free chan *ort.Slot }

// Timing says how the time of a task went. Busy times are summed over
// goroutines and may exceed the wall time; waits are of one goroutine each.
type Timing struct {
	Wall      Nanos `json:"wall_ns"`
	Fetch     Nanos `json:"fetch_wait_ns"`     // feeder waiting for the next span: the store is slow
	Slot      Nanos `json:"slot_wait_ns"`      // feeder waiting for a slot: the model is slow
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

// run processes the images of a task and hands every batch, in order, to the
// output.
func (f *flow) run(ctx context.Context, images []schemas.Image) error {
	start := time.Now()
	defer f.timing.Wall.since(start)
	group, ctx := errgroup.WithContext(ctx)
	spans := make(chan *span, inFlight)
	jobs := make(chan job, 2*f.decoders)
	ready := make(chan *batch, cap(f.slots.free))
	written := make(chan *batch, cap(f.slots.free))
	batches := (int64(len(images)) + int64(f.classifier.Batch) - 1) / int64(f.classifier.Batch)

	group.Go(func() error { f.fetch.run(ctx, cut(images), spans); return ctx.Err() })
	group.Go(func() error { defer close(jobs); return f.feed(ctx, images, spans, jobs) })

	decoders, dctx := errgroup.WithContext(ctx)
	for range f.decoders {
		decoders.Go(func() error { return f.decode(dctx, jobs, ready) })
	}
	group.Go(func() error { defer close(ready); return decoders.Wait() })

	runners, rctx := errgroup.WithContext(ctx)
	for range f.runners {
		runners.Go(func() error { return f.infer(rctx, ready, written) })
	}
	group.Go(func() error { defer close(written); return runners.Wait() })
	group.Go(func() error { return f.write(ctx, batches, written) })
	return group.Wait()
}

// feed takes the spans in order, gives their images a place in a batch, and
// passes them on. It alone waits for slots, in order, so that the oldest batch
// always has one and the flow cannot lock up.
func (f *flow) feed(ctx context.Context, images []schemas.Image, spans <-chan *span, jobs chan<- job) error {
	var current *batch
	for s := range spans {
		begin := time.Now()
		select {
		case <-s.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.timing.Fetch.since(begin)
		if s.err != nil && s.missed == "" {
			return s.err
		}
		for _, it := range s.items {
			if index := it.index / int64(f.classifier.Batch); current == nil || current.index != index {
				begin := time.Now()
				slot, err := f.slots.take(ctx)
				if err != nil {
					return err
				}
				f.timing.Slot.since(begin)
				current = f.newBatch(index, images, slot)
			}
			j := job{batch: current, pos: int(it.index % int64(f.classifier.Batch)), span: s, item: it}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return ctx.Err()
}

func (f *flow) newBatch(index int64, images []schemas.Image, slot *ort.Slot) *batch {
	first := index * int64(f.classifier.Batch)
	images = images[first:min(first+int64(f.classifier.Batch), int64(len(images)))]
	b := &batch{index: index, images: images, slot: slot,
		digests: make([][32]byte, len(images)), rejects: make([]*imageio.Error, len(images))}
	b.pending.Store(int64(len(images)))
	f.classifier.blank(slot, len(images), f.classifier.Batch)
	return b
}

// decode turns encoded images into tensors until the jobs end.
func (f *flow) decode(ctx context.Context, jobs <-chan job, ready chan<- *batch) error {
	worker := f.classifier.pre.NewWorker()
	for j := range jobs {
		begin := time.Now()
		if j.span.missed != "" {
			j.batch.rejects[j.pos] = &imageio.Error{Class: imageio.Class(j.span.missed), Err: j.span.err}
		} else {
			data := j.span.bytesOf(j.item)
			j.batch.digests[j.pos] = sha256.Sum256(data)
			if err := f.classifier.preprocess(worker, data, j.batch.slot, j.pos); err != nil {
				var bad *imageio.Error
				if !errors.As(err, &bad) {
					return fmt.Errorf("decode %s %s: %w", j.item.image.Key, j.item.image.Member, err)
				}
				j.batch.rejects[j.pos] = bad
				f.classifier.blank(j.batch.slot, j.pos, j.pos+1)
			}
		}
		f.fetch.done(j.span)
		f.timing.Decode.since(begin)
		if j.batch.pending.Add(-1) > 0 {
			continue
		}
		select {
		case ready <- j.batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (f *flow) infer(ctx context.Context, ready <-chan *batch, written chan<- *batch) error {
	for b := range ready {
		begin := time.Now()
		if err := f.classifier.session.Run(ctx, b.slot); err != nil {
			return fmt.Errorf("run the model on rows %d to %d: %w", b.images[0].Row, b.images[len(b.images)-1].Row, err)
		}
		f.timing.Inference.since(begin)
		select {
		case written <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// write puts the batches back in order and writes them.
func (f *flow) write(ctx context.Context, batches int64, written <-chan *batch) error {
	waiting := map[int64]*batch{}
	next := int64(0)
	for b := range written {
		waiting[b.index] = b
		for b := waiting[next]; b != nil; b = waiting[next] {
			delete(waiting, next)
			next++
			begin := time.Now()
			err := f.out.write(b)
			f.timing.Write.since(begin)
			if err != nil {
				return err
			}
			f.slots.free <- b.slot
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if next != batches {
		return fmt.Errorf("%d of %d batches were written", next, batches)
	}
	return nil
}

func (p *slotPool) take(ctx context.Context) (*ort.Slot, error) {
	select {
	case s := <-p.free:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newFlow makes the flow of one attempt.
func newFlow(c *Classifier, slots *slotPool, images *bucket.Bucket, out *output, spec *pipeline.Job, timing *Timing) *flow {
	return &flow{classifier: c, slots: slots, out: out, timing: timing,
		fetch:    newFetcher(images, int64(spec.Extract.ReadAhead), int64(spec.Preprocess.MaxBytes)),
		decoders: orCores(spec.Extract.Decoders), runners: orCores(spec.Runtime.Threads)}
}

func orCores(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}
