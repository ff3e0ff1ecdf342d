package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"sela/pipeline/bucket/filedriver"
)

// inFlight is how many parts of an upload a driver may hold: it reads them
// ahead, so that the source is not read while they travel. A part gets a
// request's time.
const inFlight = 5

// longBody is the size, in bytes, from which a body is not sent again on the
// mere chance that its key is free.
const longBody = 1 << 20

// errSource marks a failure of what is uploaded, not of the store.
var errSource = errors.New("read what is to be uploaded")

// Create stores data under key, which must be free: if it is taken it fails
// with [ErrExists] and changes nothing. Of any number of racing writers one
// succeeds. If an attempt failed and the next one finds the key taken by the
// very same bytes, that was the failed attempt, and Create succeeds; so data
// should name its writer. (A driver that repeats requests itself can yield
// ErrExists for an attempt of one's own: see [Provider].)
func (b *Bucket) Create(ctx context.Context, key string, data []byte) error {
	return b.fail("create", key, b.write(ctx, "create", key, memory(data), true, false))
}

// Put stores data under key, in the place of what was there.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.fail("put", key, b.write(ctx, "put", key, memory(data), false, false))
}

// Upload stores the file at localPath, which must not change meanwhile, under
// key, which must be free or hold the same bytes already; otherwise it fails
// with [ErrExists] and changes nothing. The file is sent in one go and streamed,
// never held in memory.
func (b *Bucket) Upload(ctx context.Context, key, localPath string) error {
	info, err := os.Stat(localPath)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", localPath)
	}
	if err != nil {
		return b.fail("upload", key, fmt.Errorf("%w: %w", errSource, err))
	}
	src := source{info.Size(), func() (io.ReadCloser, error) { return os.Open(localPath) }}
	return b.fail("upload", key, b.write(ctx, "upload", key, src, true, true))
}

// Copy stores the object under key as dstKey of the bucket dst, like
// [Bucket.Upload]. The bytes travel through this process.
func (b *Bucket) Copy(ctx context.Context, key string, dst *Bucket, dstKey string) error {
	o, err := b.Stat(ctx, key)
	if err != nil {
		return err
	}
	src := source{o.Size, func() (io.ReadCloser, error) {
		r, err := b.NewReader(ctx, key, 0, -1)
		if err != nil {
			return nil, err
		}
		return r, nil
	}}
	return dst.fail("copy to", dstKey, dst.write(ctx, "copy to", dstKey, src, true, true))
}

// Delete removes the object under key; there need not be one.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	err := b.request(ctx, "delete", key, func(ctx context.Context) error { return b.blob.Delete(ctx, key) })
	if err != nil && b.faultOf("delete", err) == missing {
		return nil
	}
	return b.fail("delete", key, err)
}

// Probe checks that the bucket can be written, read and deleted from, and that
// its store honours create-if-absent; if not, it fails with [ErrOverwrites].
func (b *Bucket) Probe(ctx context.Context) (err error) {
	key := "sela-probe-" + rand.Text()
	defer func() {
		err = errors.Join(err, b.Delete(context.WithoutCancel(ctx), key))
	}()
	first, second := []byte("first "+key), []byte("second "+key)
	if err := b.Create(ctx, key, first); err != nil {
		return err
	}
	switch err := b.Create(ctx, key, second); {
	case err == nil:
		return b.fail("probe", "", ErrOverwrites)
	case !errors.Is(err, ErrExists):
		return err
	}
	got, err := b.Get(ctx, key)
	if err == nil && !bytes.Equal(got, first) {
		err = b.fail("probe", "", fmt.Errorf("%w: a refused write took effect", ErrOverwrites))
	}
	return err
}

// source is what a write sends; it can be opened once for each attempt.
type source struct {
	size int64
	open func() (io.ReadCloser, error)
}

func memory(data []byte) source {
	return source{int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// write stores src under key. An exclusive write that finds the key taken by
// the same bytes succeeds if it may be its own, or if it is idempotent.
func (b *Bucket) write(ctx context.Context, op, key string, src source, exclusive, idempotent bool) error {
	if b.root != "" {
		if err := filedriver.CheckKey(key); err != nil {
			return err
		}
	}
	opts := &blob.WriterOptions{ContentType: contentType(key), IfNotExist: exclusive}
	return b.retry(ctx, op, key, func(ctx context.Context, again bool) error {
		// A store that refuses a long body may close the connection instead of
		// answering: before it is sent again, see whether the key is taken.
		var err error = errTaken
		if !again || !exclusive || src.size < longBody || !b.there(ctx, key) {
			err = b.send(ctx, key, src, opts)
		}
		if err == nil || !exclusive || !b.taken(err) {
			return err
		}
		if again || idempotent {
			same, err := b.compare(ctx, key, src)
			if same || err != nil {
				return err
			}
		}
		return fmt.Errorf("%w: %w", ErrExists, err)
	})
}

// errTaken says that an object was seen where one is to be created.
var errTaken = errors.New("there is an object under this key")

// there reports whether there is an object under key; not, if that cannot be
// found out.
func (b *Bucket) there(ctx context.Context, key string) bool {
	return b.limited(ctx, func(ctx context.Context) error {
		_, err := b.blob.Attributes(ctx, key)
		return err
	}) == nil
}

// taken reports whether a write failed for what is there already.
func (b *Bucket) taken(err error) bool {
	if errors.Is(err, errTaken) {
		return true
	}
	switch b.diagnose(err, false) {
	case taken:
		return true
	case unknown:
		code := gcerrors.Code(err)
		return code == gcerrors.FailedPrecondition || code == gcerrors.AlreadyExists
	}
	return false
}

// send makes one attempt. It goes through blob.Bucket.Upload because a writer
// of gocloud's Azure driver panics when a streamed write fails.
func (b *Bucket) send(ctx context.Context, key string, src source, opts *blob.WriterOptions) error {
	r, err := src.open()
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	defer r.Close()
	release, err := b.writes.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	dog := watch(ctx, inFlight*b.opts.RequestTimeout)
	defer dog.stop()
	s := &sending{r: r, left: src.size, dog: dog}
	err = b.blob.Upload(dog.ctx, key, s, opts)
	switch {
	case s.err != nil:
		return s.err
	case err != nil:
		return dog.explain(err)
	case s.left != 0:
		return fmt.Errorf("the driver left %d of %d bytes unread", s.left, src.size)
	}
	return nil
}

func (b *Bucket) compare(ctx context.Context, key string, src source) (bool, error) {
	r, err := src.open()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errSource, err)
	}
	defer r.Close()
	return b.holds(ctx, key, r, src.size)
}

// sending is the source as the driver reads it. When it fails it ends the
// request, since package blob completes an object whose source failed.
type sending struct {
	r    io.Reader
	left int64
	dog  *watchdog
	err  error
}

func (s *sending) Read(p []byte) (int, error) {
	s.dog.resume()
	n, err := s.r.Read(p)
	s.left -= int64(n)
	switch {
	case s.left < 0, err == io.EOF && s.left > 0:
		s.err = fmt.Errorf("%w: its size changed by %d bytes", errSource, -s.left)
	case err != nil && err != io.EOF:
		s.err = fmt.Errorf("%w: %w", errSource, err)
	default:
		return n, err
	}
	s.dog.cancel(s.err)
	return n, s.err
}

// contentType returns the media type of the files this pipeline writes.
func contentType(key string) string {
	switch path.Ext(key) {
	case ".json":
		return "application/json"
	case ".parquet":
		return "application/vnd.apache.parquet"
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".jpg":
		return "image/jpeg"
	case ".md":
		return "text/markdown; charset=utf-8"
	}
	return "application/octet-stream"
}
