package list

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"
	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

// Bucket is the part of a bucket that a scan needs; *[bucket.Bucket] is one. R
// is the type of its readers. Both methods must be safe for concurrent use.
type Bucket[R io.ReadCloser] interface {
	// List calls fn for each object whose key begins with prefix, in byte order.
	List(ctx context.Context, prefix string, fn func(bucket.Object) error) error
	// NewReader reads n bytes from byte off of the object under key.
	NewReader(ctx context.Context, key string, off, n int64) (R, error)
}

// Options says which images a scan takes. The zero value takes none, because
// it names no extensions.
type Options struct {
	// Prefix is what keys begin with, as stores mean it: "train" also takes
	// "train2/x.jpg", "train/" does not.
	Prefix string
	// Glob selects keys (of tar shards, not of their members) by what follows
	// the prefix and its slash: * and ? and [a-z] within one element, ** over
	// any number of elements. Empty takes every key.
	Glob string
	// Only is the path or bucket URL of a CSV file with a header key,member (empty
	// for a loose file) of the images to take, in any order; empty takes all. One
	// that is not there is an error of class [pipeline.Data].
	Only string
	// Limit ends the scan after so many images; 0 means no limit.
	Limit int64
	// Sample is the share of images to take, in (0, 1]; 0 means all. An image
	// is taken when the first 64 bits (big-endian) of
	//
	//	sha256("sela images.sample" 00 key 00 member)
	//
	// are below Sample·2⁶⁴: independent of the other images, and a smaller
	// share is a subset of a larger one. What is not taken is not checked.
	Sample float64
	// Extensions of image names, with or without the dot, in any case.
	Extensions []string
	// Concurrency is the number of tar shards indexed at a time; 0 means 8.
	Concurrency int
}

// Summary is what a scan found.
type Summary struct {
	Images   int64 // rows emitted
	Rejected int64 // quarantine rows
	Skipped  int64 // objects and members that are no images or not chosen
	Bytes    int64 // of the images emitted
	// Digest is the sha256, in hex, over "sela listing 1\n" and, for each image
	// in order, key, member, size and offset: strings as their length and bytes,
	// numbers and lengths as 8 bytes, little-endian. It is the same for the same
	// images in another place or at another time, so that it can stand in tables
	// that must be byte-identical.
	Digest string
	// Snapshot is the same over "sela snapshot 1\n" with the entity tag after
	// the offset: it changes when an object is written anew, even to the same
	// bytes, and tells whether there is anything new to label.
	Snapshot string
}

const (
	looseBatch  = 256 // rows of loose objects passed on at a time
	tarBatch    = 1024
	tarNames    = 64 << 10 // bytes of names after which a tar's batch is passed on
	tarAhead    = 64       // batches a tar may be ahead of its turn
	concurrency = 8
)

// item is one finding of the scan: an image, a rejection or, at the end of a
// batch, neither (an image has bytes).
type item struct {
	image    schemas.Image
	rejected *schemas.Quarantine
	skipped  int64 // what was passed over since the item before
}

var errLimit = errors.New("limit reached")

// Scan lists the images of b in order of (key, offset) and numbers them from 0.
// It calls emit for each image and reject for each quarantine row, in order and
// from its own goroutine only; an error of either ends the scan and is returned
// as it is. Rows, rejections and summary are the same for any concurrency.
//
// Errors of the store end the scan. A listing without any image is an error of
// class [pipeline.Data], an object that changes under the scan one of class
// [pipeline.Transient], a store that lists out of order or options that make no
// sense ones of class [pipeline.Config].
func Scan[R io.ReadCloser](ctx context.Context, b Bucket[R], opts Options, emit func(schemas.Image) error, reject func(schemas.Quarantine) error) (Summary, error) {
	f, err := newFilter(opts)
	if err != nil {
		return Summary{}, pipeline.BadConfig(err)
	}
	if opts.Only != "" {
		if f.only, err = openOnly(ctx, opts.Only); err != nil {
			return Summary{}, err
		}
	}
	s := &scanner{
		filter: f,
		list:   b.List,
		open: func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
			return b.NewReader(ctx, key, off, n)
		},
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = concurrency
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	s.group, running = errgroup.WithContext(running)
	s.sources = make(chan (<-chan []item), opts.Concurrency)
	s.slots = make(chan struct{}, opts.Concurrency)
	s.group.Go(func() error { return s.walk(running) })

	t := newTally(opts.Limit, emit, reject)
	t.only = f.only
	took := t.drain(running, s.sources)
	cancel()
	found := s.group.Wait()
	switch {
	case errors.Is(took, errLimit):
	case took != nil && !errors.Is(took, errStopped):
		return t.summary(), took
	case ctx.Err() != nil:
		return t.summary(), fmt.Errorf("list images: %w", ctx.Err())
	case found != nil:
		return t.summary(), fmt.Errorf("list images: %w", found)
	case took == nil:
		if err := f.only.missing(f); err != nil {
			return t.summary(), err
		}
	}
	if t.sum.Images == 0 {
		return t.summary(), pipeline.BadData(s.noImages(opts.Prefix, t))
	}
	return t.summary(), nil
}

// scanner is the producing side of a scan: one goroutine walks the keys, and
// each tar shard is indexed by one of its own.
type scanner struct {
	filter *filter
	list   func(context.Context, string, func(bucket.Object) error) error
	open   func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	group  *errgroup.Group
	// sources yields the batches of each stretch of keys, in key order. Tars
	// begin in key order too, so the one whose turn it is always has a slot.
	sources chan (<-chan []item)
	slots   chan struct{}
	objects int64 // seen by walk; read after it ended
}

// walk passes on what it finds. It closes sources only when it saw everything,
// so that an end of sources is never taken for a complete listing.
func (s *scanner) walk(ctx context.Context) error {
	var batch []item
	var skipped int64
	add := func(it item) error {
		it.skipped, skipped = skipped, 0
		batch = append(batch, it)
		if len(batch) < looseBatch {
			return nil
		}
		full := batch
		batch = nil
		return s.pass(ctx, full)
	}
	last := ""
	err := s.list(ctx, s.filter.prefix, func(o bucket.Object) error {
		if o.Key <= last && s.objects > 0 || !strings.HasPrefix(o.Key, s.filter.prefix) {
			return pipeline.BadConfig(fmt.Errorf("the store lists %q after %q under prefix %q: it must list in byte order of the keys", o.Key, last, s.filter.prefix))
		}
		last = o.Key
		s.objects++
		if o.IsDir || strings.HasSuffix(o.Key, "/") {
			return nil
		}
		kind := s.filter.object(o.Key)
		if kind == other || kind != shard && !s.filter.chosen(o.Key, "") {
			skipped++
			return nil
		}
		switch q := refuseObject(o, kind); {
		case q != nil:
			return add(item{rejected: q})
		case kind == shard:
			batch = append(batch, item{skipped: skipped})
			full := batch
			batch, skipped = nil, 0
			if err := s.pass(ctx, full); err != nil {
				return err
			}
			return s.index(ctx, o)
		default:
			return add(item{image: schemas.Image{Key: o.Key, Size: o.Size, ETag: o.ETag}})
		}
	})
	if err != nil {
		return err
	}
	if err := s.pass(ctx, append(batch, item{skipped: skipped})); err != nil {
		return err
	}
	close(s.sources)
	return nil
}

// pass hands on a finished batch.
func (s *scanner) pass(ctx context.Context, batch []item) error {
	source := make(chan []item, 1)
	source <- batch
	close(source)
	return send(ctx, s.sources, source)
}

// index begins to index a tar, when there is a slot.
func (s *scanner) index(ctx context.Context, o bucket.Object) error {
	if err := send(ctx, s.slots, struct{}{}); err != nil {
		return err
	}
	source := make(chan []item, tarAhead)
	s.group.Go(func() error {
		defer func() { <-s.slots }()
		t := &indexer{
			filter: s.filter,
			object: o,
			window: newWindow(ctx, s.open, o.Key, o.Size),
			pass:   func(batch []item) error { return send(ctx, source, batch) },
		}
		if err := t.run(); err != nil {
			return fmt.Errorf("index tar %s: %w", o.Key, err)
		}
		close(source)
		return nil
	})
	return send(ctx, s.sources, source)
}

// send sends v unless the scan stopped.
func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scanner) noImages(prefix string, t *tally) error {
	where := "in the bucket"
	if prefix != "" {
		where = fmt.Sprintf("under %q", prefix)
	}
	err := fmt.Errorf("no images %s (%d objects seen, %d objects and members skipped, %d rejected): check images.prefix, images.glob, images.only and images.sample; extensions taken are %s, and *.tar",
		where, s.objects, t.sum.Skipped, t.sum.Rejected, strings.Join(s.filter.extensions, " "))
	if q := t.first; q != nil {
		err = fmt.Errorf("%w; first rejected: %q %q: %s", err, q.Key, q.Member, q.Message)
	}
	return err
}
