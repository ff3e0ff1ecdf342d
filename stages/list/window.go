package list

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

const (
	// maxSkip is the most bytes that are read to be passed over. Beyond it a new
	// request is cheaper: at 100 MB/s 1 MiB takes 10 ms, as long as a request.
	maxSkip = 1 << 20
	// firstSpan is what is asked for after a jump: room for a header or a few.
	firstSpan = 64 << 10
	// spanGrowth widens the next range when one was read to its end, so that
	// small members behind a large one soon come in one stream again.
	spanGrowth = 8
)

// window reads an object of known size from its beginning. As an [io.Seeker],
// which package tar looks for to pass over data, it leaves large stretches out
// instead of reading them. Reads begin with one request for the whole object;
// after a jump the requests are small and grow.
type window struct {
	ctx  context.Context
	open func(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	key  string
	size int64 // of the object
	pos  int64 // of the next byte
	end  int64 // of the range that is open
	span int64 // of the next range
	body io.ReadCloser
	buf  *bufio.Reader
	// zeros counts the zero bytes at the end of what was read in one stretch.
	zeros int64
	// err is the first error of the store. It tells what could not be read from
	// what is no tar, and the end of the object is not among them.
	err error
}

func newWindow(ctx context.Context, open func(context.Context, string, int64, int64) (io.ReadCloser, error), key string, size int64) *window {
	return &window{ctx: ctx, open: open, key: key, size: size, span: size}
}

// Read implements [io.Reader].
func (w *window) Read(p []byte) (int, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.pos == w.size:
		return 0, io.EOF
	case w.pos == w.end || w.body == nil:
		if err := w.reopen(); err != nil {
			return 0, w.fail(err)
		}
	}
	n, err := w.buf.Read(p[:min(int64(len(p)), w.end-w.pos)])
	w.pos += int64(n)
	w.countZeros(p[:n])
	if n > 0 || err == nil {
		return n, nil // an error with bytes comes again with the next call
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, w.fail(err)
}

// Seek implements [io.Seeker], forward from the current position only. Beyond
// the object's end it goes to the end, where the next read tells.
func (w *window) Seek(offset int64, whence int) (int64, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case whence != io.SeekCurrent || offset < 0:
		return 0, errors.New("a window moves forward only")
	}
	if offset > 0 {
		w.zeros = 0
	}
	offset = min(offset, w.size-w.pos)
	if w.body != nil && w.pos+offset <= w.end && (offset <= maxSkip || offset <= int64(w.buf.Buffered())) {
		n, err := w.buf.Discard(int(offset))
		w.pos += int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return w.pos, w.fail(err)
	}
	if offset > 0 {
		w.close()
		w.pos += offset
	}
	if offset > maxSkip {
		w.span = firstSpan
	}
	return w.pos, nil
}

func (w *window) countZeros(p []byte) {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0 {
			w.zeros = int64(len(p) - 1 - i)
			return
		}
	}
	w.zeros += int64(len(p))
}

func (w *window) reopen() error {
	w.close()
	n := min(w.span, w.size-w.pos)
	body, err := w.open(w.ctx, w.key, w.pos, n)
	if err != nil {
		return err
	}
	w.body, w.end = body, w.pos+n
	if w.span < w.size {
		w.span *= spanGrowth
	}
	if w.buf == nil {
		w.buf = bufio.NewReaderSize(body, int(min(firstSpan, max(512, w.size))))
	} else {
		w.buf.Reset(body)
	}
	return nil
}

func (w *window) close() {
	if w.body != nil {
		_ = w.body.Close() // nothing was written
		w.body = nil
	}
}

// fail keeps an error of the store. An object that is another one than was
// listed is worth another try: the next listing sees the new one.
func (w *window) fail(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("at byte %d: %w", w.pos, err)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, bucket.ErrChanged) || errors.Is(err, bucket.ErrNotFound) {
		err = pipeline.Retryable(fmt.Errorf("%w; the object is not the one of %d bytes that was listed: list again when nobody writes to the bucket", err, w.size))
	}
	w.err = err
	return err
}
