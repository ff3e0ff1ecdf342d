package filedriver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"gocloud.dev/blob/driver"
)

const (
	// staleAfter is the age at which a temporary file can have no living writer:
	// each write to it makes it young again.
	staleAfter = 24 * time.Hour

	// publishTries bounds how often a folder may vanish between its making and
	// its use: a delete removes the folders it leaves empty.
	publishTries = 100
)

// NewTypedWriter implements [driver.Bucket].
func (b *bucket) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	w, err := b.create(ctx, key)
	if err != nil {
		return nil, err
	}
	w.exclusive = opts.IfNotExist
	w.attributes = attributes{
		ContentType:        contentType,
		CacheControl:       opts.CacheControl,
		ContentDisposition: opts.ContentDisposition,
		ContentEncoding:    opts.ContentEncoding,
		ContentLanguage:    opts.ContentLanguage,
		Metadata:           opts.Metadata,
	}
	if opts.BeforeWrite != nil {
		if err := opts.BeforeWrite(func(any) bool { return false }); err != nil {
			w.fail(err)
			return nil, w.Close()
		}
	}
	return w, nil
}

// Copy implements [driver.Bucket].
func (b *bucket) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	name, _, err := b.stat(srcKey)
	if err != nil {
		return err
	}
	src, err := os.Open(b.path(name))
	if err != nil {
		return err
	}
	defer src.Close()
	if opts.BeforeCopy != nil {
		if err := opts.BeforeCopy(func(any) bool { return false }); err != nil {
			return err
		}
	}
	w, err := b.create(ctx, dstKey)
	if err != nil {
		return err
	}
	w.attributes = readAttributes(b.path(name))
	w.Upload(src)
	return w.Close()
}

// create returns a writer to a new temporary file that replaces key.
func (b *bucket) create(ctx context.Context, key string) (*writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := locate(key)
	if err != nil {
		return nil, err
	}
	b.sweep.Do(b.removeStale)
	temporary := path.Join(temporaryDir, rand.Text())
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	f, err := b.root.OpenFile(temporary, flags, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		if err = b.root.MkdirAll(temporaryDir, 0o777); err == nil {
			f, err = b.root.OpenFile(temporary, flags, 0o666)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create temporary file in %s: %w", b.dir, err)
	}
	return &writer{ctx: ctx, bucket: b, file: f, temporary: temporary, key: key, name: name}, nil
}

// removeStale removes the temporary files of writers that died. It is tidying:
// what it cannot remove is harmless.
func (b *bucket) removeStale() {
	dir, err := b.root.Open(temporaryDir)
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && time.Since(info.ModTime()) > staleAfter {
				b.root.Remove(path.Join(temporaryDir, e.Name()))
			}
		}
		if err != nil || len(entries) == 0 {
			return
		}
	}
}

// writer collects an object in a temporary file until Close makes it visible.
type writer struct {
	ctx        context.Context
	bucket     *bucket
	file       *os.File
	temporary  string
	key, name  string
	attributes attributes
	exclusive  bool
	err        error // the first failure, after which Close publishes nothing
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) Write(p []byte) (int, error) {
	w.fail(w.ctx.Err())
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.file.Write(p)
	w.fail(err)
	return n, err
}

// Upload implements [driver.Uploader]. Package blob closes a writer whose
// source failed as if it were complete; this one remembers the failure.
func (w *writer) Upload(r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 1<<20))
	w.fail(err)
	return err
}

func (w *writer) Close() error {
	defer w.bucket.root.Remove(w.temporary)
	w.fail(w.ctx.Err())
	if w.err == nil {
		w.fail(w.attributes.write(w.file))
	}
	if w.err == nil {
		w.fail(w.file.Sync())
	}
	w.fail(w.file.Close())
	w.fail(w.ctx.Err())
	if w.err == nil {
		w.fail(w.publish())
	}
	return w.err
}

// publish gives the finished temporary file its name.
func (w *writer) publish() error {
	root := w.bucket.root
	move := root.Rename
	if w.exclusive {
		move = root.Link
	}
	var err error
	for range publishTries {
		if err = move(w.temporary, w.name); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, gone := root.Lstat(w.temporary); gone != nil {
			return fmt.Errorf("the temporary file was removed while it was written: %w", err)
		}
		// Folders may vanish while they are made, too: mkdir(2) then says either.
		dirErr := w.bucket.makeDir(path.Dir(w.name))
		if dirErr != nil && !errors.Is(dirErr, fs.ErrNotExist) && !errors.Is(dirErr, fs.ErrExist) {
			err = dirErr
			break
		}
	}
	if err != nil {
		return w.explain(err)
	}
	return syncDir(root, path.Dir(w.name))
}

// explain turns an error of link or rename into one that says what is wrong,
// or nil where a repeated request found its own success.
func (w *writer) explain(err error) error {
	root := w.bucket.root
	switch info, e := root.Lstat(w.name); {
	case e == nil && info.IsDir():
		return &KeyError{w.key, "a folder has this name"}
	case e == nil && w.exclusive && errors.Is(err, fs.ErrExist):
		// A network file system may repeat a link(2) whose answer was lost.
		if mine, e := root.Lstat(w.temporary); e == nil && os.SameFile(mine, info) {
			return syncDir(root, path.Dir(w.name))
		}
		return err
	case errors.Is(err, syscall.ENOTDIR):
		return &KeyError{w.key, "one of the folders above it is an object"}
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%w: its folder is on another file system than the bucket's root; open a bucket on that file system", err)
	case w.exclusive && (errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)):
		return fmt.Errorf("%w: the file system may lack hard links, without which create-if-absent is not atomic; use another one", err)
	}
	return err
}

// makeDir makes dir and the folders above it, durably.
func (b *bucket) makeDir(dir string) error {
	existing := dir
	for existing != "." {
		if _, err := b.root.Stat(existing); err == nil {
			break
		}
		existing = path.Dir(existing)
	}
	if err := b.root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for ; dir != existing; dir = path.Dir(dir) {
		if err := syncDir(b.root, path.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // someone has deleted the folder, and with it what was written
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // this file system syncs no folders
	}
	return err
}
