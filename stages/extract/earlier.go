package extract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/list"
)

// earlier is a run whose rows a stage takes over for the images that have not
// changed since. They are copied to this run's own shards, under their new
// numbers: the shards are those that a run from scratch writes, byte by byte, no
// run needs another one's files later, and a copy costs less than the passes that
// the solver makes over it.
type earlier struct {
	run    *pipeline.Run
	images int64
	rows   int64 // of a shard
	join   *list.Join
	// files has one list for each table of an output, in the same order, by shard.
	files [][]pipeline.Output
}

// openEarlier opens the run to take rows from. It returns nil, and says why, where
// there is none or its rows would not be this run's.
func (s *Stage) openEarlier(ctx context.Context, run *pipeline.Run, c *Classifier) (*earlier, error) {
	// The network of a loop's round is always another than that of the round before.
	if s.Earlier == nil || run.Job.Extract.Reuse == "none" || run.Loop != "" {
		return nil, nil
	}
	before, err := s.Earlier(ctx)
	if err != nil || before == nil {
		return nil, err
	}
	e := &earlier{run: before, rows: before.Job.Extract.ShardRows}
	err = e.open(ctx, run, s.listing, c)
	if pipeline.ClassOf(err) == pipeline.Transient || ctx.Err() != nil {
		return nil, fmt.Errorf("run %s, to take rows from: %w", before.Run, err)
	}
	if err != nil {
		run.Notice(Name, "every image is extracted: nothing can be taken from the last published run", "run", before.Run, "why", err.Error())
		return nil, nil
	}
	run.Notice(Name, "images that have not changed keep the rows they have", "in_run", before.Run)
	return e, nil
}

func (e *earlier) open(ctx context.Context, run *pipeline.Run, now *list.Listing, c *Classifier) error {
	if diff := madeOtherwise(&e.run.Record, &run.Record); len(diff) > 0 {
		return errors.New(strings.Join(diff, "; "))
	}
	shards, err := OpenShards(ctx, e.run)
	if err != nil {
		return err
	}
	e.images = shards.Listing.Images
	if !slices.Equal(shards.Heads, c.Heads) || shards.FeatureDim != c.FeatureDim {
		return errors.New("it has other heads or features")
	}
	for h := range shards.Heads {
		files, err := shards.LogProbs(h)
		if err != nil {
			return err
		}
		e.files = append(e.files, files)
	}
	for h := range shards.Heads {
		files, err := shards.Sample(h)
		if err != nil {
			return err
		}
		e.files = append(e.files, files)
	}
	if c.FeatureDim > 0 {
		files, err := shards.Features()
		if err != nil {
			return err
		}
		e.files = append(e.files, files)
	}
	if err := e.there(ctx, run); err != nil {
		return err
	}
	e.join, err = list.NewJoin(ctx, now, shards.Listing, run.Job.Extract.ShardRows)
	return err
}

// there makes sure that the first shard has not been let go of, as all are at
// once, and that the cache has room for those that two tasks take rows from.
func (e *earlier) there(ctx context.Context, run *pipeline.Run) error {
	_, err := run.Work.Stat(ctx, e.run.Path(e.files[0][0].Path))
	if errors.Is(err, bucket.ErrNotFound) {
		return errors.New("its log-probabilities are gone (keep.logprobs)")
	}
	if err != nil || run.Work.Local() {
		return err
	}
	var largest int64
	for i := range e.files[0] {
		var bytes int64
		for _, files := range e.files {
			bytes += files[i].Bytes
		}
		largest = max(largest, bytes)
	}
	if need := 2 * largest; need > run.CacheBytes()/2 {
		return fmt.Errorf("the cache holds %s, and %s of its shards are read at once: raise local.bytes to %s", pipeline.Bytes(run.CacheBytes()), pipeline.Bytes(need), pipeline.Bytes(4*need))
	}
	return nil
}

// madeOtherwise lists what makes rows of one run unlike those of another, of the
// same image.
func madeOtherwise(before, now *pipeline.Record) []string {
	diff := slices.DeleteFunc(before.Job.Difference(now.Job), func(d string) bool {
		field, _, _ := strings.Cut(d, ":")
		section, _, _ := strings.Cut(field, ".")
		return !slices.Contains([]string{"model", "preprocess", "runtime", Name}, section) && field != "images.bucket" || field == "extract.shard_rows"
	})
	p, q := before.Provenance, now.Provenance
	for _, d := range []struct{ name, before, now string }{
		{"model digest", p.Model, q.Model}, {"runtime library digest", p.Library, q.Library}, {"preprocessing fingerprint", p.Preprocessing, q.Preprocessing},
		{"code version", p.Code, q.Code}, {"processor class", p.Processor, q.Processor},
	} {
		if d.before != d.now {
			diff = append(diff, fmt.Sprintf("%s: %.19s → %.19s", d.name, d.before, d.now))
		}
	}
	return diff
}

// taken is a row to take over: its number now and before, and its image's hash.
type taken struct {
	now, before int64
	hash        uint64
}

// split parts the images of a task into those to extract and the rows to take
// over. An image that was quarantined has no row and is tried again.
func (e *earlier) split(ctx context.Context, index int, o *output) (fresh []schemas.Image, rows []taken, err error) {
	shard := e.reader()
	defer shard.close()
	err = e.join.Read(ctx, index, func(img schemas.Image, before int64) error {
		if before != list.NoRow {
			if err := shard.move(ctx, before/e.rows); err != nil {
				return err
			}
			hash := o.keyHash(img)
			if _, ok := shard.tables[0].Find(before); ok && e.sampled(o, hash) {
				rows = append(rows, taken{img.Row, before, hash})
				return nil
			}
		}
		fresh = append(fresh, img)
		return nil
	})
	return fresh, rows, err
}

// sampled tells whether each sample that an image belongs to had it before, when
// there may have been more images and thus smaller shares of them.
func (e *earlier) sampled(o *output, hash uint64) bool {
	for _, s := range o.samples {
		if hash < s.threshold && hash >= threshold(s.width, e.images) {
			return false
		}
	}
	return true
}

// shardReader holds the tables of one shard at a time open.
type shardReader struct {
	from    *earlier
	index   int64
	tables  []*schemas.Blocks
	release []func()
}

func (e *earlier) reader() *shardReader { return &shardReader{from: e, index: -1} }

// move opens the tables of a shard.
func (r *shardReader) move(ctx context.Context, index int64) error {
	if index == r.index {
		return nil
	}
	r.close()
	for _, files := range r.from.files {
		file := files[index]
		local, release, err := r.from.run.Fetch(ctx, file)
		if err != nil {
			return err
		}
		r.release = append(r.release, release)
		blocks, err := schemas.OpenBlocks(local)
		if err != nil {
			return pipeline.BadData(fmt.Errorf("open %s of run %s: %w", file.Name, r.from.run.Run, err))
		}
		r.tables = append(r.tables, blocks)
	}
	r.index = index
	return nil
}

func (r *shardReader) close() {
	for _, b := range r.tables {
		_ = b.Close() // only read
	}
	for _, release := range r.release {
		release()
	}
	r.index, r.tables, r.release = -1, r.tables[:0], r.release[:0]
}
