package solve

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"sela/pipeline"
	"sela/schemas"
)

// shardSet keeps block tables open while they are read, at most limit of them,
// and fetches the next one meanwhile. It is safe for concurrent use.
type shardSet struct {
	run   *pipeline.Run
	files []pipeline.Output
	want  schemas.BlocksMeta // kind, head and width of all
	limit int

	mu    sync.Mutex
	room  *sync.Cond // signalled when a shard may be closed, or a wait is to end
	open  map[int]*shard
	uses  int64
	first *schemas.BlocksMeta // of the first shard opened; the others must agree
	ahead int                 // fetched ahead last: it is tried once

	closing    context.Context // of what is fetched ahead
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// shard is an open file. ready is closed when blocks or err is set.
type shard struct {
	blocks    *schemas.Blocks
	release   func()
	err       error
	abandoned bool // by whoever was to load it, whose context ended
	ready     chan struct{}
	users     int
	used      int64
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

func newShardSet(run *pipeline.Run, files []pipeline.Output, want schemas.BlocksMeta, limit int) *shardSet {
	s := &shardSet{run: run, files: files, want: want, limit: limit, open: map[int]*shard{}}
	s.room = sync.NewCond(&s.mu)
	s.closing, s.cancel = context.WithCancel(context.Background())
	return s
}

// acquire opens a shard, or joins those who use it. The caller calls done.
func (s *shardSet) acquire(ctx context.Context, index int) (*shard, error) {
	for {
		sh, mine, err := s.join(ctx, index)
		if err != nil {
			return nil, err
		}
		if mine {
			s.load(ctx, index, sh)
		}
		select {
		case <-sh.ready:
		case <-ctx.Done():
			s.done(sh)
			return nil, ctx.Err()
		}
		if sh.err == nil {
			s.fetchAhead(ctx, index+1)
			return sh, nil
		}
		s.done(sh)
		if !sh.abandoned || ctx.Err() != nil {
			return nil, sh.err
		}
	}
}

// join makes the caller a user of a shard, which is mine if the caller has to
// load it.
func (s *shardSet) join(ctx context.Context, index int) (sh *shard, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	if s.open[index] == nil && !s.evict() {
		stop := context.AfterFunc(ctx, s.wake)
		defer stop()
		for s.open[index] == nil && !s.evict() {
			if ctx.Err() != nil {
				return nil, false, ctx.Err()
			}
			s.room.Wait() // another reader is about to be done with its shard
		}
	}
	sh = s.open[index]
	if mine = sh == nil; mine {
		sh = s.place(index)
	}
	sh.users++
	sh.used = s.uses
	return sh, mine, nil
}

// place puts a shard in the room that evict has made.
func (s *shardSet) place(index int) *shard {
	sh := &shard{ready: make(chan struct{}), used: s.uses}
	s.open[index] = sh
	return sh
}

func (s *shardSet) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
}

func (s *shardSet) done(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.users--
	s.room.Broadcast()
}

// fetchAhead begins to load the shard that a pass reads next, if there is room.
// Should that fail, the shard is loaded again when it is needed, and the error,
// if it comes again, is its reader's.
func (s *shardSet) fetchAhead(ctx context.Context, index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index == len(s.files) || index == s.ahead || s.open[index] != nil || !s.evict() {
		return
	}
	s.ahead = index
	sh := s.place(index)
	sh.users++
	s.background.Go(func() {
		defer s.done(sh)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.closing, cancel)()
		s.load(ctx, index, sh)
	})
}

// load makes a shard ready. One that failed is forgotten, so that the next
// reader tries again.
func (s *shardSet) load(ctx context.Context, index int, sh *shard) {
	sh.err = s.fetch(ctx, s.files[index], sh)
	if sh.err != nil {
		if sh.abandoned = ctx.Err() != nil; sh.abandoned {
			sh.err = ctx.Err()
		}
		s.mu.Lock()
		delete(s.open, index)
		if sh.abandoned && s.ahead == index {
			s.ahead = 0
		}
		s.mu.Unlock()
	}
	close(sh.ready)
}

// evict makes room for one more shard by closing those used longest ago, and
// tells whether there is room.
func (s *shardSet) evict() bool {
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

func (s *shardSet) fetch(ctx context.Context, file pipeline.Output, sh *shard) error {
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
func (s *shardSet) check(file pipeline.Output, b *schemas.Blocks) error {
	m := b.Meta()
	switch {
	case m.Kind != s.want.Kind || m.Head != s.want.Head || m.Width != s.want.Width:
		return fmt.Errorf("%s holds %s of head %d with %d columns, not %s of head %d with %d", file.Name, m.Kind, m.Head, m.Width, s.want.Kind, s.want.Head, s.want.Width)
	case b.NumRows() != file.Rows:
		return fmt.Errorf("%s has %d rows, its commit says %d", file.Name, b.NumRows(), file.Rows)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.first = &m
	}
	if !maps.Equal(s.first.KV, m.KV) {
		return fmt.Errorf("%s was made with another model, preprocessing or listing than the shards before it: start a new run", file.Name)
	}
	if s.first.Compact != m.Compact {
		return fmt.Errorf("%s is stored in another precision than the shards before it: start a new run", file.Name)
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

// close ends what is fetched ahead and closes every shard. None may be in use.
func (s *shardSet) close() {
	s.cancel()
	s.background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.open {
		sh.close()
	}
	s.open = map[int]*shard{}
}
