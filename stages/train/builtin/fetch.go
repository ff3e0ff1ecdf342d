package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// reject says why an image cannot be used.
type reject struct{ reason string }

func (r *reject) Error() string { return r.reason }

// item is an image on its way into a batch.
type item struct {
	index  int
	weight float32
	data   []byte        // what was fetched for it alone
	err    error         // of the fetch
	ready  chan struct{} // closed when the fetch is over; nil if there is none
	held   int64         // bytes of the budget
}

// fetcher reads images from a remote bucket ahead of the decoders: several at
// once, and never more bytes than its budget (but one request, however large).
// It serves one pass.
type fetcher struct {
	*Loader
	budget *semaphore.Weighted
	slots  chan struct{} // an element for each request under way

	mu    sync.Mutex
	spans map[int]chan struct{} // under way, by their first image; closed at the end
}

func (l *Loader) newFetcher() *fetcher {
	return &fetcher{Loader: l, budget: semaphore.NewWeighted(l.o.ReadAhead), slots: make(chan struct{}, l.o.Requests), spans: map[int]chan struct{}{}}
}

// start begins to fetch what the item needs and the cache lacks. What lies in a
// tar comes with its neighbours where the cache has room for them, so that small
// images do not take a request each.
func (f *fetcher) start(ctx context.Context, g *errgroup.Group, it *item) error {
	size := int64(f.labels.rows[it.index].size)
	if f.images.Local() || size > f.limit || f.cache.has(it.index) {
		return nil
	}
	from, to, bytes := f.span(it.index)
	if to-from > 1 && f.cache.room() >= bytes {
		f.mu.Lock()
		ready, underWay := f.spans[from]
		if !underWay {
			if f.cache.has(it.index) { // by now
				f.mu.Unlock()
				return nil
			}
			ready = make(chan struct{})
			f.spans[from] = ready
		}
		f.mu.Unlock()
		it.ready = ready
		if underWay {
			return nil
		}
		return f.request(ctx, g, bytes, func(held int64) {
			f.fetchSpan(ctx, from, to, bytes)
			f.budget.Release(held)
			f.mu.Lock()
			delete(f.spans, from)
			f.mu.Unlock()
			close(ready)
		})
	}
	it.ready = make(chan struct{})
	return f.request(ctx, g, size, func(held int64) {
		it.held = held
		it.data, it.err = f.fetch(ctx, it.index)
		close(it.ready)
	})
}

// request performs a request of so many bytes when it is its turn. The budget
// that it holds is do's to release.
func (f *fetcher) request(ctx context.Context, g *errgroup.Group, bytes int64, do func(held int64)) error {
	held := min(bytes, f.o.ReadAhead)
	if err := f.budget.Acquire(ctx, held); err != nil {
		return err
	}
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	g.Go(func() error {
		do(held)
		<-f.slots
		return nil
	})
	return nil
}

// spanBytes is the stretch of a tar whose images come with one request. To an
// object store a request costs about as much as the transfer of 4 MiB; but until
// most stretches are in the cache, a shuffle asks for a whole one per image.
const spanBytes = 1 << 20

// span returns the images that begin in the same stretch of a tar as the i-th,
// and how many bytes they span. One too large to be read ends it.
func (f *fetcher) span(i int) (from, to int, bytes int64) {
	rows := f.labels.rows
	if rows[i].tar == loose {
		return i, i + 1, int64(rows[i].size)
	}
	near := func(j int) bool {
		return rows[j].tar == rows[i].tar && rows[j].offset/spanBytes == rows[i].offset/spanBytes && int64(rows[j].size) <= f.limit
	}
	for from = i; from > 0 && near(from-1) && rows[from-1].offset < rows[from].offset; from-- {
	}
	for to = i + 1; to < len(rows) && near(to) && rows[to].offset > rows[to-1].offset; to++ {
	}
	return from, to, rows[to-1].offset + int64(rows[to-1].size) - rows[from].offset
}

// fetchSpan brings the images of a span into the cache. What it does not bring,
// because the tar has changed or cannot be read, is fetched alone by those who
// need it, who can tell what is wrong.
func (f *fetcher) fetchSpan(ctx context.Context, from, to int, bytes int64) {
	data := make([]byte, bytes)
	first := f.labels.Image(from)
	if f.images.ReadRange(ctx, first.Key, first.Offset, data) != nil {
		return
	}
	for i := from; i < to; i++ {
		r := &f.labels.rows[i]
		at := r.offset - first.Offset
		if image := data[at : at+int64(r.size)]; f.labels.holds(i, image) && !f.cache.has(i) {
			f.cache.put(i, image, 0)
		}
	}
}

// finish waits for the item's fetch.
func (f *fetcher) finish(ctx context.Context, it *item) error {
	if it.ready == nil {
		return nil
	}
	select {
	case <-it.ready:
		return it.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drop ends an item: others may be fetched.
func (f *fetcher) drop(it *item) {
	it.data = nil
	f.budget.Release(it.held)
	it.held = 0
}

// fetch reads one image. One that is gone or not the one that was labelled is a
// [*reject].
func (l *Loader) fetch(ctx context.Context, i int) ([]byte, error) {
	img := l.labels.Image(i)
	if img.Size > l.limit {
		return nil, &reject{fmt.Sprintf("%d bytes are more than preprocess.max_bytes (%d) allows", img.Size, l.limit)}
	}
	data := make([]byte, img.Size)
	err := l.images.ReadRange(ctx, img.Key, img.Offset, data)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, &reject{"it is gone: " + err.Error()}
	}
	if err != nil && ctx.Err() == nil {
		// Stores differ in how they refuse a range beyond the end.
		if now, gone := l.images.Stat(ctx, img.Key); gone == nil && now.Size < img.Offset+img.Size {
			return nil, &reject{fmt.Sprintf("it has changed: its object ends at byte %d, before byte %d", now.Size, img.Offset+img.Size)}
		}
	}
	if err != nil {
		err = fmt.Errorf("read image %s: %w", img.Key, err)
		if errors.Is(err, io.ErrUnexpectedEOF) { // its transfers break off
			err = pipeline.Retryable(err)
		}
		return nil, err
	}
	if !l.labels.holds(i, data) {
		return nil, &reject{"it has changed: its sha256 is not that of the label table"}
	}
	return data, nil
}

// holds tells whether the bytes are those of the i-th image.
func (l *Labels) holds(i int, data []byte) bool {
	if !l.checked {
		return true
	}
	sum := sha256.Sum256(data)
	return binary.BigEndian.Uint64(sum[:]) == l.rows[i].sum
}
