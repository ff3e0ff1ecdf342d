package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

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
	left   int           // images not yet decoded; guarded by fetcher.mu
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
	images   *bucket.Bucket
	limit    int64 // bytes of one image; larger ones are not read
	requests int   // under way at once
	bytes    int64
	budget   *semaphore.Weighted

	mu    sync.Mutex
	free  []*span // decoded, their buffers to be used again
	spare int64   // bytes of those buffers
}

// minRequests are in flight even with few decoders: most of a request's time is
// waiting.
const minRequests = 16

func newFetcher(images *bucket.Bucket, readAhead, limit int64, decoders int) *fetcher {
	return &fetcher{images: images, limit: limit, requests: max(minRequests, 4*decoders), bytes: readAhead, budget: semaphore.NewWeighted(readAhead)}
}

// run fetches the spans of the images and sends each on out, in order, before
// it is ready. It returns when all are fetched or ctx ends; either way every
// span that was sent becomes ready.
func (f *fetcher) run(ctx context.Context, images []schemas.Image, out chan<- *span) {
	defer close(out)
	var workers sync.WaitGroup
	defer workers.Wait()
	free := make(chan struct{}, f.requests)
	for first := 0; first < len(images); {
		n, size := cut(images[first:], f.limit)
		// A span larger than the whole budget takes all of it.
		held := min(size, f.bytes)
		if f.budget.Acquire(ctx, held) != nil {
			return
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		s := f.span(images[first:first+n], size)
		s.first, s.held = int64(first), held
		first += n
		workers.Go(func() {
			f.fetch(ctx, s)
			<-free
			s.ready <- struct{}{}
		})
		select {
		case out <- s:
		case <-ctx.Done():
			return
		}
	}
}

// one fetches an image alone. One that is not what was listed is a [*reject].
// The bytes are the caller's.
func (f *fetcher) one(ctx context.Context, img schemas.Image) ([]byte, error) {
	list := []schemas.Image{img}
	_, size := cut(list, f.limit)
	s := f.span(list, size)
	f.fetch(ctx, s)
	return s.data, s.err
}

func (f *fetcher) fetch(ctx context.Context, s *span) {
	if size := s.images[0].Size; size > f.limit {
		s.err = &reject{"too-large", fmt.Sprintf("%d bytes are more than preprocess.max_bytes (%d) allows", size, f.limit)}
		return
	}
	err := f.read(ctx, s)
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
func (f *fetcher) read(ctx context.Context, s *span) error {
	listed, size := s.images[0], int64(len(s.data))
	r, err := f.images.NewReader(ctx, listed.Key, listed.Offset, size)
	if err != nil && ctx.Err() == nil {
		// Stores differ in how they refuse a range beyond the end.
		if now, gone := f.images.Stat(ctx, listed.Key); gone == nil && now.Size < listed.Offset+size {
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
	const page = 16 << 10
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
		s.images, s.data, s.err, s.left = images, s.data[:size], nil, len(images)
		return s
	}
	return &span{images: images, left: len(images), ready: make(chan struct{}, 1), data: make([]byte, size, (size+page-1)&^(page-1))}
}

// done says that one image of the span is decoded. With the last one the span
// is over: its memory serves others.
func (f *fetcher) done(s *span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.left--
	if s.left > 0 {
		return
	}
	f.budget.Release(s.held)
	if room := int64(cap(s.data)); len(f.free) < f.requests && f.spare+room <= f.bytes {
		f.free, f.spare = append(f.free, s), f.spare+room
	}
}

// bytesOf returns the bytes of the i-th image of the span.
func (s *span) bytesOf(i int) []byte {
	from := s.images[i].Offset - s.images[0].Offset
	return s.data[from : from+s.images[i].Size]
}
