package bucket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const maxBackoff = 30 * time.Second

// retry calls attempt until it succeeds, fails for good, or has failed
// Options.Attempts times. attempt is told whether an earlier one failed, and has
// to use the context it is given. Failures are reported as those of op on key.
func (b *Bucket) retry(ctx context.Context, op, key string, attempt func(ctx context.Context, again bool) error) error {
	ctx, asked := withAsked(ctx)
	again := false
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := ctx.Err(); err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		err := attempt(ctx, again)
		first := !again
		again = true
		switch {
		case err == nil:
			b.served.Store(true)
			return struct{}{}, nil
		case ctx.Err() != nil:
			return struct{}{}, backoff.Permanent(ctx.Err())
		case !b.transient(err), !first && b.diagnose(err, true) == skewed:
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(uint(b.opts.Attempts)), backoff.WithMaxElapsedTime(0), backoff.WithBackOff(&waits{backoff.ExponentialBackOff{
		InitialInterval:     b.opts.Backoff,
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         maxBackoff,
	}, asked}), backoff.WithNotify(func(err error, wait time.Duration) {
		if b.opts.Retrying != nil {
			b.opts.Retrying(b.fail(op, key, err), wait)
		}
	}))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return err
}

// waits are the growing waits, or longer ones where the store asked for them:
// those with up to a tenth more, so that its clients do not come back at once.
type waits struct {
	backoff.ExponentialBackOff
	asked *atomic.Int64
}

func (w *waits) NextBackOff() time.Duration {
	wait, asked := w.ExponentialBackOff.NextBackOff(), w.asked.Swap(0)
	if asked <= 0 {
		return wait
	}
	return max(wait, time.Duration(asked+rand.Int64N(asked/10+1)))
}

// request retries a request without much payload, each attempt with the time
// limit.
func (b *Bucket) request(ctx context.Context, op, key string, do func(ctx context.Context) error) error {
	return b.retry(ctx, op, key, func(ctx context.Context, _ bool) error {
		release, err := b.reads.acquire(ctx)
		if err != nil {
			return err
		}
		defer release()
		return b.limited(ctx, do)
	})
}

func (b *Bucket) limited(ctx context.Context, do func(ctx context.Context) error) error {
	w := watch(ctx, b.opts.RequestTimeout)
	defer w.stop()
	return w.explain(do(w.ctx))
}

// watchdog ends a context when a transfer has stood still for too long.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
}

// watch starts a watchdog whose time runs.
func watch(ctx context.Context, limit time.Duration) *watchdog {
	w := &watchdog{limit: limit}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(limit, func() {
		w.cancel(&stalledError{limit})
	})
	return w
}

func (w *watchdog) resume() { w.timer.Reset(w.limit) }
func (w *watchdog) pause()  { w.timer.Stop() }
func (w *watchdog) stop()   { w.timer.Stop(); w.cancel(nil) }

// explain replaces the error that a request died of by the watchdog's verdict,
// if it is that which ended it.
func (w *watchdog) explain(err error) error {
	var stalled *stalledError
	if err != nil && errors.As(context.Cause(w.ctx), &stalled) {
		return fmt.Errorf("%w (%v)", stalled, err)
	}
	return err
}

// stalledError says that the store did not answer in time.
type stalledError struct{ limit time.Duration }

func (e *stalledError) Error() string { return fmt.Sprintf("no progress within %v", e.limit) }
func (e *stalledError) Unwrap() error { return context.DeadlineExceeded }

// slots bound how many requests wait for the store at once. Reads and writes
// have slots of their own: a write may have to wait for the read it copies.
type slots chan struct{}

func (s slots) acquire(ctx context.Context) (release func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
