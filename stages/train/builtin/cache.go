package builtin

import (
	"fmt"
	"os"
	"sync"
)

// cache keeps images by their index: encoded bytes, or the pixels of small
// ones. What comes first lies in memory, the rest in one file, and when both are
// full nothing more is taken in: a shuffle reads every image once an epoch, so
// that none deserves its place more than another. The file has no name any more
// once it is open and ends with the process. Safe for concurrent use.
type cache struct {
	mu      sync.RWMutex
	entries []entry

	slabs  [][]byte // the memory, all but the last one full
	memory int64    // bytes of further slabs
	file   *os.File // nil without a folder
	used   int64    // bytes of the file
	limit  int64    // of used
}

// entry says where an image lies: 16 bytes.
type entry struct {
	at    int64  // in the file; in memory ^(slab<<32 | offset)
	n     uint32 // bytes; 0 if the image is not here
	width uint32 // pixels; 0 for encoded bytes
}

// slabBytes is the memory that the cache takes at a time. What is larger goes
// to the file.
const slabBytes = 4 << 20

// newCache returns a cache for so many images, of at most memory bytes of memory
// and disk bytes in a file in dir; an empty dir is none.
func newCache(images int, memory int64, dir string, disk int64) (*cache, error) {
	c := &cache{entries: make([]entry, images), memory: memory}
	if dir == "" || disk <= 0 {
		return c, nil
	}
	f, err := os.CreateTemp(dir, "images-*.cache")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("cache of images: %w", err)
	}
	c.file, c.limit = f, disk
	return c, nil
}

// room returns how many bytes the cache can still take in, but for what a large
// image leaves free at the end of a slab.
func (c *cache) room() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	room := c.memory + c.limit - c.used
	if n := len(c.slabs); n > 0 {
		room += int64(cap(c.slabs[n-1]) - len(c.slabs[n-1]))
	}
	return room
}

// has returns whether the i-th image is here.
func (c *cache) has(i int) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.entries[i].n != 0
}

// get returns the i-th image: its bytes, which may lie in buf and must not be
// written to, and its width in pixels or 0 if they are encoded.
func (c *cache) get(i int, buf *[]byte) (data []byte, width int, ok bool) {
	c.mu.RLock()
	e := c.entries[i]
	if e.at < 0 {
		at := ^e.at
		data = c.slabs[at>>32][at&(1<<32-1):][:e.n:e.n]
	}
	c.mu.RUnlock()
	if e.n == 0 {
		return nil, 0, false
	}
	if e.at >= 0 {
		data = grow(buf, int(e.n))
		if _, err := c.file.ReadAt(data, e.at); err != nil {
			return nil, 0, false // it is fetched again
		}
	}
	return data, int(e.width), true
}

// put takes the i-th image in, if there is room, in place of what there may be of
// it, whose room is not used again. data stays the caller's.
func (c *cache) put(i int, data []byte, width int) bool {
	e := entry{n: uint32(len(data)), width: uint32(width)}
	if len(data) == 0 || int64(e.n) != int64(len(data)) {
		return false
	}
	c.mu.Lock()
	slab := c.slab(len(data))
	if slab >= 0 {
		s := c.slabs[slab]
		e.at = ^(int64(slab)<<32 | int64(len(s)))
		c.slabs[slab] = append(s, data...)
		c.entries[i] = e
	}
	c.mu.Unlock()
	return slab >= 0 || c.write(i, data, e)
}

// slab returns a slab with room for so many bytes, or -1.
func (c *cache) slab(n int) int {
	last := len(c.slabs) - 1
	if last >= 0 && cap(c.slabs[last])-len(c.slabs[last]) >= n {
		return last
	}
	size := min(c.memory, slabBytes)
	if int64(n) > size {
		return -1
	}
	c.memory -= size
	c.slabs = append(c.slabs, make([]byte, 0, size))
	return last + 1
}

// write takes an image into the file. A full disk only ends its growth.
func (c *cache) write(i int, data []byte, e entry) bool {
	c.mu.Lock()
	if c.limit-c.used < int64(len(data)) {
		c.mu.Unlock()
		return false
	}
	e.at = c.used
	c.used += int64(len(data))
	c.mu.Unlock()
	_, err := c.file.WriteAt(data, e.at)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.limit = min(c.limit, c.used)
		return false
	}
	c.entries[i] = e
	return true
}

// close gives the file's room back.
func (c *cache) close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// grow returns a slice of length n in the memory of buf, which is replaced if it
// is too small.
func grow(buf *[]byte, n int) []byte {
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	return (*buf)[:n]
}
