package solve

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/extract"
)

// Source gives a head's log-probabilities to the solver and the label stage,
// straight from the pages of its shards. It implements [sinkhorn.Source]. Since
// shards are cut at multiples of the solver's chunk, a chunk lies in one shard.
type Source struct {
	run            *pipeline.Run
	files          []pipeline.Output
	head, clusters int
	rows           int64
	chunks         int
	chunksPerShard int

	mu    sync.Mutex
	limit int // of open shards
	room  *sync.Cond
	open  map[int]*shard
	uses  int64
	meta  map[string]string // of the first shard opened; the others must agree
}

// shard is an open file. ready is closed when blocks or err is set.
type shard struct {
	blocks  *schemas.Blocks
	release func()
	err     error
	ready   chan struct{}
	users   int
	used    int64
}

// maxOpen bounds the shards held open where they are local files. Passes read
// shards in order, so that a few serve all workers.
const maxOpen = 256

// openLimit is the number of shards a pass may hold at once. Shards of a remote
// store are pinned in the cache: they take half of it and leave the rest to
// whatever else is fetched meanwhile.
func openLimit(run *pipeline.Run, files []pipeline.Output) (int, error) {
	if run.Work.Local() {
		return maxOpen, nil
	}
	var largest int64 = 1
	for _, f := range files {
		largest = max(largest, f.Bytes)
	}
	limit := run.CacheBytes() / largest / 2
	if limit < 2 {
		return 0, pipeline.BadConfig(fmt.Errorf("a shard has %s, and the cache for %s holds %s: raise local.bytes to %s or lower extract.shard_rows",
			pipeline.Bytes(largest), run.Work.URL(), pipeline.Bytes(run.CacheBytes()), pipeline.Bytes(8*largest)))
	}
	return int(min(limit, maxOpen)), nil
}

// OpenSource prepares to read a head's shards. Files are fetched, checked
// against their sha256 and opened when a chunk of theirs is first read. At most
// open of them are held at once: 1 is enough for one reader that goes through
// the chunks in order, and 0 is as many as serve the passes of a solve.
func OpenSource(run *pipeline.Run, shards *extract.Shards, head, open int) (*Source, error) {
	files, err := shards.LogProbs(head)
	if err != nil {
		return nil, err
	}
	limit := open
	if limit == 0 {
		if limit, err = openLimit(run, files); err != nil {
			return nil, err
		}
	}
	s := &Source{run: run, limit: limit, files: files, head: head, clusters: shards.Heads[head].Clusters, rows: shards.Usable(),
		chunks:         int((shards.Listing.Images + sinkhorn.ChunkRows - 1) / sinkhorn.ChunkRows),
		chunksPerShard: int(run.Job.Extract.ShardRows / sinkhorn.ChunkRows), open: map[int]*shard{}}
	s.room = sync.NewCond(&s.mu)
	var rows int64
	for _, f := range files {
		rows += f.Rows
	}
	if rows != s.rows {
		return nil, pipeline.BadData(fmt.Errorf("head %d: its shards hold %d rows, the commits count %d usable images", head, rows, s.rows))
	}
	return s, nil
}

// Dims implements [sinkhorn.Source].
func (s *Source) Dims() (rows int64, clusters int) { return s.rows, s.clusters }

// Chunks implements [sinkhorn.Source].
func (s *Source) Chunks() int { return s.chunks }

// ReadChunk implements [sinkhorn.Source].
func (s *Source) ReadChunk(ctx context.Context, i int, dst *sinkhorn.Block) error {
	index := i / s.chunksPerShard
	sh, err := s.acquire(ctx, index)
	if err != nil {
		return err
	}
	defer s.done(sh)
	dst.Rows = slices.Grow(dst.Rows[:0], sinkhorn.ChunkRows)[:sinkhorn.ChunkRows]
	dst.X = slices.Grow(dst.X[:0], sinkhorn.ChunkRows*s.clusters)[:sinkhorn.ChunkRows*s.clusters]
	from := int64(i) * sinkhorn.ChunkRows
	n, err := sh.blocks.ReadRows(from, from+sinkhorn.ChunkRows, dst.Rows, dst.X)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.files[index].Name, err)
	}
	dst.Rows, dst.X = dst.Rows[:n], dst.X[:n*s.clusters]
	return nil
}

// SHA256s calls fn with the digest of the image's bytes for each row in
// [from, to), which must lie in one chunk. Only head 0 has digests.
func (s *Source) SHA256s(ctx context.Context, from, to int64, fn func(row int64, sum [32]byte) error) error {
	index := int(from/sinkhorn.ChunkRows) / s.chunksPerShard
	sh, err := s.acquire(ctx, index)
	if err != nil {
		return err
	}
	defer s.done(sh)
	if err := sh.blocks.SHA256s(from, to, fn); err != nil {
		return fmt.Errorf("read %s: %w", s.files[index].Name, err)
	}
	return nil
}

// acquire opens a shard, or joins those who use it.
func (s *Source) acquire(ctx context.Context, index int) (*shard, error) {
	s.mu.Lock()
	s.uses++
	for s.open[index] == nil && !s.evict() {
		s.room.Wait() // another reader is about to be done with its shard
	}
	sh := s.open[index]
	mine := sh == nil
	if mine {
		sh = &shard{ready: make(chan struct{})}
		s.open[index] = sh
	}
	sh.users++
	sh.used = s.uses
	s.mu.Unlock()
	if mine {
		s.load(ctx, index, sh)
	}
	select {
	case <-sh.ready:
	case <-ctx.Done():
		s.done(sh)
		return nil, ctx.Err()
	}
	if sh.err != nil {
		s.done(sh)
		return nil, sh.err
	}
	return sh, nil
}

func (s *Source) done(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.users--
	s.room.Broadcast()
}

// load makes a shard ready. One that failed is forgotten, so that the next
// reader tries again.
func (s *Source) load(ctx context.Context, index int, sh *shard) {
	sh.err = s.fetch(ctx, s.files[index], sh)
	if sh.err != nil && ctx.Err() != nil {
		sh.err = ctx.Err()
	}
	if sh.err != nil {
		s.mu.Lock()
		delete(s.open, index)
		s.mu.Unlock()
	}
	close(sh.ready)
}

// evict makes room for one more shard by closing those used longest ago, and
// tells whether there is room.
func (s *Source) evict() bool {
	for len(s.open) >= s.limit {
		oldest := -1
		for i, sh := range s.open {
			if sh.users == 0 && (oldest < 0 || sh.used < s.open[oldest].used) {
				oldest = i
			}
		}
		if oldest < 0 {
			return false
		}
		s.open[oldest].close()
		delete(s.open, oldest)
	}
	return true
}

func (s *Source) fetch(ctx context.Context, file pipeline.Output, sh *shard) error {
	local, release, err := s.run.Fetch(ctx, file)
	if err != nil {
		return err
	}
	blocks, err := schemas.OpenBlocks(local)
	if err != nil {
		release()
		return pipeline.BadData(fmt.Errorf("open %s: %w", file.Name, err))
	}
	sh.blocks, sh.release = blocks, release
	if err := s.check(file, blocks); err != nil {
		sh.close()
		return pipeline.BadData(err)
	}
	return nil
}

// check refuses a shard that does not belong to this head and run.
func (s *Source) check(file pipeline.Output, b *schemas.Blocks) error {
	m := b.Meta()
	switch {
	case m.Kind != schemas.KindLogprobs || m.Head != s.head || m.Width != s.clusters:
		return fmt.Errorf("%s holds %s of head %d with %d columns, not log-probabilities of head %d with %d", file.Name, m.Kind, m.Head, m.Width, s.head, s.clusters)
	case b.NumRows() != file.Rows:
		return fmt.Errorf("%s has %d rows, its commit says %d", file.Name, b.NumRows(), file.Rows)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		s.meta = m.KV
	}
	if !maps.Equal(s.meta, m.KV) {
		return fmt.Errorf("%s was made with another model, preprocessing or listing than the shards before it: start a new run", file.Name)
	}
	return nil
}

func (sh *shard) close() {
	if sh.blocks != nil {
		_ = sh.blocks.Close() // only read
		sh.blocks = nil
		sh.release()
	}
}

// Close closes the open shards. No read may be under way.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.open {
		sh.close()
	}
	s.open = map[int]*shard{}
}
