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

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// flow moves the images of one task through fetch, decode, inference and
// writing, all overlapping. When [flow.run] returns, nothing of the flow is
// left: its batches are back in the lane, and its bytes of read-ahead free.
type flow struct {
	lane   *lane
	store  *bucket.Bucket // of the images
	out    sink
	ctx    context.Context // ends with the first failure
	cancel context.CancelFunc
	flying sync.WaitGroup // batches from the lane
	timing Timing

	mu      sync.Mutex
	err     error            // the first failure
	waiting map[int64]*batch // inferred, by index
	next    int64            // index of the batch to be written next
	writing bool
}

// sink takes the batches of a flow, in order. A batch is the flow's again when
// write returns.
type sink interface{ write(*batch) error }

// Timing says how the time of a task went. Busy times are summed over
// goroutines and may exceed the wall time; waits are of one goroutine each.
type Timing struct {
	Wall      Nanos `json:"wall_ns"`           // from its turn to its last batch
	Fetch     Nanos `json:"fetch_wait_ns"`     // feeder waiting for the next span: the store is slow
	Slot      Nanos `json:"slot_wait_ns"`      // feeder waiting for a batch: the model is slow
	Decode    Nanos `json:"decode_busy_ns"`    // decoding, resizing, hashing
	Inference Nanos `json:"inference_busy_ns"` // inside ONNX Runtime
	Write     Nanos `json:"write_busy_ns"`     // Arrow and Parquet
	Finish    Nanos `json:"finish_ns"`         // checking and uploading the tables
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

func orCores(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// newFlow makes the flow of one attempt.
func newFlow(l *lane, store *bucket.Bucket, out sink) *flow {
	return &flow{lane: l, store: store, out: out, waiting: map[int64]*batch{}}
}

// run processes the images of a task and hands every batch, in order, to the
// output.
func (f *flow) run(ctx context.Context, images []schemas.Image) error {
	f.ctx, f.cancel = context.WithCancel(ctx)
	defer f.cancel()
	if err := f.lane.fetching.take(f.ctx); err != nil {
		return err
	}
	spans, fed := f.lane.fetch.spans(), make(chan struct{})
	go func() {
		f.lane.fetch.run(f.ctx, f.store, images, spans)
		// Whoever fetches first feeds first: a flow that waited for the feeder
		// behind it could hold the bytes that one needs.
		<-fed
		f.lane.fetching.pass()
	}()
	err := f.lane.feeding.take(f.ctx)
	close(fed)
	begin := time.Now()
	f.fail(err)
	f.feed(images, spans)
	if err == nil {
		f.lane.feeding.pass()
	}
	f.flying.Wait()
	f.timing.Wall.since(begin)
	if batches := (len(images) + f.lane.classifier.Batch - 1) / f.lane.classifier.Batch; f.err == nil && f.next != int64(batches) {
		return fmt.Errorf("%d of %d batches were written", f.next, batches)
	}
	return f.err
}

// fail ends the flow unless err is nil. The first failure is the one that counts.
func (f *flow) fail(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.cancel()
	}
}

// feed takes the spans in order, gives their images a place in a batch, and
// passes them on. It alone waits for batches, in order, so that the oldest one
// always has its slot and the flow cannot lock up. Of a flow that failed it
// takes the spans, too, to free them.
func (f *flow) feed(images []schemas.Image, spans <-chan *span) {
	var current *batch
	size := int64(f.lane.classifier.Batch)
	begin := time.Now()
	for s := range spans {
		<-s.ready
		f.timing.Fetch.since(begin)
		if s.err != nil && !errors.As(s.err, new(*reject)) {
			f.fail(s.err)
		}
		for i := range s.images {
			at := s.first + int64(i)
			if current == nil || current.index != at/size {
				f.lane.leave(current)
				current = f.take(at/size, images)
			}
			if current == nil {
				f.lane.fetch.done(s)
				continue
			}
			current.pending.Add(1)
			f.lane.placed <- placement{batch: current, pos: int(at % size), span: s, item: i}
		}
		begin = time.Now()
	}
	f.lane.leave(current)
	f.fail(f.ctx.Err())
}

// take makes a free batch the one of the given index. It returns nil once the
// flow has failed.
func (f *flow) take(index int64, images []schemas.Image) *batch {
	defer f.timing.Slot.since(time.Now())
	if f.ctx.Err() != nil {
		return nil
	}
	select {
	case b := <-f.lane.free:
		f.flying.Add(1)
		size := f.lane.classifier.Batch
		images = images[int(index)*size:]
		b.flow, b.index, b.images = f, index, images[:min(size, len(images))]
		clear(b.rejects)
		b.pending.Store(1)
		f.lane.classifier.blank(b.slot, len(b.images), size)
		return b
	case <-f.ctx.Done():
		return nil
	}
}

// decode turns an encoded image into its tensor.
func (f *flow) decode(worker *imageio.Worker, p placement) {
	defer f.lane.leave(p.batch)
	defer f.lane.fetch.done(p.span)
	if f.ctx.Err() != nil {
		return
	}
	defer f.timing.Decode.since(time.Now())
	c, err := f.lane.classifier, p.span.err
	if err == nil {
		data := p.span.bytesOf(p.item)
		p.batch.digests[p.pos] = sha256.Sum256(data)
		err = c.preprocess(worker, data, p.batch.slot, p.pos)
	} else {
		c.blank(p.batch.slot, p.pos, p.pos+1)
	}
	if err == nil {
		return
	}
	bad := new(reject)
	if !errors.As(err, &bad) {
		f.fail(fmt.Errorf("image %s: %w", place(p.span.images[p.item]), err))
	}
	p.batch.rejects[p.pos] = bad
}

// infer runs the model on a batch and writes it once those before it are
// written. The first batch of the run has shown that the model can run on such
// batches, so that a failure now is one of memory or device.
func (f *flow) infer(b *batch) {
	if f.ctx.Err() == nil {
		begin := time.Now()
		if err := f.lane.classifier.session.Run(f.ctx, b.slot); err != nil {
			err = fmt.Errorf("rows %d to %d: %w", b.images[0].Row, b.images[len(b.images)-1].Row, err)
			if errors.Is(err, ort.ErrRun) {
				err = pipeline.Retryable(err)
			}
			f.fail(err)
		}
		f.timing.Inference.since(begin)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[b.index] = b
	for f.waiting[f.next] != nil && !f.writing {
		b := f.waiting[f.next]
		delete(f.waiting, f.next)
		f.writing = true
		f.mu.Unlock()
		f.write(b)
		f.mu.Lock()
		f.next, f.writing = f.next+1, false
		f.lane.free <- b
		f.flying.Done()
	}
}

// write hands a batch to the output.
func (f *flow) write(b *batch) {
	if f.ctx.Err() == nil {
		begin := time.Now()
		f.fail(f.out.write(b))
		f.timing.Write.since(begin)
	}
}
