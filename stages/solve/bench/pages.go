//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sela/pipeline"
)

// checkRoom refuses to write so many bytes below dir where they would leave
// less than 2 GB free.
func checkRoom(dir string, bytes int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	free := int64(s.Bavail) * int64(s.Bsize)
	if need := bytes + 2e9; free < need {
		return fmt.Errorf("%s has %.1f GB free, this needs %.1f GB: name another folder with -dir, or leave sections out with -only", dir, float64(free)/1e9, float64(need)/1e9)
	}
	return nil
}

// evict writes files back and drops them from the page cache, and checks that
// they are gone.
func evict(paths []string) error {
	for _, path := range paths {
		if err := withFile(path, func(f *os.File) error {
			if err := f.Sync(); err != nil {
				return err
			}
			return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}); err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", path, err)
		}
	}
	share, err := resident(paths)
	if err == nil && share > 0.01 {
		err = fmt.Errorf("%.0f %% of the shards stay in the page cache: measurements of a cold cache are not possible here", 100*share)
	}
	return err
}

// warm reads files into the page cache and checks that they stay there.
func warm(ctx context.Context, paths []string, workers int) error {
	for range 3 {
		if _, err := pread(ctx, paths, 1<<20, workers); err != nil {
			return err
		}
		share, err := resident(paths)
		if err != nil {
			return err
		}
		if share > 0.99 {
			return nil
		}
	}
	return fmt.Errorf("the page cache does not hold the shards: this needs more free memory, or smaller sizes")
}

// resident returns the share of the files' pages in the page cache.
func resident(paths []string) (float64, error) {
	var in, all int64
	page := int64(os.Getpagesize())
	for _, path := range paths {
		err := withFile(path, func(f *os.File) error {
			info, err := f.Stat()
			if err != nil || info.Size() == 0 {
				return err
			}
			data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			defer unix.Munmap(data)
			vec := make([]byte, (info.Size()+page-1)/page)
			if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
				return errno
			}
			for _, v := range vec {
				in += int64(v & 1)
			}
			all += int64(len(vec))
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("pages of %s: %w", path, err)
		}
	}
	return float64(in) / float64(max(all, 1)), nil
}

func withFile(path string, do func(*os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// reading is what pread measured.
type reading struct {
	bytes int64
	took  time.Duration
}

func (r reading) rate() float64 { return float64(r.bytes) / r.took.Seconds() / 1e9 }

// pread reads all bytes of the files with positional reads of the given size,
// each worker into one buffer of its own, and does nothing with them: what any
// reader of these files could reach at best.
func pread(ctx context.Context, paths []string, size int, workers int) (reading, error) {
	type piece struct {
		f        *os.File
		from, to int64
	}
	var pieces []piece
	var r reading
	step := int64(max(size, 12<<20/size*size)) // as many bytes as a chunk of 3,000 clusters
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return r, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return r, err
		}
		for from := int64(0); from < info.Size(); from += step {
			pieces = append(pieces, piece{f, from, min(from+step, info.Size())})
		}
		r.bytes += info.Size()
	}
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range workers {
		group.Go(func() error {
			buf := make([]byte, size)
			for i := next.Add(1) - 1; i < int64(len(pieces)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				for p := pieces[i]; p.from < p.to; p.from += int64(size) {
					n := min(int64(size), p.to-p.from)
					if _, err := p.f.ReadAt(buf[:n], p.from); err != nil && err != io.EOF {
						return err
					}
				}
			}
			return ctx.Err()
		})
	}
	err := group.Wait()
	r.took = time.Since(start)
	return r, err
}

// readSizes are those of which the baseline takes the fastest.
var readSizes = []int{256 << 10, 512 << 10, 1 << 20, 4 << 20, 16 << 20}

func sizeName(size int) string { return pipeline.Bytes(size).String() }
