package bucket

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"sync"

	"gocloud.dev/blob"
)

// Provider opens the buckets of one kind of store and reads what is the
// store's own. Its functions must be safe for concurrent use.
type Provider struct {
	// Open opens the bucket that a URL without a path names. It should leave
	// retries to this package: a driver that repeats a write by itself can take
	// its own first attempt for another's.
	Open func(ctx context.Context, u *url.URL) (*blob.Bucket, error)
	// ETag is [Options.ETag].
	ETag func(as func(any) bool) string
	// Answer is [Options.Answer].
	Answer func(err error) (status int, code string)
	// Secrets returns what no error may show, beside what the URL holds. It may
	// be nil.
	Secrets func() []string
}

var providers struct {
	sync.RWMutex
	of map[string]Provider
}

// Register makes the URLs of a scheme known to [Open], in the place of a driver
// that registered itself with package blob. It is meant for init functions.
func Register(scheme string, p Provider) {
	providers.Lock()
	defer providers.Unlock()
	if providers.of == nil {
		providers.of = map[string]Provider{}
	}
	providers.of[scheme] = p
}

func providerOf(scheme string) (Provider, bool) {
	providers.RLock()
	defer providers.RUnlock()
	p, ok := providers.of[scheme]
	return p, ok
}

func registered() []string {
	providers.RLock()
	defer providers.RUnlock()
	return slices.Collect(maps.Keys(providers.of))
}
