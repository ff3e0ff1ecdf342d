package buckettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// ErrInjected is what injected faults wrap.
var ErrInjected = errors.New("injected fault")

// Faults says which calls of a bucket made by [Faulty] go wrong. Calls are
// counted from 1 over all its goroutines; a rhythm of n hits the calls n, 2n, …,
// one of 0 none. The fields must not change while the bucket is in use.
type Faults struct {
	// Refuse is the rhythm, over all calls, of those that fail before they
	// reach the store.
	Refuse int
	// Applied is the rhythm, over writes, copies and deletes that took effect,
	// of those that report failure.
	Applied int
	// Break is the rhythm, over readers, of those that fail after BreakAfter bytes.
	Break      int
	BreakAfter int64
	// Stall is the rhythm, over readers, of those that give no byte until their
	// context ends.
	Stall int
	// Latency is waited before each call, unless its context ends.
	Latency time.Duration
	// Code is what the injected errors are classified as; the zero value means
	// [gcerrors.Internal], which is worth a retry.
	Code gcerrors.ErrorCode

	calls, writes, readers, injected atomic.Int64
}

// Calls returns how many calls were made.
func (f *Faults) Calls() int { return int(f.calls.Load()) }

// Injected returns how many faults there were.
func (f *Faults) Injected() int { return int(f.injected.Load()) }

func (f *Faults) hit(counter *atomic.Int64, rhythm int) bool {
	n := counter.Add(1)
	if rhythm <= 0 || n%int64(rhythm) != 0 {
		return false
	}
	f.injected.Add(1)
	return true
}

func (f *Faults) before(ctx context.Context, call, key string) error {
	if f.Latency > 0 {
		select {
		case <-time.After(f.Latency):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.hit(&f.calls, f.Refuse) {
		return fmt.Errorf("%w: %s %q refused", ErrInjected, call, key)
	}
	return nil
}

func (f *Faults) after(err error, call, key string) error {
	if err == nil && f.hit(&f.writes, f.Applied) {
		return fmt.Errorf("%w: %s %q took effect, its answer was lost", ErrInjected, call, key)
	}
	return err
}

// Faulty returns a bucket that does what inner does, with the faults f. It
// closes inner when it is closed.
func Faulty(inner *blob.Bucket, f *Faults) *blob.Bucket {
	return blob.NewBucket(&faulty{inner, f})
}

// faulty is a driver on top of a whole bucket, so that it can wrap any driver.
type faulty struct {
	inner  *blob.Bucket
	faults *Faults
}

func (b *faulty) As(i any) bool                 { return b.inner.As(i) }
func (b *faulty) ErrorAs(err error, i any) bool { return b.inner.ErrorAs(err, i) }
func (b *faulty) Close() error                  { return b.inner.Close() }

func (b *faulty) ErrorCode(err error) gcerrors.ErrorCode {
	if !errors.Is(err, ErrInjected) {
		return gcerrors.Code(err)
	}
	if b.faults.Code == gcerrors.OK {
		return gcerrors.Internal
	}
	return b.faults.Code
}

func (b *faulty) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := b.faults.before(ctx, "attributes of", key); err != nil {
		return nil, err
	}
	a, err := b.inner.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl:       a.CacheControl,
		ContentDisposition: a.ContentDisposition,
		ContentEncoding:    a.ContentEncoding,
		ContentLanguage:    a.ContentLanguage,
		ContentType:        a.ContentType,
		Metadata:           a.Metadata,
		CreateTime:         a.CreateTime,
		ModTime:            a.ModTime,
		Size:               a.Size,
		MD5:                a.MD5,
		ETag:               a.ETag,
		AsFunc:             a.As,
	}, nil
}

func (b *faulty) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if err := b.faults.before(ctx, "list", opts.Prefix); err != nil {
		return nil, err
	}
	token, size := opts.PageToken, opts.PageSize
	if len(token) == 0 {
		token = blob.FirstPageToken
	}
	if size == 0 {
		size = 1000
	}
	objects, next, err := b.inner.ListPage(ctx, token, size, &blob.ListOptions{
		Prefix: opts.Prefix, Delimiter: opts.Delimiter, BeforeList: opts.BeforeList})
	if err != nil {
		return nil, err
	}
	page := &driver.ListPage{NextPageToken: next}
	for _, o := range objects {
		page.Objects = append(page.Objects, &driver.ListObject{
			Key: o.Key, ModTime: o.ModTime, Size: o.Size, MD5: o.MD5, IsDir: o.IsDir, AsFunc: o.As})
	}
	return page, nil
}

func (b *faulty) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := b.faults.before(ctx, "read", key); err != nil {
		return nil, err
	}
	r, err := b.inner.NewRangeReader(ctx, key, offset, length, &blob.ReaderOptions{BeforeRead: opts.BeforeRead})
	if err != nil {
		return nil, err
	}
	fr := &faultyReader{Reader: r, ctx: ctx, left: -1}
	n := b.faults.readers.Add(1)
	if k := int64(b.faults.Break); k > 0 && n%k == 0 {
		b.faults.injected.Add(1)
		fr.left = b.faults.BreakAfter
	}
	if k := int64(b.faults.Stall); k > 0 && n%k == 0 {
		b.faults.injected.Add(1)
		fr.stall = true
	}
	return fr, nil
}

type faultyReader struct {
	*blob.Reader
	ctx   context.Context
	left  int64 // bytes until it breaks; negative: never
	stall bool
}

func (r *faultyReader) Read(p []byte) (int, error) {
	if r.stall {
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	if r.left < 0 {
		return r.Reader.Read(p)
	}
	if r.left == 0 {
		return 0, fmt.Errorf("%w: connection reset", ErrInjected)
	}
	n, err := r.Reader.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

func (r *faultyReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{ContentType: r.ContentType(), ModTime: r.ModTime(), Size: r.Size()}
}

func (b *faulty) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := b.faults.before(ctx, "write", key); err != nil {
		return nil, err
	}
	return &faultyWriter{ctx: ctx, bucket: b, key: key, opts: &blob.WriterOptions{
		BufferSize:                  opts.BufferSize,
		MaxConcurrency:              opts.MaxConcurrency,
		CacheControl:                opts.CacheControl,
		ContentDisposition:          opts.ContentDisposition,
		ContentEncoding:             opts.ContentEncoding,
		ContentLanguage:             opts.ContentLanguage,
		ContentType:                 contentType,
		ContentMD5:                  opts.ContentMD5,
		Metadata:                    maps.Clone(opts.Metadata),
		BeforeWrite:                 opts.BeforeWrite,
		DisableContentTypeDetection: true,
		IfNotExist:                  opts.IfNotExist,
	}}, nil
}

// faultyWriter uploads, or writes if it must: gocloud's Azure driver panics when
// what was written cannot be sent.
type faultyWriter struct {
	ctx    context.Context
	bucket *faulty
	key    string
	opts   *blob.WriterOptions
	w      *blob.Writer // of Write, else nil
	done   bool         // Upload was called
	err    error        // its error
}

func (w *faultyWriter) Upload(r io.Reader) error {
	w.done, w.err = true, w.bucket.inner.Upload(w.ctx, w.key, r, w.opts)
	return w.err
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

func (w *faultyWriter) open() (err error) {
	if w.w == nil {
		w.w, err = w.bucket.inner.NewWriter(w.ctx, w.key, w.opts)
	}
	return err
}

func (w *faultyWriter) Close() error {
	err := w.err
	if !w.done {
		if err = w.open(); err == nil {
			err = w.w.Close()
		}
	}
	return w.bucket.faults.after(err, "write", w.key)
}

func (b *faulty) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	if err := b.faults.before(ctx, "copy", srcKey); err != nil {
		return err
	}
	return b.faults.after(b.inner.Copy(ctx, dstKey, srcKey, &blob.CopyOptions{BeforeCopy: opts.BeforeCopy}), "copy", srcKey)
}

func (b *faulty) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := b.faults.before(ctx, "delete", key); err != nil {
		return err
	}
	return b.faults.after(b.inner.DeleteWithOptions(ctx, key, &blob.DeleteOptions{BeforeDelete: opts.BeforeDelete}), "delete", key)
}

func (b *faulty) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	if err := b.faults.before(ctx, "sign", key); err != nil {
		return "", err
	}
	return b.inner.SignedURL(ctx, key, &blob.SignedURLOptions{
		Expiry: opts.Expiry, Method: opts.Method, ContentType: opts.ContentType,
		EnforceAbsentContentType: opts.EnforceAbsentContentType, BeforeSign: opts.BeforeSign})
}
