package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// ErrCorrupt says that an object does not have the digest or the size it was
// recorded with: it was changed or damaged.
var ErrCorrupt = errors.New("the object is not the one that was recorded")

// errEvicted says that a file went between its arrival and its use, which takes
// other processes that need all the room.
var errEvicted = errors.New("the cache is too small for all processes that share it: the copy was evicted before its use; give it more room")

// fetchTries bounds how often a fetch starts over, after a damaged transfer or
// an eviction.
const fetchTries = 4

// Cache keeps local copies of remote objects in a folder, named by the sha256
// of their bytes. The folder stays within its bound: before an object is
// fetched the least recently used ones that nobody has open make room, and while
// there is none the fetch waits. The copies outlive the process; several
// processes can share the folder, if all of them are given the same bound.
//
// A file in use is pinned by a shared flock(2) on it, which holds for every
// process of the machine and ends with it. A Cache is safe for concurrent use.
type Cache struct {
	dir string
	max int64

	mu       sync.Mutex
	verified map[fileID]string        // sha256 of the files checked by this process
	fetching map[string]chan struct{} // by sha256; closed when that fetch is over
}

// fileID tells one version of a file from all others. In the cache's folder,
// where a file's time is that of its last use, mtime is 0.
type fileID struct {
	path        string
	inode       uint64
	size, mtime int64
}

func idOf(path string, info os.FileInfo, cached bool) fileID {
	id := fileID{path: path, size: info.Size()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode = s.Ino
	}
	if !cached {
		id.mtime = info.ModTime().UnixNano()
	}
	return id
}

// NewCache returns the cache in the folder dir, which is made if it is missing
// and belongs to caches alone. It holds at most maxBytes bytes of objects.
func NewCache(dir string, maxBytes int64) (*Cache, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("open cache %s: its bound is %d bytes", dir, maxBytes)
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(abs, 0o777)
	}
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return &Cache{dir: abs, max: maxBytes, verified: map[fileID]string{}, fetching: map[string]chan struct{}{}}, nil
}

// Fetch returns the path of a local file with the bytes of the object under
// key of b, which must have size bytes and the sha256 digest given in
// hexadecimal; otherwise it fails with [ErrCorrupt]. The file must not be
// written to and is there until release is called, which may be done more than
// once. A goroutine that waits for room while it holds other files can block
// for ever: give the cache room for all that is held at once.
//
// Of a local bucket the path is that of the object itself, and release does
// nothing. A file's digest is computed when it arrives, and once by each
// process that finds it there.
func (c *Cache) Fetch(ctx context.Context, b *Bucket, key, sha256 string, size int64) (path string, release func(), err error) {
	if digest, err := hex.DecodeString(sha256); err != nil || len(digest) != 32 {
		return "", nil, b.fail("fetch", key, fmt.Errorf("%q is not a sha256 digest", sha256))
	}
	leave, err := c.enter(ctx, sha256)
	if err != nil {
		return "", nil, b.fail("fetch", key, err)
	}
	defer leave()
	if path, ok := b.LocalPath(key); ok {
		if err := c.checkLocal(ctx, path, sha256, size); err != nil {
			return "", nil, b.fail("fetch", key, err)
		}
		return path, func() {}, nil
	}
	if size > c.max {
		return "", nil, b.fail("fetch", key, fmt.Errorf("it has %d bytes, the cache holds %d; give it more", size, c.max))
	}
	for range fetchTries {
		if path, release, err = c.pin(ctx, sha256, size); err == nil {
			return path, release, nil
		}
		if ctx.Err() != nil {
			break
		}
		if err = c.download(ctx, b, key, sha256, size); err == nil {
			err = errEvicted // unless the next round pins it
		} else if !errors.Is(err, ErrCorrupt) {
			break
		}
	}
	return "", nil, b.fail("fetch", key, err)
}

// enter lets one goroutine at a time fetch an object.
func (c *Cache) enter(ctx context.Context, sha string) (leave func(), err error) {
	for {
		c.mu.Lock()
		busy, ok := c.fetching[sha]
		if !ok {
			done := make(chan struct{})
			c.fetching[sha] = done
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.fetching, sha)
				close(done)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// checkLocal checks a file that is used where it lies.
func (c *Cache) checkLocal(ctx context.Context, path, sha string, size int64) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return c.check(ctx, f, sha, size, false)
}

// check compares a file with its size and digest, once for each version of it.
func (c *Cache) check(ctx context.Context, f *os.File, sha string, size int64, cached bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return &corruptError{f.Name(), fmt.Sprintf("%d bytes", info.Size()), fmt.Sprintf("%d", size)}
	}
	id := idOf(f.Name(), info, cached)
	c.mu.Lock()
	got, ok := c.verified[id]
	c.mu.Unlock()
	if !ok {
		h := sha256.New()
		if _, err := io.Copy(h, &contextReader{ctx, f}); err != nil {
			return err
		}
		got = hex.EncodeToString(h.Sum(nil))
		c.mu.Lock()
		c.verified[id] = got
		c.mu.Unlock()
	}
	if got != sha {
		return &corruptError{f.Name(), "sha256 " + got, sha}
	}
	return nil
}

// download brings an object into the folder.
func (c *Cache) download(ctx context.Context, b *Bucket, key, sha string, size int64) error {
	r, err := b.NewReader(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.object.Size != size {
		return &corruptError{key, fmt.Sprintf("%d bytes", r.object.Size), fmt.Sprintf("%d", size)}
	}
	f, err := c.reserve(ctx, size)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(f, h), struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sha {
		return &corruptError{key, "sha256 " + got, sha}
	}
	// A link, unlike a rename, leaves alone a copy that another process has
	// brought in meanwhile and has pinned.
	if err := os.Link(f.Name(), c.path(sha)); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return c.remember(f, sha)
}

// remember notes that f holds the bytes with the digest sha.
func (c *Cache) remember(f *os.File, sha string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified[idOf(c.path(sha), info, true)] = sha
	return nil
}

func (c *Cache) path(sha string) string { return filepath.Join(c.dir, sha) }

type corruptError struct{ name, got, want string }

func (e *corruptError) Error() string {
	return fmt.Sprintf("%v: %s has %s, recorded is %s", ErrCorrupt, e.name, e.got, e.want)
}

func (e *corruptError) Unwrap() error { return ErrCorrupt }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
