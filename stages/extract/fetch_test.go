package extract

import (
	"context"
	"math/rand/v2"
	"testing"

	"gocloud.dev/blob/memblob"

	"sela/pipeline/bucket"
	"sela/schemas"
)

func TestCut(t *testing.T) {
	loose := func(size int64) schemas.Image { return schemas.Image{Key: "a.jpg", Size: size} }
	in := func(tar string, offset, size int64) schemas.Image {
		return schemas.Image{Key: tar, Member: "m", Offset: offset, Size: size}
	}
	const limit = 8 << 20
	for _, c := range []struct {
		name   string
		images []schemas.Image
		n      int
		size   int64
	}{
		{"loose files are alone", []schemas.Image{loose(10), loose(10)}, 1, 10},
		{"neighbours", []schemas.Image{in("t", 512, 10), in("t", 1536, 20), in("t", 4096, 5)}, 3, 4096 + 5 - 512},
		{"another tar", []schemas.Image{in("t", 512, 10), in("u", 1536, 20)}, 1, 10},
		{"then loose", []schemas.Image{in("t", 512, 10), loose(20)}, 1, 10},
		{"largest gap", []schemas.Image{in("t", 512, 10), in("t", 522+maxGap, 10)}, 2, maxGap + 20},
		{"larger gap", []schemas.Image{in("t", 512, 10), in("t", 523+maxGap, 10)}, 1, 10},
		{"backwards", []schemas.Image{in("t", 2048, 10), in("t", 512, 10)}, 1, 10},
		{"overlapping", []schemas.Image{in("t", 512, 1000), in("t", 1024, 10)}, 1, 1000},
		{"longest span", []schemas.Image{in("t", 512, 10), in("t", 522, maxSpan-10)}, 2, maxSpan},
		{"longer span", []schemas.Image{in("t", 512, 10), in("t", 522, maxSpan-9)}, 1, 10},
		{"one image longer than a span", []schemas.Image{in("t", 512, maxSpan+1), in("t", 512+maxSpan+1, 1)}, 1, maxSpan + 1},
		{"too large", []schemas.Image{in("t", 512, limit+1), in("t", 512+limit+1, 1)}, 1, 0},
		{"too large comes next", []schemas.Image{in("t", 512, 10), in("t", 522, limit+1)}, 1, 10},
		{"too large and loose", []schemas.Image{loose(limit + 1)}, 1, 0},
	} {
		if n, size := cut(c.images, limit); n != c.n || size != c.size {
			t.Errorf("%s: %d images in %d bytes, want %d in %d", c.name, n, size, c.n, c.size)
		}
	}
}

// TestFetcherKeepsItsBudget reads images of all sizes, as a flow does, and
// watches what is held.
func TestFetcherKeepsItsBudget(t *testing.T) {
	ctx := context.Background()
	b := bucket.New(memblob.OpenBucket(nil), "mem://", bucket.Options{})
	defer b.Close()
	const ahead, biggest = 300 << 10, 400 << 10
	random := rand.New(rand.NewPCG(1, 2))
	var images []schemas.Image
	for i := range 300 {
		size := 1 + random.Int64N(1<<random.Int64N(18))
		if i == 200 {
			size = biggest
		}
		key := string(rune('a'+i/26)) + string(rune('a'+i%26))
		data := make([]byte, size)
		for p := range data {
			data[p] = byte(i)
		}
		if err := b.Put(ctx, key, data); err != nil {
			t.Fatal(err)
		}
		images = append(images, schemas.Image{Row: int64(i), Key: key, Size: size})
	}
	const requests = 16
	f := newFetcher(ahead, 1<<20, requests)
	out := f.spans()
	go f.run(ctx, b, images, out)
	seen := 0
	for s := range out {
		<-s.ready
		if s.err != nil {
			t.Fatal(s.err)
		}
		data := s.bytesOf(0)
		if int64(seen) != s.first || int64(len(data)) != images[seen].Size || data[0] != byte(seen) || data[len(data)-1] != byte(seen) {
			t.Fatalf("image %d: span %d with %d bytes", seen, s.first, len(data))
		}
		if cap(s.data) > 2*len(s.data)+2<<10 {
			t.Errorf("image %d: %d bytes in a buffer of %d", seen, len(s.data), cap(s.data))
		}
		if f.budget.TryAcquire(ahead) {
			t.Errorf("image %d: nothing is held", seen)
		}
		seen++
		f.done(s)
		f.mu.Lock()
		if f.spare > ahead || len(f.free) > requests {
			t.Errorf("%d bytes in %d buffers wait to be used again, read-ahead is %d", f.spare, len(f.free), ahead)
		}
		f.mu.Unlock()
	}
	if seen != len(images) {
		t.Errorf("%d images, want %d", seen, len(images))
	}
	if !f.budget.TryAcquire(ahead) {
		t.Error("budget is held at the end")
	}
}

func TestKeyHashAllocatesNothing(t *testing.T) {
	o := &output{}
	img := schemas.Image{Key: "shards/00017.tar", Member: "n01440764/some-file.jpg"}
	o.keyHash(img)
	if n := testing.AllocsPerRun(100, func() { o.keyHash(img) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if a, b := o.keyHash(schemas.Image{Key: "ab"}), o.keyHash(schemas.Image{Key: "a", Member: "b"}); a == b {
		t.Error("key and member are not told apart")
	}
}

func TestBlockRows(t *testing.T) {
	for _, c := range []struct {
		clusters, heads int
		shard           int64
		want            int
	}{
		{128, 10, 8192, 8192},
		{128, 1, 1 << 20, 32768},
		{128, 10, 1 << 20, 12288},
		{3000, 1, 8192, 1024},
		{3000, 10, 8192, 559},
		{1 << 23, 1, 8192, 1},
		{2, 4096, 1024, 1024},
	} {
		if got := blockRows(c.clusters, c.heads, c.shard); got != c.want {
			t.Errorf("%d heads of %d, shards of %d: %d rows, want %d", c.heads, c.clusters, c.shard, got, c.want)
		}
	}
}
