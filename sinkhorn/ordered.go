package sinkhorn

import (
	"context"
	"fmt"
	"sync"
)

// inOrder evaluates units of work 0 … n−1 on several workers and merges what
// they found in unit order, so that a sum has the same bits for any number of
// workers. eval(worker, unit, p) fills p, a place of the window; merge is
// called with it under a lock, in unit order, and the place is then used
// again. No more than len(window) units are under way at once. Of several
// faults the one of the lowest unit is returned.
func inOrder[P any](ctx context.Context, workers, n int, window []P, eval func(worker, unit int, p P) error, merge func(unit int, p P) error) error {
	o := &ordered[P]{n: n, window: window, ready: make([]bool, len(window)), merge: merge}
	o.moved.L = &o.mu
	var group sync.WaitGroup
	for w := range max(1, min(workers, n)) {
		group.Go(func() {
			for unit, ok := o.claim(); ok; unit, ok = o.claim() {
				err := error(nil)
				if ctx.Err() != nil {
					err = stopped(ctx)
				} else {
					err = eval(w, unit, window[unit%len(window)])
				}
				o.finish(unit, err)
			}
		})
	}
	group.Wait()
	return o.err
}

// stopped is the error of a pass whose context has ended.
func stopped(ctx context.Context) error {
	return fmt.Errorf("sinkhorn: pass stopped: %w", ctx.Err())
}

type ordered[P any] struct {
	n      int
	window []P
	merge  func(int, P) error

	mu     sync.Mutex
	moved  sync.Cond // merged grew or err was set
	next   int       // first unit not claimed
	merged int       // units merged
	ready  []bool    // by window position: evaluated, not merged
	err    error     // of the first faulty unit
	faulty int       // that unit
}

// claim returns the next unit once its place in the window is free.
func (o *ordered[P]) claim() (int, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && o.next < o.n && o.next >= o.merged+len(o.window) {
		o.moved.Wait()
	}
	if o.err != nil || o.next >= o.n {
		return 0, false
	}
	o.next++
	return o.next - 1, true
}

// finish records the outcome of a unit and merges what is ready, in order.
func (o *ordered[P]) finish(unit int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.moved.Broadcast()
	o.ready[unit%len(o.window)] = err == nil
	for err == nil && o.merged < o.n {
		position := o.merged % len(o.window)
		if !o.ready[position] {
			break
		}
		o.ready[position] = false
		err, unit = o.merge(o.merged, o.window[position]), o.merged
		o.merged++
	}
	if err != nil && (o.err == nil || unit < o.faulty) {
		o.err, o.faulty = err, unit
	}
}
