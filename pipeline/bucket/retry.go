package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"gocloud.dev/gcerrors"
)

const maxBackoff = 30 * time.Second

// retry calls attempt until it succeeds, fails for good, or has failed
// Options.Attempts times. attempt is told whether an earlier one failed.
func (b *Bucket) retry(ctx context.Context, attempt func(again bool) error) error {
	again := false
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := ctx.Err(); err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		err := attempt(again)
		again = true
		switch {
		case err == nil:
			return struct{}{}, nil
		case ctx.Err() != nil:
			return struct{}{}, backoff.Permanent(ctx.Err())
		case !transient(err):
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(uint(b.opts.Attempts)), backoff.WithMaxElapsedTime(0), backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval:     b.opts.Backoff,
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         maxBackoff,
	}))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return err
}

// request retries a request without much payload, each attempt with the time
// limit.
func (b *Bucket) request(ctx context.Context, do func(ctx context.Context) error) error {
	return b.retry(ctx, func(bool) error { return b.limited(ctx, do) })
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

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var stalled *stalledError
	if errors.As(err, &stalled) {
		return true
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.AlreadyExists, gcerrors.FailedPrecondition, gcerrors.InvalidArgument,
		gcerrors.PermissionDenied, gcerrors.Unimplemented:
		return false
	}
	var outside *rangeError
	if errors.Is(err, ErrChanged) || errors.Is(err, errSource) || errors.As(err, &outside) {
		return false
	}
	// The methods of the AWS SDK's errors, whose types this package does not know.
	var api interface{ ErrorCode() string }
	if errors.As(err, &api) && api.ErrorCode() == "RequestTimeout" {
		return true
	}
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		switch code := answer.HTTPStatusCode(); code {
		case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
			return true
		case http.StatusNotImplemented:
			return false
		default:
			return code < 400 || code >= 500
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Temporary() || passing[errno]
	}
	return true
}

// passing are the system's errors that come from a network.
var passing = map[syscall.Errno]bool{
	syscall.ECONNABORTED: true, syscall.ECONNREFUSED: true, syscall.ECONNRESET: true, syscall.EPIPE: true,
	syscall.EHOSTUNREACH: true, syscall.ENETUNREACH: true, syscall.ENETDOWN: true, syscall.ENOTCONN: true,
	syscall.EIO: true, syscall.ESTALE: true, syscall.EBUSY: true,
}
