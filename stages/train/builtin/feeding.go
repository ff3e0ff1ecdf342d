package builtin

import (
	"context"
)

// feeding is a loader at work on a few slots.
type feeding struct {
	free   chan *Slot // gives a slot back
	ready  chan *Slot
	ended  chan error
	cancel context.CancelFunc
}

// feed starts load, which fills the slots ahead of their use.
func feed(ctx context.Context, slots []*Slot, load func(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error) *feeding {
	ctx, cancel := context.WithCancel(ctx)
	f := &feeding{free: make(chan *Slot, len(slots)), ready: make(chan *Slot, len(slots)), ended: make(chan error, 1), cancel: cancel}
	for _, s := range slots {
		f.free <- s
	}
	go func() {
		err := load(ctx, f.free, f.ready)
		f.ended <- err
		close(f.ready)
	}()
	return f
}

// next waits for the next slot in order; nil is the end.
func (f *feeding) next() (*Slot, error) {
	if s, ok := <-f.ready; ok {
		return s, nil
	}
	err := <-f.ended
	f.ended <- err
	return nil, err
}

// several waits for the next n slots, or those that are left.
func (f *feeding) several(n int) (slots []*Slot, err error) {
	for len(slots) < n {
		s, err := f.next()
		if err != nil {
			return nil, err
		}
		if s == nil {
			break
		}
		slots = append(slots, s)
	}
	return slots, nil
}

// stop ends the loader and waits until it touches no slot any more.
func (f *feeding) stop() {
	f.cancel()
	for range f.ready {
	}
}
