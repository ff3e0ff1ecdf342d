package bucket

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// maxRetryAfter bounds the wait that a store can ask for.
const maxRetryAfter = 2 * time.Minute

// Transport returns base, with one addition: how long a store asks to be left
// alone (the header Retry-After of an answer 429 or 5xx) reaches the retries of
// this package. A provider sends its requests through it.
func Transport(base http.RoundTripper) http.RoundTripper { return transport{base} }

type transport struct{ base http.RoundTripper }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.base.RoundTrip(r)
	if err == nil && (answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500) {
		if asked, ok := r.Context().Value(askedKey{}).(*atomic.Int64); ok {
			asked.Store(int64(retryAfter(answer.Header, time.Now())))
		}
	}
	return answer, err
}

// retryAfter reads the header, which holds seconds or a date. Azure tells
// milliseconds, too.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseInt(h.Get("x-ms-retry-after-ms"), 10, 32); err == nil && ms > 0 {
		return min(time.Duration(ms)*time.Millisecond, maxRetryAfter)
	}
	value := h.Get("Retry-After")
	if s, err := strconv.ParseInt(value, 10, 32); err == nil {
		return min(max(time.Duration(s)*time.Second, 0), maxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// askedKey is the context's key of the wait that the store asked for, in
// nanoseconds.
type askedKey struct{}

func withAsked(ctx context.Context) (context.Context, *atomic.Int64) {
	asked := new(atomic.Int64)
	return context.WithValue(ctx, askedKey{}, asked), asked
}
