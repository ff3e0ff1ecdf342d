package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The cache's folder holds the copies, each under its digest; files being
// fetched, of their full length from the start and locked by their process; and
// the file whose lock admits one process at a time to counting and evicting.
const (
	arriving   = "arriving-"
	folderLock = "lock"

	// waitForRoom is how long a fetch waits before it looks for room again.
	waitForRoom = 50 * time.Millisecond
)

// pin opens the copy of an object against eviction. It fails if there is none
// or a damaged one, which it removes.
func (c *Cache) pin(ctx context.Context, sha string, size int64) (path string, release func(), err error) {
	path = c.path(sha)
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := flock(f, unix.LOCK_SH); err != nil {
		return "", nil, fmt.Errorf("pin %s: %w", path, err)
	}
	// It may have been evicted before the lock was there.
	mine, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(mine, now) {
		return "", nil, fmt.Errorf("%s was evicted before its use: %w", path, os.ErrNotExist)
	}
	if err := c.check(ctx, f, sha, size, true); err != nil {
		if errors.Is(err, ErrCorrupt) {
			err = errors.Join(err, os.Remove(path))
		}
		return "", nil, err
	}
	now := time.Now()
	os.Chtimes(path, now, now) // last use; without it the order of eviction is merely worse
	return path, sync.OnceFunc(func() { f.Close() }), nil
}

// reserve makes room for a file of size bytes and returns it, locked and of
// that size. It waits while all that could make room is pinned.
func (c *Cache) reserve(ctx context.Context, size int64) (*os.File, error) {
	for {
		f, err := c.tryReserve(size)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %d bytes of room in %s: %w", size, c.dir, ctx.Err())
		case <-time.After(waitForRoom):
		}
	}
}

// tryReserve returns nil and no error if there is no room.
func (c *Cache) tryReserve(size int64) (reserved *os.File, err error) {
	lock, err := os.OpenFile(filepath.Join(c.dir, folderLock), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock cache %s: %w", c.dir, err)
	}
	room, err := c.makeRoom(size)
	if !room || err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(c.dir, arriving)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(flock(f, unix.LOCK_EX), f.Chmod(0o444), f.Truncate(size)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// makeRoom evicts copies, the least recently used first, until size more bytes
// fit, and reports whether they do. The caller holds the folder's lock.
func (c *Cache) makeRoom(size int64) (bool, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return false, err
	}
	var copies []os.FileInfo
	excess := size - c.max
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return false, err
		case e.Name() == folderLock:
			continue
		case !strings.HasPrefix(e.Name(), arriving):
			copies = append(copies, info)
		case c.remove(e.Name()): // its process died
			continue
		}
		excess += info.Size()
	}
	slices.SortFunc(copies, func(a, b os.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range copies {
		if excess <= 0 {
			break
		}
		if c.remove(info.Name()) {
			excess -= info.Size()
		}
	}
	return excess <= 0, nil
}

// remove removes a file of the folder if no process has it locked.
func (c *Cache) remove(name string) bool {
	path := filepath.Join(c.dir, name)
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil && os.Remove(path) == nil
}

// flock locks f until it is closed.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}
