package solve

import (
	"context"
	"fmt"
	"math/bits"
	"slices"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
)

// Source gives a head's log-probabilities, or features, to the solver and the
// label stage, straight from the pages of their shards. It implements
// [sinkhorn.Source]; of features K is their number. Since shards are cut at
// multiples of the solver's chunk, a chunk lies in one shard.
//
// A block is read into the caller's memory by one positional read; reading ahead
// is left to the kernel. Two readers that only added up the bytes of 4 GB of
// shards of 3,000 clusters, none in the page cache and the kernel reading 8 MiB
// ahead (read_ahead_kb), got 1.88 and 1.66 GB/s on two occasions; with advice
// (POSIX_FADV_WILLNEED) for 4 to 98 MB ahead 1.71 and 1.59 at best, and with a
// goroutine each that filled a second buffer 1.87 and 1.24. Only where the kernel
// was told not to read ahead did advice help: 1.51 GB/s after 1.04.
type Source struct {
	shards         *shardSet
	rows           int64
	clusters       int
	chunks         int
	chunksPerShard int
	blockRows      int64 // that fit in sinkhorn.BlockBytes
}

// OpenSource prepares to read a head's shards. Files are fetched, checked
// against their sha256 and opened when a chunk of theirs is first read, and the
// next one meanwhile. At most open of them are held at once: 1 is enough for one
// reader that goes through the chunks in order, with nothing fetched ahead, and
// 0 is as many as serve the passes of a solve.
func OpenSource(run *pipeline.Run, shards *extract.Shards, head, open int) (*Source, error) {
	files, err := shards.LogProbs(head)
	if err != nil {
		return nil, err
	}
	s, err := openAll(run, shards, schemas.BlocksMeta{Kind: schemas.KindLogprobs, Head: head, Width: shards.Heads[head].Clusters}, files, open)
	if err != nil {
		return nil, fmt.Errorf("head %d: %w", head, err)
	}
	return s, nil
}

// openFeatures is [OpenSource] for the features, as many shards open as serve
// the passes of a solve.
func openFeatures(run *pipeline.Run, shards *extract.Shards) (*Source, error) {
	files, err := shards.Features()
	if err != nil {
		return nil, err
	}
	s, err := openAll(run, shards, schemas.BlocksMeta{Kind: schemas.KindFeatures, Width: shards.FeatureDim}, files, 0)
	if err != nil {
		return nil, fmt.Errorf("features: %w", err)
	}
	return s, nil
}

func openAll(run *pipeline.Run, shards *extract.Shards, want schemas.BlocksMeta, files []pipeline.Output, open int) (*Source, error) {
	if open == 0 {
		var err error
		if open, err = openLimit(run, files); err != nil {
			return nil, err
		}
	}
	s := newSource(run, shards, want, files, open)
	if usable := shards.Usable(); s.rows != usable {
		return nil, pipeline.BadData(fmt.Errorf("its shards hold %d rows, the commits count %d usable images", s.rows, usable))
	}
	return s, nil
}

// newSource reads files of a kind, one for each extract task.
func newSource(run *pipeline.Run, shards *extract.Shards, want schemas.BlocksMeta, files []pipeline.Output, open int) *Source {
	s := &Source{
		shards:   newShardSet(run, files, want, open),
		clusters: want.Width, blockRows: blockRows(want.Width),
		chunks:         int((shards.Listing.Images + sinkhorn.ChunkRows - 1) / sinkhorn.ChunkRows),
		chunksPerShard: int(run.Job.Extract.ShardRows / sinkhorn.ChunkRows),
	}
	for _, f := range files {
		s.rows += f.Rows
	}
	return s
}

// blockRows is the number of rows in a block of a source.
func blockRows(clusters int) int64 {
	return int64(max(1, min(sinkhorn.ChunkRows, sinkhorn.BlockBytes/4/clusters)))
}

// Dims implements [sinkhorn.Source].
func (s *Source) Dims() (rows int64, clusters int) { return s.rows, s.clusters }

// Chunks implements [sinkhorn.Source].
func (s *Source) Chunks() int { return s.chunks }

// ReadChunk implements [sinkhorn.Source]. It fills buf.
func (s *Source) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	return s.read(ctx, i, buf, share{0, 1}, yield)
}

// read is ReadChunk for a share of the rows.
func (s *Source) read(ctx context.Context, i int, buf *sinkhorn.Block, part share, yield func(*sinkhorn.Block) error) error {
	index := i / s.chunksPerShard
	sh, err := s.shards.acquire(ctx, index)
	if err != nil {
		return err
	}
	defer s.shards.done(sh)
	from := int64(i) * sinkhorn.ChunkRows
	next, end := sh.blocks.Before(from), sh.blocks.Before(from+sinkhorn.ChunkRows)
	for next < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(end-next, s.blockRows))
		buf.Rows = slices.Grow(buf.Rows[:0], n)[:n]
		buf.X = slices.Grow(buf.X[:0], n*s.clusters)[:n*s.clusters]
		if err := sh.blocks.ReadIndex(next, buf.Rows, buf.X); err != nil {
			return fmt.Errorf("read %s: %w", s.shards.files[index].Name, err)
		}
		next += int64(n)
		if part.of > 1 {
			part.thin(buf, s.clusters)
		}
		if len(buf.Rows) == 0 {
			continue
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// SHA256s calls fn with the digest of the image's bytes for each row in
// [from, to), which must lie in one chunk. Only head 0 has digests.
func (s *Source) SHA256s(ctx context.Context, from, to int64, fn func(row int64, sum [32]byte) error) error {
	index := int(from/sinkhorn.ChunkRows) / s.chunksPerShard
	sh, err := s.shards.acquire(ctx, index)
	if err != nil {
		return err
	}
	defer s.shards.done(sh)
	if err := sh.blocks.SHA256s(from, to, fn); err != nil {
		return fmt.Errorf("read %s: %w", s.shards.files[index].Name, err)
	}
	return nil
}

// numbers returns the numbers of all rows, ascending.
func (s *Source) numbers(ctx context.Context) ([]int64, error) {
	all := make([]int64, 0, s.rows)
	for i := range s.shards.files {
		sh, err := s.shards.acquire(ctx, i)
		if err != nil {
			return nil, err
		}
		for _, run := range sh.blocks.Runs() {
			for k := range run.Count {
				all = append(all, run.First+k)
			}
		}
		s.shards.done(sh)
	}
	return all, nil
}

// Close gives up what is being fetched and closes the open shards. No read may
// be under way.
func (s *Source) Close() { s.shards.close() }

// share is the i-th of so many disjoint shares of the rows, drawn by a hash of
// the row number: neighbours, which a listing may have sorted by class, fall
// into shares at random, and the same ones in every run.
type share struct{ i, of uint64 }

func (s share) has(row int64) bool {
	part, _ := bits.Mul64(splitmix64(uint64(row)), s.of)
	return part == s.i
}

// thin drops the rows of b that are not in the share.
func (s share) thin(b *sinkhorn.Block, clusters int) {
	n := 0
	for i, row := range b.Rows {
		if s.has(row) {
			b.Rows[n] = row
			copy(b.X[n*clusters:(n+1)*clusters], b.X[i*clusters:(i+1)*clusters])
			n++
		}
	}
	b.Rows, b.X = b.Rows[:n], b.X[:n*clusters]
}

// splitmix64 is the output function of the generator of that name (Steele, Lea
// and Flood, Fast splittable pseudorandom number generators, 2014).
func splitmix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
