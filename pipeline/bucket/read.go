package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"gocloud.dev/blob"
)

// maxGet bounds what Get holds in memory, in bytes.
const maxGet = 64 << 20

// Reader reads a range of one object. It must be closed. It is not safe for
// concurrent use.
type Reader struct {
	bucket *Bucket
	ctx    context.Context
	key    string
	object Object
	off    int64 // of the next byte
	end    int64 // of the range, exclusive; negative until known
	src    *blob.Reader
	dog    *watchdog
	closed bool
}

// NewReader returns a reader of n bytes from byte off of the object under key;
// with n < 0, up to its end. The context holds for the reader's life. A range
// that begins or ends beyond the object is an error.
//
// When a read fails it goes on at its byte; if the object is then another one
// (by size, time or entity tag) it fails with [ErrChanged].
func (b *Bucket) NewReader(ctx context.Context, key string, off, n int64) (*Reader, error) {
	r := &Reader{bucket: b, ctx: ctx, key: key, off: off, end: -1}
	if n >= 0 {
		r.end = off + n
	}
	if err := b.retry(ctx, "read", key, func(ctx context.Context, _ bool) error { return r.open(ctx) }); err != nil {
		r.drop()
		return nil, b.fail("read", key, err)
	}
	return r, nil
}

// Object describes the object being read; its tag is empty if the provider does
// not tell (see [Options.ETag]).
func (r *Reader) Object() Object { return r.object }

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (n int, err error) {
	switch {
	case r.closed:
		return 0, r.bucket.fail("read", r.key, errors.New("the reader is closed"))
	case r.off == r.end:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	p = p[:min(int64(len(p)), r.end-r.off)]
	err = r.bucket.retry(r.ctx, "read", r.key, func(ctx context.Context, _ bool) error {
		if r.src == nil {
			if err := r.open(ctx); err != nil {
				return r.gone(err)
			}
		}
		r.dog.resume()
		var err error
		n, err = r.src.Read(p)
		r.dog.pause()
		r.off += int64(n)
		if n > 0 || err == nil {
			return nil // an error with bytes comes again with the next call
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		err = r.gone(r.dog.explain(err))
		r.drop()
		return err
	})
	return n, r.bucket.fail("read", r.key, err)
}

// Close releases the reader.
func (r *Reader) Close() error {
	r.closed = true
	r.drop()
	return nil
}

// open makes the request for what is left of the range.
func (r *Reader) open(ctx context.Context) error {
	release, err := r.bucket.reads.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	r.dog = watch(ctx, r.bucket.opts.RequestTimeout)
	n := int64(-1)
	if r.end >= 0 {
		n = r.end - r.off
	}
	r.src, err = r.bucket.blob.NewRangeReader(r.dog.ctx, r.key, r.off, n, nil)
	r.dog.pause()
	if err == nil {
		err = r.check()
	}
	if err != nil {
		err = r.dog.explain(err)
		r.drop()
	}
	return err
}

// check compares the object that was opened with the one that is being read.
func (r *Reader) check() error {
	o := Object{Key: r.key, Size: r.src.Size(), ModTime: r.src.ModTime(), ETag: r.bucket.tag(r.src.As)}
	switch {
	case r.object.Key == "":
		r.object = o
	case o.Size != r.object.Size || !o.ModTime.Equal(r.object.ModTime) || o.ETag != r.object.ETag:
		return fmt.Errorf("%w: at byte %d its size is %d and its tag %s, at first they were %d and %s",
			ErrChanged, r.off, o.Size, o.ETag, r.object.Size, r.object.ETag)
	}
	if r.end < 0 {
		r.end = max(r.off, o.Size)
	}
	if r.off > o.Size || r.end > o.Size {
		return &rangeError{r.off, r.end, o.Size}
	}
	return nil
}

// gone says of an object that is missing in the middle of a read that it
// changed: a store may look for the very version that was read.
func (r *Reader) gone(err error) error {
	if r.bucket.faultOf("read", err) != missing {
		return err
	}
	return fmt.Errorf("%w: at byte %d it is gone", ErrChanged, r.off)
}

// drop ends the request in progress, if any.
func (r *Reader) drop() {
	if r.src != nil {
		r.src.Close()
		r.src = nil
	}
	if r.dog != nil {
		r.dog.stop()
		r.dog = nil
	}
}

type rangeError struct{ off, end, size int64 }

func (e *rangeError) Error() string {
	return fmt.Sprintf("bytes %d to %d were asked for, the object has %d", e.off, e.end, e.size)
}

func (e *rangeError) Unwrap() error { return io.ErrUnexpectedEOF }

// ReadRange fills dst with the bytes from off on of the object under key. An
// object that is too short for that is an error.
func (b *Bucket) ReadRange(ctx context.Context, key string, off int64, dst []byte) error {
	if len(dst) == 0 {
		return nil
	}
	r, err := b.NewReader(ctx, key, off, int64(len(dst)))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, dst)
	return err
}

// Get returns the bytes of a small object: 64 MiB at most.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	r, err := b.NewReader(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.object.Size > maxGet {
		return nil, b.fail("get", key, fmt.Errorf("it has %d bytes, more than the %d that are read into memory", r.object.Size, maxGet))
	}
	data := make([]byte, r.object.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return data, nil
}

// holds reports whether the object under key has exactly the bytes of want.
func (b *Bucket) holds(ctx context.Context, key string, want io.Reader, size int64) (bool, error) {
	r, err := b.NewReader(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer r.Close()
	if r.object.Size != size {
		return false, nil
	}
	got, wanted := make([]byte, 256<<10), make([]byte, 256<<10)
	for left := size; left > 0; {
		n := min(left, int64(len(got)))
		if _, err := io.ReadFull(r, got[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(want, wanted[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(got[:n], wanted[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}
