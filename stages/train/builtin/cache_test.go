package builtin

import (
	"bytes"
	"os"
	"sync"
	"testing"
)

// content is an image of these tests.
func content(i, n int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(n), 7}, n/4+1)[:n]
}

func TestCache(t *testing.T) {
	const images, size = 400, 50_000
	for _, c := range []struct {
		name         string
		memory, disk int64
		kept         int
	}{
		{"nothing", 0, 0, 0},
		{"memory", 2 * slabBytes, 0, 2 * (slabBytes / size)},
		{"a little memory", 120_000, 0, 2},
		{"disk", 0, 101 * size, 101},
		{"both", slabBytes, 10 * size, slabBytes/size + 10},
		{"room for all", 8 * slabBytes, 8 * slabBytes, images},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cache, err := newCache(images, c.memory, dir, c.disk)
			if err != nil {
				t.Fatal(err)
			}
			defer cache.close()
			if room := cache.room(); room != c.memory+c.disk {
				t.Errorf("room for %d bytes", room)
			}
			kept := 0
			for i := range images {
				if cache.put(i, content(i, size), i%3) {
					kept++
				}
			}
			if kept != c.kept {
				t.Errorf("%d images were taken in, want %d", kept, c.kept)
			}
			memory := 0
			for _, s := range cache.slabs {
				memory += cap(s)
			}
			if int64(memory) > c.memory || cache.used > c.disk {
				t.Errorf("%d bytes in memory and %d on disk", memory, cache.used)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("the file has the name %s: a killed process would leave it", left[0].Name())
			}
			var buf []byte
			found := 0
			for i := range images {
				data, width, ok := cache.get(i, &buf)
				if ok != cache.has(i) {
					t.Errorf("image %d: has and get disagree", i)
				}
				if !ok {
					continue
				}
				found++
				if width != i%3 || !bytes.Equal(data, content(i, size)) {
					t.Errorf("image %d came back changed", i)
				}
			}
			if found != kept {
				t.Errorf("%d images are there, %d were taken in", found, kept)
			}
		})
	}
}

func TestCacheReplaces(t *testing.T) {
	cache, err := newCache(2, slabBytes, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var buf []byte
	for n := range 5 {
		cache.put(1, content(n, 100), n)
		if data, width, ok := cache.get(1, &buf); !ok || width != n || !bytes.Equal(data, content(n, 100)) {
			t.Errorf("after %d: %v", n, ok)
		}
	}
	if cache.has(0) || cache.put(0, nil, 0) {
		t.Error("an image that was never put in")
	}
}

// TestCacheDiskFull closes the file under the cache: it goes on with what it has
// in memory.
func TestCacheDiskFull(t *testing.T) {
	cache, err := newCache(100, 2000, t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		cache.put(i, content(i, 900), 0)
	}
	cache.file.Close()
	if cache.put(5, content(5, 900), 0) || cache.room() >= 900 {
		t.Errorf("it takes in %d bytes on a disk that fails", cache.room())
	}
	var buf []byte
	for i, want := range []bool{true, true, false, false, false, false} {
		if _, _, ok := cache.get(i, &buf); ok != want {
			t.Errorf("image %d: %v", i, ok)
		}
	}
}

func TestCacheConcurrently(t *testing.T) {
	const images = 64
	cache, err := newCache(images, 100_000, t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.close()
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			var buf []byte
			for n := range 400 {
				i := (n*7 + g*5) % images
				if data, _, ok := cache.get(i, &buf); ok && !bytes.Equal(data, content(i, 3000)) {
					t.Errorf("image %d is damaged", i)
				} else if !ok {
					cache.put(i, content(i, 3000), 0)
				}
			}
		})
	}
	wait.Wait()
}
