package filedriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// Scheme is the URL scheme of folders.
const Scheme = "file"

// Root is the absolute path of a bucket's folder; blob.Bucket.As gives it.
type Root string

// ETag is the entity tag of an object, as in blob.Attributes.ETag; the As of
// readers and of listed objects gives it.
type ETag string

// Options configures a bucket.
type Options struct {
	// CreateDir makes the bucket's folder, and those above it, if it is missing.
	CreateDir bool
}

// Open returns the bucket of the files below dir.
func Open(dir string, opts Options) (*blob.Bucket, error) {
	b, err := New(dir, opts)
	if err != nil {
		return nil, err
	}
	return blob.NewBucket(b), nil
}

// New returns the driver of the bucket of the files below dir. It is safe for
// concurrent use, as are several of them, in several processes, on one folder.
func New(dir string, opts Options) (driver.Bucket, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", dir, err)
	}
	if opts.CreateDir {
		if err := os.MkdirAll(abs, 0o777); err != nil {
			return nil, fmt.Errorf("create folder: %w", err)
		}
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &bucket{dir: abs, root: root}, nil
}

// URLOpener opens file:///absolute/path and file:relative/path. The one query
// parameter is create_dir: with any value but "" and "false", a missing folder
// is made.
type URLOpener struct{}

// OpenBucketURL implements [blob.BucketURLOpener].
func (URLOpener) OpenBucketURL(_ context.Context, u *url.URL) (*blob.Bucket, error) {
	dir, opts, err := parseURL(u)
	if err != nil {
		return nil, fmt.Errorf("open bucket %v: %w", u, err)
	}
	return Open(dir, opts)
}

func parseURL(u *url.URL) (dir string, opts Options, err error) {
	for name, values := range u.Query() {
		if name != "create_dir" {
			return "", opts, fmt.Errorf("unknown parameter %q; the one there is is create_dir", name)
		}
		opts.CreateDir = values[0] != "" && values[0] != "false"
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", opts, fmt.Errorf("%q stands where a host name does; write file:///absolute/path or file:relative/path", u.Host)
	}
	dir = u.Path
	if u.Opaque != "" {
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			return "", opts, err
		}
	}
	if dir == "" {
		return "", opts, errors.New("it names no folder; write file:///absolute/path or file:relative/path")
	}
	return dir, opts, nil
}

type bucket struct {
	dir  string   // for reads, which follow links
	root *os.Root // for writes, which do not leave it

	sweep sync.Once

	mu      sync.Mutex
	cursors []*cursor // listings between two of their pages, the oldest first
}

func (b *bucket) path(name string) string { return filepath.Join(b.dir, filepath.FromSlash(name)) }

// stat returns what key's file is, following links.
func (b *bucket) stat(key string) (name string, info fs.FileInfo, err error) {
	if name, err = locate(key); err != nil {
		return "", nil, err
	}
	if info, err = os.Stat(b.path(name)); err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, &fs.PathError{Op: "open", Path: b.path(name), Err: fs.ErrNotExist}
	}
	return name, info, nil
}

func etag(info fs.FileInfo) ETag {
	var inode uint64
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	return ETag(fmt.Sprintf(`"%x-%x-%x"`, inode, info.Size(), info.ModTime().UnixNano()))
}

func asETag(info fs.FileInfo) func(any) bool {
	return func(i any) bool {
		p, ok := i.(*ETag)
		if ok {
			*p = etag(info)
		}
		return ok
	}
}

// Attributes implements [driver.Bucket].
func (b *bucket) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, info, err := b.stat(key)
	if err != nil {
		return nil, err
	}
	a := readAttributes(b.path(name))
	return &driver.Attributes{
		CacheControl:       a.CacheControl,
		ContentDisposition: a.ContentDisposition,
		ContentEncoding:    a.ContentEncoding,
		ContentLanguage:    a.ContentLanguage,
		ContentType:        a.ContentType,
		Metadata:           a.Metadata,
		ModTime:            info.ModTime(),
		Size:               info.Size(),
		ETag:               string(etag(info)),
		AsFunc:             asETag(info),
	}, nil
}

// NewRangeReader implements [driver.Bucket]. The reader goes on with the bytes
// it began with when the key is replaced meanwhile.
func (b *bucket) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, _, err := b.stat(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(b.path(name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && opts.BeforeRead != nil {
		err = opts.BeforeRead(func(any) bool { return false })
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if length < 0 {
		length = max(0, info.Size()-offset)
	}
	return &reader{
		SectionReader: io.NewSectionReader(f, offset, length),
		ctx:           ctx,
		file:          f,
		as:            asETag(info),
		attributes: driver.ReaderAttributes{
			ContentType: readAttributes(b.path(name)).ContentType,
			ModTime:     info.ModTime(),
			Size:        info.Size(),
		},
	}, nil
}

type reader struct {
	*io.SectionReader
	ctx        context.Context
	file       *os.File
	as         func(any) bool
	attributes driver.ReaderAttributes
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.SectionReader.Read(p)
}

func (r *reader) Close() error                         { return r.file.Close() }
func (r *reader) Attributes() *driver.ReaderAttributes { return &r.attributes }
func (r *reader) As(i any) bool                        { return r.as(i) }

// Delete implements [driver.Bucket]. Folders it leaves empty are removed, as in
// a store that has no folders.
func (b *bucket) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := locate(key)
	if err != nil {
		return err
	}
	info, err := b.root.Lstat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &fs.PathError{Op: "remove", Path: b.path(name), Err: fs.ErrNotExist}
	}
	if opts.BeforeDelete != nil {
		if err := opts.BeforeDelete(func(any) bool { return false }); err != nil {
			return err
		}
	}
	if err := b.root.Remove(name); err != nil {
		return err
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if info, err := b.root.Lstat(dir); err != nil || !info.IsDir() || b.root.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// SignedURL implements [driver.Bucket]: folders have none.
func (b *bucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}

// Close implements [driver.Bucket].
func (b *bucket) Close() error { return b.root.Close() }

// As implements [driver.Bucket] for [*Root].
func (b *bucket) As(i any) bool {
	p, ok := i.(*Root)
	if ok {
		*p = Root(b.dir)
	}
	return ok
}

// ErrorAs implements [driver.Bucket] for **fs.PathError.
func (b *bucket) ErrorAs(err error, i any) bool {
	p, ok := i.(**fs.PathError)
	return ok && errors.As(err, p)
}

// ErrorCode implements [driver.Bucket].
func (b *bucket) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return gcerrors.Unimplemented
	case errors.Is(err, fs.ErrExist):
		return gcerrors.FailedPrecondition
	case errors.Is(err, fs.ErrInvalid):
		return gcerrors.InvalidArgument
	case errors.Is(err, fs.ErrPermission):
		return gcerrors.PermissionDenied
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return gcerrors.NotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gcerrors.ResourceExhausted
	}
	return gcerrors.Unknown
}
