package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"sela/pipeline/bucket"
)

// scratch shares a folder of bounded size between the scratch files of attempts
// and the cache of fetched objects.
//
//	<local.dir>/cache/…                         see bucket.Cache
//	<local.dir>/attempts/<owner>.lock           locked by its process while that lives
//	<local.dir>/attempts/<owner>/<attempt>/…    scratch files
type scratch struct {
	dir   string // of this owner
	bytes int64
	free  *semaphore.Weighted
	cache *bucket.Cache
	lock  *os.File // open, and so locked, for as long as the scratch is in use
}

func newScratch(local Local) (*scratch, error) {
	if local.Dir == "" {
		return nil, fmt.Errorf("is empty; name a folder for scratch and cache")
	}
	// Half for files being written, half for files being read: neither can
	// starve the other.
	half := int64(local.Bytes) / 2
	cache, err := bucket.NewCache(filepath.Join(local.Dir, "cache"), half)
	if err != nil {
		return nil, err
	}
	s := &scratch{bytes: half, free: semaphore.NewWeighted(half), cache: cache}
	s.dir, s.lock, err = ownFolder(local.Dir)
	return s, err
}

// ownFolder reserves a name for a folder of this process's own, and sweeps the
// folders of processes that have ended.
func ownFolder(local string) (dir string, lock *os.File, err error) {
	attempts := filepath.Join(local, "attempts")
	if err := os.MkdirAll(attempts, 0o777); err != nil {
		return "", nil, fmt.Errorf("scratch folder: %w", err)
	}
	if err := sweep(attempts); err != nil {
		return "", nil, fmt.Errorf("sweep scratch folder: %w", err)
	}
	for lock == nil {
		dir = filepath.Join(attempts, randomHex(6))
		if lock, err = own(dir + lockSuffix); err != nil {
			return "", nil, fmt.Errorf("scratch folder: %w", err)
		}
	}
	return dir, lock, nil
}

// OwnFolder makes a folder below local (a job's local.dir) for this process
// alone. release removes it; what a process that was killed leaves behind, the
// next one removes.
func OwnFolder(local string) (dir string, release func() error, err error) {
	dir, lock, err := ownFolder(local)
	if err != nil {
		return "", nil, err
	}
	release = func() error {
		return errors.Join(os.RemoveAll(dir), os.Remove(lock.Name()), lock.Close())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, errors.Join(err, release())
	}
	return dir, release, nil
}

const lockSuffix = ".lock"

// own makes a lock file and locks it. It returns nil if a sweep has removed the
// file between the two.
func own(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		mine, err1 := f.Stat()
		now, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return f, nil
		}
		err = errors.Join(err1, err2)
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return nil, errors.Join(err, f.Close())
}

// sweep removes the folders of owners that have ended without tidying up, which
// leaves their locks open. What belongs to another user stays.
func sweep(attempts string) error {
	entries, err := os.ReadDir(attempts)
	if err != nil {
		return err
	}
	for _, e := range entries {
		owner, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock {
			continue
		}
		f, err := os.OpenFile(filepath.Join(attempts, e.Name()), os.O_RDWR, 0)
		if err != nil {
			continue // swept by another process, or another user's
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			// The lock goes last: a folder without one would never be swept.
			if os.RemoveAll(filepath.Join(attempts, owner)) == nil {
				_ = os.Remove(f.Name())
			}
		}
		_ = f.Close()
	}
	return nil
}

// reserve waits until so many bytes of scratch are free and makes a folder.
func (s *scratch) reserve(ctx context.Context, bytes int64, name string) (dir string, release func(), err error) {
	if bytes > s.bytes {
		return "", nil, BadConfig(fmt.Errorf("needs %s of scratch, but local.bytes leaves %s: raise local.bytes or lower extract.shard_rows", Bytes(bytes), Bytes(s.bytes)))
	}
	if err := s.free.Acquire(ctx, bytes); err != nil {
		return "", nil, err
	}
	dir = filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.free.Release(bytes)
		return "", nil, fmt.Errorf("scratch folder: %w", err)
	}
	return dir, func() {
		_ = os.RemoveAll(dir) // what is left is swept when this process has ended
		s.free.Release(bytes)
	}, nil
}

// CacheBytes is how much the run keeps of remote objects on this machine.
func (r *Run) CacheBytes() int64 { return r.scratch.bytes }
