package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"sela/pipeline/bucket"
	"sela/schemas"
)

// A span is a run of images that one request fetches: one loose file, or
// neighbouring members of a tar shard.
type span struct {
	key    string
	offset int64
	size   int64
	items  []item
	data   []byte
	err    error
	missed string        // class, when the object is not what was listed
	ready  chan struct{} // closed when data or err is set
	left   int           // items not yet decoded; guarded by fetcher.mu
	held   int64         // bytes of read-ahead it holds
}

// An item is one image of a span.
type item struct {
	image schemas.Image
	index int64 // within the task
}

// Members of a tar closer together than maxGap are fetched in one request of at
// most maxSpan bytes: a request to an object store costs about as much as
// 4 MiB of transfer.
const (
	maxGap  = 64 << 10
	maxSpan = 4 << 20
)

// cut groups images, in row order, into spans.
func cut(images []schemas.Image) []*span {
	var spans []*span
	for i, img := range images {
		it := item{image: img, index: int64(i)}
		if n := len(spans); n > 0 && img.Member != "" {
			s := spans[n-1]
			gap := img.Offset - (s.offset + s.size)
			end := img.Offset + img.Size - s.offset
			if s.key == img.Key && gap >= 0 && gap <= maxGap && end <= maxSpan {
				s.size, s.items = end, append(s.items, it)
				continue
			}
		}
		spans = append(spans, &span{key: img.Key, offset: img.Offset, size: img.Size, items: []item{it}, ready: make(chan struct{})})
	}
	return spans
}

// fetcher reads spans ahead of the decoders: several at once, in order, and
// never more bytes than its budget.
type fetcher struct {
	images *bucket.Bucket
	limit  int64 // bytes of one image; larger ones are not read
	budget *semaphore.Weighted
	bytes  int64
	mu     sync.Mutex
	free   [][]byte // buffers of spans that are decoded
}

// inFlight is the number of requests under way at once.
const inFlight = 16

func newFetcher(images *bucket.Bucket, readAhead, limit int64) *fetcher {
	return &fetcher{images: images, limit: limit, bytes: readAhead, budget: semaphore.NewWeighted(readAhead)}
}

// run fetches the spans, sending each on out, in order, before it is ready. It
// returns when all are fetched or ctx ends; either way every span that was sent
// becomes ready.
func (f *fetcher) run(ctx context.Context, spans []*span, out chan<- *span) {
	defer close(out)
	var workers sync.WaitGroup
	defer workers.Wait()
	slots := make(chan struct{}, inFlight)
	for _, s := range spans {
		s.left = len(s.items)
		// A span larger than the whole budget takes all of it.
		s.held = min(s.size, f.bytes)
		if f.budget.Acquire(ctx, s.held) != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		workers.Add(1)
		go func() {
			defer workers.Done()
			f.fetch(ctx, s)
			<-slots
			close(s.ready)
		}()
		select {
		case out <- s:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fetcher) fetch(ctx context.Context, s *span) {
	if s.size > f.limit && len(s.items) == 1 {
		s.missed, s.err = "too-large", fmt.Errorf("%d bytes are more than preprocess.max_bytes (%d) allows", s.size, f.limit)
		return
	}
	s.data = f.buffer(int(s.size))
	err := f.read(ctx, s)
	switch {
	case err == nil:
	case errors.Is(err, bucket.ErrNotFound):
		s.missed = "missing"
	case errors.Is(err, bucket.ErrChanged), errors.Is(err, io.ErrUnexpectedEOF):
		s.missed = "changed"
	}
	if err != nil {
		s.err = fmt.Errorf("read %s: %w", s.key, err)
	}
}

// read fills the span and refuses an object that is not the one that was
// listed.
func (f *fetcher) read(ctx context.Context, s *span) error {
	r, err := f.images.NewReader(ctx, s.key, s.offset, s.size)
	if err != nil {
		return err
	}
	defer r.Close()
	listed, now := s.items[0].image, r.Object()
	if listed.ETag != "" && now.ETag != "" && listed.ETag != now.ETag || listed.Member == "" && listed.Size != now.Size {
		return fmt.Errorf("%w: it was listed with %d bytes and tag %s, now it has %d and %s", bucket.ErrChanged, listed.Size, listed.ETag, now.Size, now.ETag)
	}
	_, err = io.ReadFull(r, s.data)
	return err
}

// buffer returns a buffer of n bytes, reused where one is large enough.
func (f *fetcher) buffer(n int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.free) - 1; i >= 0; i-- {
		if b := f.free[i]; cap(b) >= n {
			f.free[i] = f.free[len(f.free)-1]
			f.free = f.free[:len(f.free)-1]
			return b[:n]
		}
	}
	// Rounding up lets buffers of similar sizes serve each other.
	return make([]byte, n, (n+1<<14)&^(1<<14-1))
}

// done says that one image of the span is decoded; with the last one the
// span's memory is free again.
func (f *fetcher) done(s *span) {
	f.mu.Lock()
	s.left--
	last := s.left == 0
	if last && s.data != nil {
		if len(f.free) < inFlight {
			f.free = append(f.free, s.data)
		}
		s.data = nil
	}
	f.mu.Unlock()
	if last {
		f.budget.Release(s.held)
	}
}

// bytesOf returns the image's bytes within its span.
func (s *span) bytesOf(it item) []byte {
	from := it.image.Offset - s.offset
	return s.data[from : from+it.image.Size]
}
