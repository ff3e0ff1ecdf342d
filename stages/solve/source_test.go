package solve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
	"sela/stages/solve"
)

const images = 2500 // three shards

// TestSource reads chunks from many goroutines in any order and holds them
// against the files: with gaps, with a shard without rows, from folders and
// from a remote store.
func TestSource(t *testing.T) {
	for name, remote := range map[string]bool{"local": false, "remote": true} {
		t.Run(name, func(t *testing.T) {
			r := extracted(t, images, gaps, remote, nil)
			if o := shardOf(t, r.Run, 0, 1); o.Rows != 0 {
				t.Fatalf("shard 1 has %d rows", o.Rows)
			}
			for head, k := range clusters {
				source, err := solve.OpenSource(r.Run, shards(t, r.Run), head, 0)
				if err != nil {
					t.Fatal(err)
				}
				want := whole(t, r.Run, head)
				if rows, got := source.Dims(); rows != int64(len(want.numbers)) || got != k || source.Chunks() != 3 {
					t.Errorf("head %d: %d × %d in %d chunks, want %d × %d in 3", head, rows, got, source.Chunks(), len(want.numbers), k)
				}
				readAll(t, source, want, k)
				source.Close()
			}
		})
	}
}

// readAll reads every chunk several times, side by side.
func readAll(t *testing.T, source sinkhorn.Source, want table, k int) {
	t.Helper()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			random, block := rand.New(rand.NewPCG(1, uint64(g))), sinkhorn.Block{}
			for range 40 {
				if err := readOne(source, want, k, random.IntN(source.Chunks()), &block); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func readOne(source sinkhorn.Source, want table, k, chunk int, block *sinkhorn.Block) error {
	from, _ := slices.BinarySearch(want.numbers, int64(chunk)*sinkhorn.ChunkRows)
	to, _ := slices.BinarySearch(want.numbers, int64(chunk+1)*sinkhorn.ChunkRows)
	err := source.ReadChunk(context.Background(), chunk, block, func(b *sinkhorn.Block) error {
		n := len(b.Rows)
		if n == 0 || n > 1 && 4*len(b.X) > sinkhorn.BlockBytes {
			return fmt.Errorf("chunk %d has a block of %d rows", chunk, n)
		}
		if n > to-from || !slices.Equal(b.Rows, want.numbers[from:from+n]) || !slices.Equal(b.X, want.values[from*k:(from+n)*k]) {
			return fmt.Errorf("chunk %d has other rows from %d on", chunk, b.Rows[0])
		}
		from += n
		return nil
	})
	if err == nil && from != to {
		err = fmt.Errorf("chunk %d lacks %d rows", chunk, to-from)
	}
	return err
}

// nothing ignores a block.
func nothing(*sinkhorn.Block) error { return nil }

// TestManyClusters: a chunk comes in blocks, in both stored forms, and an error
// of the caller ends it.
func TestManyClusters(t *testing.T) {
	defer func(was []int) { clusters = was }(clusters)
	clusters = []int{300, 200}
	for _, stored := range []string{"float32", "uint16"} {
		r := extracted(t, 1500, func(i int) bool { return i%13 == 5 }, false, func(j *pipeline.Job) { j.Extract.Stored = stored })
		source, err := solve.OpenSource(r.Run, shards(t, r.Run), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		readAll(t, source, whole(t, r.Run, 0), 300)
		stop, blocks := errors.New("stop"), 0
		err = source.ReadChunk(context.Background(), 0, &sinkhorn.Block{}, func(*sinkhorn.Block) error {
			blocks++
			return stop
		})
		if err != stop || blocks != 1 {
			t.Errorf("%v after %d blocks", err, blocks)
		}
		ctx, cancel := context.WithCancel(context.Background())
		err = source.ReadChunk(ctx, 0, &sinkhorn.Block{}, func(*sinkhorn.Block) error {
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in a block: %v", err)
		}
	}
}

// TestReadChunkAllocatesNothing once its block has grown.
func TestReadChunkAllocatesNothing(t *testing.T) {
	r := extracted(t, 1024, nil, false, nil)
	source, err := solve.OpenSource(r.Run, shards(t, r.Run), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var block sinkhorn.Block
	if n := testing.AllocsPerRun(20, func() {
		if err := source.ReadChunk(context.Background(), 0, &block, nothing); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDigests(t *testing.T) {
	r := extracted(t, images, gaps, false, nil)
	source, err := solve.OpenSource(r.Run, shards(t, r.Run), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	all, seen := listed(t, r.Run), 0
	for from := int64(0); from < images; from += sinkhorn.ChunkRows {
		err := source.SHA256s(context.Background(), from, from+sinkhorn.ChunkRows, func(row int64, sum [32]byte) error {
			data := make([]byte, all[row].Size)
			err := r.Images.ReadRange(context.Background(), all[row].Key, all[row].Offset, data)
			if err == nil && sum != sha256.Sum256(data) {
				err = fmt.Errorf("row %d has another sha256", row)
			}
			seen++
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if rows, _ := source.Dims(); int64(seen) != rows {
		t.Errorf("%d digests for %d rows", seen, rows)
	}
	stop := errors.New("stop")
	if err := source.SHA256s(context.Background(), 0, 10, func(int64, [32]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestSmallCache: shards of a remote store come and go as the cache allows, and
// a cache that cannot hold enough is refused before anything is fetched.
func TestSmallCache(t *testing.T) {
	r := extracted(t, 4500, nil, true, nil)
	largest := int64(0)
	for i := range 5 {
		largest = max(largest, shardOf(t, r.Run, 1, i).Bytes)
	}
	reopen := func(cache int64) (*pipeline.Run, string) {
		r.Job.Local = pipeline.Local{Dir: t.TempDir(), Bytes: pipeline.Bytes(2 * cache)}
		return r.Open(t, "run-1"), filepath.Join(r.Job.Local.Dir, "cache")
	}
	want := whole(t, r.Run, 1)
	all := shards(t, r.Run)

	run, folder := reopen(4*largest + largest/2)
	source, err := solve.OpenSource(run, all, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, source, want, clusters[1])
	held := int64(0)
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		held += info.Size()
	}
	if len(files) < 2 || held > 5*largest {
		t.Errorf("the cache has %d files of %d bytes together; its bound is %d", len(files), held, 4*largest)
	}
	// What is pinned leaves room for others, here for another head's shards.
	other, err := solve.OpenSource(run, all, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, other, whole(t, r.Run, 0), clusters[0])
	other.Close()
	source.Close()

	run, _ = reopen(3 * largest)
	_, err = solve.OpenSource(run, all, 1, 0)
	fails(t, err, pipeline.Config, "raise local.bytes to", "lower extract.shard_rows", "mem://work")
}

// TestDamagedShard: a flipped bit, a missing file and a short one are found
// before anything is parsed.
func TestDamagedShard(t *testing.T) {
	ctx := context.Background()
	for name, remote := range map[string]bool{"local": false, "remote": true} {
		t.Run(name, func(t *testing.T) {
			r := extracted(t, images, nil, remote, nil)
			o := shardOf(t, r.Run, 1, 2)
			sound, err := r.Run.Work.Get(ctx, r.Path(o.Path))
			if err != nil {
				t.Fatal(err)
			}
			flipped := bytes.Clone(sound)
			flipped[len(flipped)/2] ^= 1
			put := func(data []byte) func() error {
				return func() error { return r.Run.Work.Put(ctx, r.Path(o.Path), data) }
			}
			for _, c := range []struct {
				name   string
				damage func() error
				words  []string
			}{
				{"flipped bit", put(flipped), []string{"sha256"}},
				{"short", put(sound[:len(sound)-1]), []string{fmt.Sprint(len(sound) - 1)}},
				{"missing", func() error { return r.Run.Work.Delete(ctx, r.Path(o.Path)) }, []string{"no such object"}},
			} {
				if err := c.damage(); err != nil {
					t.Fatal(err)
				}
				// Another process, which has not checked the files before.
				r.Job.Local.Dir = t.TempDir()
				run := r.Open(t, "run-1")
				fails(t, do(t, r, run), pipeline.Data, append(c.words, "task head-1", "logprobs/head-1/part-00002")...)
			}
			if err := put(sound)(); err != nil {
				t.Fatal(err)
			}
			if err := do(t, r, r.Open(t, "run-1")); err != nil {
				t.Errorf("once it is repaired: %v", err)
			}
		})
	}
}

// TestForeignShard: files that are sound, but of another head, of other rows
// than the commit counts, or made with another model.
func TestForeignShard(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, images, nil, false, nil)
	mine := shardOf(t, r.Run, 1, 1)
	sound, err := r.Run.Work.Get(ctx, r.Path(mine.Path))
	if err != nil {
		t.Fatal(err)
	}
	compact, recoded := compacted(t, r.Run, mine)
	stats := func(data []byte, rows int64) schemas.FileStats {
		sum := sha256.Sum256(data)
		return schemas.FileStats{Rows: rows, Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	}
	other, err := r.Run.Work.Get(ctx, r.Path(shardOf(t, r.Run, 0, 1).Path))
	if err != nil {
		t.Fatal(err)
	}
	replace(t, r.Run, mine, other, stats(other, mine.Rows))
	fails(t, do(t, r, r.Run), pipeline.Data, "logprobs/head-1/part-00001", "holds logprobs of head 0 with 3 columns", "head 1 with 7")

	replace(t, r.Run, mine, sound, stats(sound, mine.Rows-1))
	fails(t, do(t, r, r.Run), pipeline.Data, "head 1: its shards hold 2499 rows, the commits count 2500")

	r.Provenance.Model = strings.Repeat("1", 64)
	foreign := r.Open(t, "of-another-model")
	r.Through(t, foreign, extract.Name)
	theirs := shardOf(t, foreign, 1, 1)
	data, err := foreign.Work.Get(ctx, foreign.Path(theirs.Path))
	if err != nil {
		t.Fatal(err)
	}
	replace(t, r.Run, mine, data, theirs.FileStats)
	// Which shard is opened first, and so which is the foreign one, is chance.
	fails(t, do(t, r, r.Run), pipeline.Data, "logprobs/head-1/part-0000", "another model, preprocessing or listing")

	replace(t, r.Run, mine, compact, recoded)
	fails(t, do(t, r, r.Run), pipeline.Data, "logprobs/head-1/part-0000", "another precision")

	replace(t, r.Run, mine, sound, mine.FileStats)
	if err := do(t, r, r.Run); err != nil {
		t.Errorf("once it is repaired: %v", err)
	}
}

// compacted is a shard of head 1 in the other stored form.
func compacted(t *testing.T, run *pipeline.Run, o pipeline.Output) ([]byte, schemas.FileStats) {
	t.Helper()
	local, release, err := run.Fetch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b, err := schemas.OpenBlocks(local)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	meta, path := b.Meta(), filepath.Join(t.TempDir(), "x")
	meta.Compact = true
	rows, values := make([]int64, o.Rows), make([]float32, o.Rows*int64(meta.Width))
	if err := b.ReadIndex(0, rows, values); err != nil {
		t.Fatal(err)
	}
	w, err := schemas.CreateBlocks(path, meta)
	if err == nil {
		err = w.Write(schemas.NewBatch(rows, values, nil, meta.Width, nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	stats, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, stats
}

// TestReadEndsWithItsContext.
func TestReadEndsWithItsContext(t *testing.T) {
	r := extracted(t, 100, nil, true, nil)
	source, err := solve.OpenSource(r.Run, shards(t, r.Run), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := source.ReadChunk(ctx, 0, &sinkhorn.Block{}, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := source.ReadChunk(context.Background(), 0, &sinkhorn.Block{}, nothing); err != nil {
		t.Errorf("after a cancelled read: %v", err)
	}
}
