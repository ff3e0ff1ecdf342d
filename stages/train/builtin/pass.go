package builtin

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// pass is a walk over images.
type pass struct {
	evaluate    bool
	epoch, step int
	from, to    int // positions
	at          func(pos int) (index int, weight float32)

	fetch *fetcher
}

// batch is a slot that is being filled.
type batch struct {
	slot *Slot
	left atomic.Int64  // images to come
	done chan struct{} // closed with the last
}

// job is an image and its place in a batch; a nil item is padding.
type job struct {
	*batch
	at   int
	item *item
}

// run is the pipeline of a pass: images are fetched ahead, dealt to slots in
// order, filled in by workers in any order, and passed on in order. A channel is
// closed only behind the last value: an end is never taken for the whole.
func (l *Loader) run(ctx context.Context, p *pass, free <-chan *Slot, ready chan<- *Slot) error {
	p.fetch = l.newFetcher()
	g, ctx := errgroup.WithContext(ctx)
	items := make(chan *item, 4*l.o.Requests)
	jobs := make(chan job, 2*l.o.Workers)
	batches := make(chan *batch, 64) // more than anybody has slots
	g.Go(func() error {
		for pos := p.from; pos < p.to; pos++ {
			it := &item{}
			it.index, it.weight = p.at(pos)
			if !l.isRejected(it.index) {
				if err := p.fetch.start(ctx, g, it); err != nil {
					return err
				}
			}
			if err := send(ctx, items, it); err != nil {
				return err
			}
		}
		close(items)
		return nil
	})
	g.Go(func() error {
		if err := p.deal(ctx, items, free, jobs, batches); err != nil {
			return err
		}
		close(jobs)
		close(batches)
		return nil
	})
	for range l.o.Workers {
		g.Go(func() error {
			w, err := l.newPainter()
			if err != nil {
				return err
			}
			for {
				j, ok, err := receive(ctx, jobs)
				if err != nil || !ok {
					return err
				}
				if err := w.do(ctx, p, j); err != nil {
					return err
				}
			}
		})
	}
	g.Go(func() error {
		for {
			b, ok, err := receive(ctx, batches)
			if err != nil || !ok {
				return err
			}
			if _, _, err := receive(ctx, b.done); err != nil {
				return err
			}
			if err := send(ctx, ready, b.slot); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// deal gives the items their places. A batch is passed on before it is full, so
// that the order of the batches is that of the steps.
func (p *pass) deal(ctx context.Context, items <-chan *item, free <-chan *Slot, jobs chan<- job, batches chan<- *batch) error {
	for step := p.step; ; step++ {
		it, ok, err := receive(ctx, items)
		if err != nil || !ok {
			return err
		}
		b := &batch{done: make(chan struct{})}
		if b.slot, _, err = receive(ctx, free); err != nil {
			return err
		}
		b.slot.Step = step
		b.left.Store(int64(len(b.slot.Weights)))
		if err := send(ctx, batches, b); err != nil {
			return err
		}
		for at := range b.slot.Weights {
			if at > 0 {
				if it, _, err = receive(ctx, items); err != nil {
					return err
				}
			}
			if err := send(ctx, jobs, job{b, at, it}); err != nil {
				return err
			}
		}
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive returns the next value, or ok false at the channel's end.
func receive[T any](ctx context.Context, from <-chan T) (v T, ok bool, err error) {
	select {
	case v, ok = <-from:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, ctx.Err()
	}
}

// do fills one place of a batch.
func (w *painter) do(ctx context.Context, p *pass, j job) error {
	s, size := j.slot, len(w.black)
	dst := s.Images[j.at*size : (j.at+1)*size]
	s.Weights[j.at], s.Rows[j.at] = 0, -1
	if j.item == nil {
		w.normalise(dst, w.black)
		w.label(s, j.at, nil)
	} else if err := w.paint(ctx, p, j, dst); err != nil {
		return err
	}
	if j.left.Add(-1) == 0 {
		close(j.done)
	}
	return nil
}

// paint fills a place with its item.
func (w *painter) paint(ctx context.Context, p *pass, j job, dst []float32) error {
	s, it, turns := j.slot, j.item, 0
	err := p.fetch.finish(ctx, it)
	if ctx.Err() != nil { // the fetch may be under way
		return ctx.Err()
	}
	switch {
	case err != nil:
	case w.isRejected(it.index):
		err = &reject{}
	case p.evaluate:
		err = w.evaluate(ctx, dst, it.index, it.data)
	default:
		turns, err = w.train(ctx, dst, it.index, it.data, p.epoch)
	}
	p.fetch.drop(it)
	var bad *reject
	switch {
	case err == nil:
		s.Weights[j.at] = it.weight
	case !errors.As(err, &bad):
		return err
	default:
		if err := w.reject(it.index, bad.reason); err != nil {
			return err
		}
		w.normalise(dst, w.black)
	}
	s.Rows[j.at] = w.labels.rows[it.index].number
	w.label(s, j.at, &it.index)
	if p.evaluate {
		return nil
	}
	batch := len(s.Weights)
	if w.o.Rotations {
		s.Labels[len(w.labels.Heads)*batch+j.at] = int64(turns)
	}
	for m, mask := range s.Masks {
		n := len(mask) / batch
		w.draws.begin(forMask, w.o.Seed, p.epoch, s.Rows[j.at], m)
		w.draws.mask(mask[j.at*n:(j.at+1)*n], w.o.Masks[m].Ratio)
	}
	return nil
}

// label writes an image's labels or targets; nil is padding, all zero.
func (w *painter) label(s *Slot, at int, index *int) {
	if n := len(w.labels.Classes); n > 0 {
		for k := range n {
			s.Targets[at*n+k] = 0
			if index != nil && w.labels.Target(*index, k) {
				s.Targets[at*n+k] = 1
			}
		}
		return
	}
	for h := range w.labels.Heads {
		l := &s.Labels[h*len(s.Weights)+at]
		if *l = 0; index != nil {
			*l = int64(w.labels.Label(*index, h))
		}
	}
}
