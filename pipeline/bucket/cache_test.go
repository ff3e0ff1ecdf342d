package bucket_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// shelf returns a remote bucket of n objects of 1,000 bytes and counts requests.
func shelf(t *testing.T, n int) (*bucket.Bucket, *buckettest.Faults) {
	t.Helper()
	f := new(buckettest.Faults)
	b := bucket.New(buckettest.Faulty(memblob.OpenBucket(nil), f), "test://shelf", bucket.Options{Backoff: time.Millisecond})
	for i := range n {
		if err := b.Create(t.Context(), fmt.Sprint(i), volume(i)); err != nil {
			t.Fatal(err)
		}
	}
	return b, f
}

func volume(i int) []byte { return fmt.Appendf(nil, "%01000d", i) }

func newCache(t *testing.T, dir string, max int64) *bucket.Cache {
	t.Helper()
	c, err := bucket.NewCache(dir, max)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fetch fetches volume i and checks what is there.
func fetch(t *testing.T, c *bucket.Cache, b *bucket.Bucket, i int) (release func()) {
	t.Helper()
	path, release, err := c.Fetch(t.Context(), b, fmt.Sprint(i), digest(volume(i)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(volume(i)) {
		t.Fatalf("volume %d: %q, %v", i, got, err)
	}
	return release
}

// held returns how many copies are in the cache's folder.
func held(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) == 64 {
			n++
		} else if e.Name() != "lock" {
			t.Errorf("%s is left in the cache", e.Name())
		}
	}
	return n
}

func TestCacheKeepsAndEvicts(t *testing.T) {
	b, f := shelf(t, 6)
	dir := t.TempDir()
	c := newCache(t, dir, 3000)
	requests := func() int { n := f.Calls(); return n }
	fetch(t, c, b, 0)()
	before := requests()
	fetch(t, c, b, 0)()
	if requests() != before {
		t.Error("an object in the cache was fetched again")
	}
	c = newCache(t, dir, 3000) // another process's life
	fetch(t, c, b, 0)()
	if requests() != before {
		t.Error("an object did not outlive its process")
	}
	pinned := fetch(t, c, b, 1)
	fetch(t, c, b, 2)()
	fetch(t, c, b, 0)() // now 1 is the oldest, but pinned, and 2 the next
	fetch(t, c, b, 3)()
	if held(t, dir) != 3 {
		t.Errorf("the cache holds %d objects, room is for 3", held(t, dir))
	}
	before = requests()
	fetch(t, c, b, 0)()
	fetch(t, c, b, 1)()
	if requests() != before {
		t.Error("a pinned or a lately used object was evicted")
	}
	pinned()
	pinned()
}

func TestCacheWaitsForRoom(t *testing.T) {
	b, _ := shelf(t, 3)
	c := newCache(t, t.TempDir(), 2000)
	first, second := fetch(t, c, b, 0), fetch(t, c, b, 1)
	defer second()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := c.Fetch(ctx, b, "2", digest(volume(2)), 1000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fetch into a cache full of pinned objects: %v", err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		first()
	}()
	fetch(t, c, b, 2)()
	if _, _, err := c.Fetch(t.Context(), b, "2", digest(volume(2)), 2001); err == nil || !strings.Contains(err.Error(), "2000") {
		t.Errorf("an object larger than the cache: %v", err)
	}
}

func TestCacheRefusesTheWrongBytes(t *testing.T) {
	b, _ := shelf(t, 1)
	local, err := bucket.Open(t.Context(), "file://"+t.TempDir(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if err := local.Create(t.Context(), "0", volume(0)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, b := range []*bucket.Bucket{b, local} {
		c := newCache(t, dir, 5000)
		for _, wrong := range []struct {
			sha  string
			size int64
		}{{digest([]byte("x")), 1000}, {digest(volume(0)), 999}} {
			if _, _, err := c.Fetch(t.Context(), b, "0", wrong.sha, wrong.size); !errors.Is(err, bucket.ErrCorrupt) {
				t.Errorf("fetching from %s: %v", b.URL(), err)
			}
		}
		if _, _, err := c.Fetch(t.Context(), b, "none", digest(nil), 0); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("a missing object of %s: %v", b.URL(), err)
		}
		fetch(t, c, b, 0)()
	}
	if held(t, dir) != 1 {
		t.Errorf("the cache holds %d objects", held(t, dir))
	}
}

func TestCacheHealsDamage(t *testing.T) {
	b, _ := shelf(t, 1)
	dir := t.TempDir()
	fetch(t, newCache(t, dir, 5000), b, 0)()
	path := filepath.Join(dir, digest(volume(0)))
	for _, damaged := range [][]byte{volume(1), []byte("short")} {
		os.Remove(path)
		if err := os.WriteFile(path, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		fetch(t, newCache(t, dir, 5000), b, 0)()
	}
	// What a dead process left is swept.
	if err := os.WriteFile(filepath.Join(dir, "arriving-dead"), make([]byte, 4900), 0o666); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	fetch(t, newCache(t, dir, 5000), b, 0)()
	if held(t, dir) != 1 {
		t.Errorf("the cache holds %d objects", held(t, dir))
	}
}

func TestCacheOfALocalBucket(t *testing.T) {
	root := t.TempDir()
	b, err := bucket.Open(t.Context(), "file://"+root, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Create(t.Context(), "0", volume(0)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := newCache(t, dir, 10) // nothing needs to fit
	path, release, err := c.Fetch(t.Context(), b, "0", digest(volume(0)), 1000)
	if err != nil || path != filepath.Join(root, "0") {
		t.Fatalf("got %s, %v", path, err)
	}
	release()
	if held(t, dir) != 0 {
		t.Error("a local object was copied")
	}
	if err := b.Put(t.Context(), "0", volume(1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Fetch(t.Context(), b, "0", digest(volume(0)), 1000); !errors.Is(err, bucket.ErrCorrupt) {
		t.Errorf("a local object that was replaced after its check: %v", err)
	}
}

const cacheEnv = "BUCKET_TEST_CACHE"

func TestMain(m *testing.M) {
	if dirs := os.Getenv(cacheEnv); dirs != "" {
		if err := hammer(dirs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hammer fetches 8 objects many times through a cache with room for 3.
func hammer(dir string) error {
	ctx := context.Background()
	b := bucket.New(memblob.OpenBucket(nil), "test://shelf", bucket.Options{})
	for i := range 8 {
		if err := b.Create(ctx, fmt.Sprint(i), volume(i)); err != nil {
			return err
		}
	}
	c, err := bucket.NewCache(dir, 3000)
	if err != nil {
		return err
	}
	for n := range 60 {
		i := n * (os.Getpid()%7 + 1) % 8
		path, release, err := c.Fetch(ctx, b, fmt.Sprint(i), digest(volume(i)), 1000)
		if err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
		got, err := os.ReadFile(path)
		if err != nil || string(got) != string(volume(i)) {
			return fmt.Errorf("a pinned file: %.20q, %w", got, err)
		}
		release()
	}
	return nil
}

func TestCacheSharedByProcesses(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), cacheEnv+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if n := held(t, dir); n > 3 {
		t.Errorf("the cache holds %d objects, room is for 3", n)
	}
}
