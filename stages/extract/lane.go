package extract

import (
	"context"
	"sync"
	"sync/atomic"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// A batch is the images with indices [index·n, (index+1)·n) of a task, in one
// slot of the session. Batches are cut at fixed indices and an unusable image
// keeps its place, so that what shares a batch with an image depends on the
// listing only. Batches are used over and over.
type batch struct {
	flow    *flow
	index   int64
	images  []schemas.Image
	digests [][32]byte // by position
	rejects []*reject  // by position; nil where the image is usable
	slot    *ort.Slot
	pending atomic.Int64 // images being decoded, and one while the feeder adds more
}

// A placement is one image on its way to its place in a batch.
type placement struct {
	batch *batch
	pos   int
	span  *span
	item  int // within the span
}

// lane is what the flows of a stage share: the read-ahead, the batches, and the
// workers that decode images and run batches, of whichever flow. Flows take
// turns, first at fetching and then at feeding images to the workers: one
// fetches while the one before still feeds, and feeds while the last batches of
// that one are under way, so that nothing stands still between two tasks.
type lane struct {
	classifier *Classifier
	fetch      *fetcher
	fetching   turn
	feeding    turn
	free       chan *batch
	placed     chan placement
	decoded    chan *batch
	closed     chan struct{}
	workers    sync.WaitGroup
}

// A turn is held by one flow at a time.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) pass() { <-t }

// newLane makes the batches and starts the workers.
func newLane(ctx context.Context, c *Classifier, job *pipeline.Job) (*lane, error) {
	workers := workersOf(job)
	n := batches(workers)
	l := &lane{classifier: c, fetch: newFetcher(int64(job.Extract.ReadAhead), int64(job.Preprocess.MaxBytes), requestsOf(job)), fetching: make(turn, 1), feeding: make(turn, 1),
		free: make(chan *batch, n), placed: make(chan placement, n*c.Batch), decoded: make(chan *batch, n), closed: make(chan struct{})}
	for range n {
		slot, err := c.NewSlot(ctx)
		if err != nil {
			l.close()
			return nil, err
		}
		l.free <- &batch{slot: slot, digests: make([][32]byte, c.Batch), rejects: make([]*reject, c.Batch)}
	}
	for _, w := range workers {
		l.workers.Go(func() { l.work(w) })
	}
	return l, nil
}

// batches returns how many a lane has: one for each that runs, two being decoded
// and one being written. More are no faster, and less often in a cache.
func batches(workers []role) int {
	n := 3
	for _, w := range workers {
		if w.infer {
			n++
		}
	}
	return n
}

// role says what a worker does.
type role struct{ infer, decode bool }

// gpuRunners keep a GPU busy: while one batch is computed the next one waits for
// it, and the one before is being written.
const gpuRunners = 3

// workersOf returns the job's workers. On a CPU runs and decoding both need a
// core, so that a worker does either, as it comes: no more threads than cores,
// and none idle. On a GPU a runner mostly waits for it.
func workersOf(job *pipeline.Job) (all []role) {
	decoders := orCores(job.Extract.Decoders)
	if job.Runtime.Providers[0] == ort.CPU {
		runners := orCores(job.Runtime.Threads)
		for i := range max(runners, decoders) {
			all = append(all, role{infer: i < runners, decode: i < decoders})
		}
		return all
	}
	runners := job.Runtime.Threads
	if runners == 0 {
		runners = gpuRunners
	}
	for i := range runners + decoders {
		all = append(all, role{infer: i < runners, decode: i >= runners})
	}
	return all
}

// work decodes images and runs batches until the lane is closed. A batch goes
// before images, since it frees what they need. No worker ever waits for room:
// each queue has some for all that can be under way.
func (l *lane) work(r role) {
	batches, images := l.decoded, l.placed
	var worker *imageio.Worker
	if r.decode {
		worker = l.classifier.pre.NewWorker()
	} else {
		images = nil
	}
	if !r.infer {
		batches = nil
	}
	for {
		select {
		case b := <-batches:
			b.flow.infer(b)
			continue
		default:
		}
		select {
		case b := <-batches:
			b.flow.infer(b)
		case p := <-images:
			p.batch.flow.decode(worker, p)
		case <-l.closed:
			return
		}
	}
}

// leave takes one off what b, unless it is nil, waits for. With the last one it
// is ready to run.
func (l *lane) leave(b *batch) {
	if b != nil && b.pending.Add(-1) == 0 {
		l.decoded <- b
	}
}

// close ends the workers and frees the batches. No flow may be under way.
func (l *lane) close() {
	close(l.closed)
	l.workers.Wait()
	for len(l.free) > 0 {
		_ = (<-l.free).slot.Close() // memory only
	}
}
