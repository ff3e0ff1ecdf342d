package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

// A span is a run of images that one request fetches: one loose file, or
// neighbouring members of a tar shard.
type span struct {
	images []schemas.Image
	first  int64         // index of images[0] within the task
	data   []byte        // from the first image's offset
	err    error         // a *reject when the object is not what was listed
	ready  chan struct{} // receives once data or err is set
	left   atomic.Int64  // images not yet decoded
	held   int64         // bytes of read-ahead it holds
}

// Members of a tar closer together than maxGap are fetched in one request of at
// most maxSpan bytes: a request to an object store costs about as much as
// 4 MiB of transfer.
const (
	maxGap  = 64 << 10
	maxSpan = 4 << 20
)

// cut returns how many of the images, which are in row order and not empty,
// make the first span, and how many bytes to read for it. An image larger than
// limit is a span of its own, and not read.
func cut(images []schemas.Image, limit int64) (n int, size int64) {
	n, size = 1, images[0].Size
	if size > limit {
		return n, 0
	}
	if images[0].Member == "" {
		return n, size
	}
	for _, img := range images[1:] {
		gap := img.Offset - (images[0].Offset + size)
		end := img.Offset + img.Size - images[0].Offset
		if img.Key != images[0].Key || gap < 0 || gap > maxGap || end > maxSpan || img.Size > limit {
			break
		}
		n, size = n+1, end
	}
	return n, size
}

// fetcher reads spans ahead of the decoders: several at once, in order, and
// never more bytes than its budget (but one span, however large).
type fetcher struct {
	limit  int64 // bytes of one image; larger ones are not read
	bytes  int64
	budget *semaphore.Weighted // bytes of spans that are not decoded
	slots  chan struct{}       // an element for each request under way

	mu    sync.Mutex
	free  []*span // decoded, their buffers to be used again
	spare int64   // bytes of those buffers
}

// maxRequests bounds the requests under way where the job does not. At 50 ms
// each, so many fetch 5,000 loose files a second.
const maxRequests = 256

func requestsOf(job *pipeline.Job) int {
	if n := job.Extract.Requests; n > 0 {
		return n
	}
	return maxRequests
}

func newFetcher(readAhead, limit int64, requests int) *fetcher {
	return &fetcher{limit: limit, bytes: readAhead, budget: semaphore.NewWeighted(readAhead), slots: make(chan struct{}, requests)}
}

// spans makes the queue of a task's spans. It has room for more than can be
// under way, so that a slow answer does not keep those behind it from being
// asked for.
func (f *fetcher) spans() chan *span { return make(chan *span, 4*cap(f.slots)) }

// run asks the store for the spans of the images and sends each on out, in
// order, before it is ready. It returns when all are under way or ctx ends;
// either way every span that was sent becomes ready, and [fetcher.done] has to
// be told of each of its images. A request that the store turned down keeps its
// place while it waits to be repeated, so that a store that throttles is asked
// less.
func (f *fetcher) run(ctx context.Context, store *bucket.Bucket, images []schemas.Image, out chan<- *span) {
	defer close(out)
	for first := 0; first < len(images); {
		n, size := cut(images[first:], f.limit)
		// A span larger than the whole budget takes all of it.
		held := min(size, f.bytes)
		if f.budget.Acquire(ctx, held) != nil {
			return
		}
		s := f.span(images[first:first+n], size)
		s.first, s.held = int64(first), held
		if !f.send(ctx, s, out) {
			f.release(s)
			return
		}
		first += n
		go func() {
			f.fetch(ctx, store, s)
			<-f.slots
			s.ready <- struct{}{}
		}()
	}
}

// send waits for a request's place and for room in out.
func (f *fetcher) send(ctx context.Context, s *span, out chan<- *span) bool {
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	select {
	case out <- s:
		return true
	case <-ctx.Done():
		<-f.slots
		return false
	}
}

// one fetches an image alone. One that is not what was listed is a [*reject].
// The bytes are the caller's.
func (f *fetcher) one(ctx context.Context, store *bucket.Bucket, img schemas.Image) ([]byte, error) {
	list := []schemas.Image{img}
	_, size := cut(list, f.limit)
	s := f.span(list, size)
	f.fetch(ctx, store, s)
	return s.data, s.err
}

func (f *fetcher) fetch(ctx context.Context, store *bucket.Bucket, s *span) {
	if size := s.images[0].Size; size > f.limit {
		s.err = &reject{"too-large", fmt.Sprintf("%d bytes are more than preprocess.max_bytes (%d) allows", size, f.limit)}
		return
	}
	err := read(ctx, store, s)
	switch {
	case err == nil:
	case errors.Is(err, bucket.ErrNotFound):
		s.err = &reject{"missing", fmt.Sprintf("it was deleted after it was listed: %v", err)}
	case errors.Is(err, bucket.ErrChanged):
		s.err = &reject{"changed", fmt.Sprintf("it changed after it was listed: %v", err)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		// The object is as long as it was, but its transfers break off.
		s.err = pipeline.Retryable(fmt.Errorf("read image %s: %w", s.images[0].Key, err))
	default:
		s.err = fmt.Errorf("read image %s: %w", s.images[0].Key, err)
	}
}

// read fills the span and refuses an object that is not the one that was
// listed.
func read(ctx context.Context, store *bucket.Bucket, s *span) error {
	listed, size := s.images[0], int64(len(s.data))
	r, err := store.NewReader(ctx, listed.Key, listed.Offset, size)
	if err != nil && ctx.Err() == nil {
		// Stores differ in how they refuse a range beyond the end.
		if now, gone := store.Stat(ctx, listed.Key); gone == nil && now.Size < listed.Offset+size {
			return fmt.Errorf("%w: it ends at byte %d, before byte %d", bucket.ErrChanged, now.Size, listed.Offset+size)
		}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	now := r.Object()
	if listed.Member == "" && listed.Size != now.Size {
		return fmt.Errorf("%w: it had %d bytes and has %d", bucket.ErrChanged, listed.Size, now.Size)
	}
	if listed.ETag != "" && now.ETag != "" && listed.ETag != now.ETag {
		return fmt.Errorf("%w: its entity tag is another one", bucket.ErrChanged)
	}
	_, err = io.ReadFull(r, s.data)
	return err
}

// span returns a span with a buffer, a used one where one fits. A buffer more
// than twice too large is left to larger spans.
func (f *fetcher) span(images []schemas.Image, size int64) *span {
	const page = 1 << 10
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.free {
		if room := int64(cap(s.data)); room < size || room > 2*size+page {
			continue
		}
		last := len(f.free) - 1
		f.free[i], f.free[last] = f.free[last], nil
		f.free = f.free[:last]
		f.spare -= int64(cap(s.data))
		s.images, s.data, s.err = images, s.data[:size], nil
		s.left.Store(int64(len(images)))
		return s
	}
	s := &span{images: images, ready: make(chan struct{}, 1), data: make([]byte, size, (size+page-1)&^(page-1))}
	s.left.Store(int64(len(images)))
	return s
}

// done says that one image of the span is decoded, or never will be. With the
// last one the span is over.
func (f *fetcher) done(s *span) {
	if s.left.Add(-1) == 0 {
		f.release(s)
	}
}

// release ends a span. Its memory serves others.
func (f *fetcher) release(s *span) {
	f.budget.Release(s.held)
	f.mu.Lock()
	defer f.mu.Unlock()
	if room := int64(cap(s.data)); len(f.free) < cap(f.slots) && f.spare+room <= f.bytes {
		f.free, f.spare = append(f.free, s), f.spare+room
	}
}

// bytesOf returns the bytes of the i-th image of the span.
func (s *span) bytesOf(i int) []byte {
	from := s.images[i].Offset - s.images[0].Offset
	return s.data[from : from+s.images[i].Size]
}
