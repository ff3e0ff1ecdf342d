package extract

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/internal/quarantine"
)

// A head's sample holds sampleRows images per cluster, which is what a solver
// needs to start well (design notes, "Fewer passes"), but at most a quarter of
// all: where N is small a full pass is cheap. It is float32 whatever the shards
// are, and so tells what their precision costs.
const (
	sampleRows  = 60
	sampleShare = 0.25
)

// sampleOf returns the share of the images that is in a head's sample.
func sampleOf(clusters int, images int64) float64 {
	return min(sampleShare, float64(sampleRows*clusters)/float64(max(images, 1)))
}

// threshold is what the key hashes of the images in a head's sample are below.
func threshold(clusters int, images int64) uint64 {
	return uint64(sampleOf(clusters, images) * math.MaxUint64)
}

// A block of log-probabilities is one row group and one page: large enough to
// be read at disk speed, small enough that T of them fit in memory while T
// heads are written at once.
const (
	blockBytes    = 16 << 20
	allBlockBytes = 64 << 20
)

// blockRows returns the rows per block of a head with K clusters among T heads:
// whole chunks where a block holds at least one.
func blockRows(clusters, heads int, shardRows int64) int {
	rows := int64(min(blockBytes, allBlockBytes/heads) / (4 * clusters))
	if rows >= pipeline.ChunkRows {
		rows -= rows % pipeline.ChunkRows
	}
	return int(min(max(rows, 1), shardRows))
}

// table is one block table of a task.
type table struct {
	name  string
	path  string
	width int
	w     *schemas.BlocksWriter
}

func (t *table) append(rows []int64, values []float32, sha [][32]byte) error {
	batch := schemas.NewBatch(rows, values, sha, t.width, nil)
	defer batch.Release()
	if err := t.w.Write(batch); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// sample is the sample of one head: the images whose key hash is below its
// threshold. It gathers rows until a batch is worth its overhead.
type sample struct {
	table
	threshold uint64
	rows      []int64
	values    []float32
}

// gatherRows is how many rows a sample gathers.
const gatherRows = 256

func (s *sample) pick(rows []int64, hashes []uint64, values []float32) error {
	for i, hash := range hashes {
		if hash < s.threshold {
			s.rows = append(s.rows, rows[i])
			s.values = append(s.values, values[i*s.width:(i+1)*s.width]...)
		}
	}
	if len(s.rows) < gatherRows {
		return nil
	}
	return s.flush()
}

func (s *sample) flush() error {
	if len(s.rows) == 0 {
		return nil
	}
	err := s.append(s.rows, s.values, nil)
	s.rows, s.values = s.rows[:0], s.values[:0]
	return err
}

// output writes what the model says about a task's images: a table per head,
// the features, and the samples; and the images it says nothing about.
type output struct {
	classifier *Classifier
	attempt    *pipeline.Attempt
	heads      []*table
	samples    []*sample
	features   *table // nil without features
	quarantine *quarantine.Table

	// Of the batch being written, and reused: the positions of its usable
	// images, and for each its row, digest and key hash.
	kept    []int
	rows    []int64
	digests [][32]byte
	hashes  []uint64
	key     []byte
}

// createOutput opens the tables of a task under its attempt's folder. After an
// error it has to be aborted, too. images are those of the whole run.
func createOutput(a *pipeline.Attempt, c *Classifier, images int64, kv map[string]string) (*output, error) {
	o := &output{classifier: c, attempt: a, quarantine: quarantine.New(a, "extract-"+a.Task.ID)}
	create := func(t *table, kind, folder string, head, width int) (err error) {
		t.name = folder + "/part-" + a.Task.ID + ".parquet"
		t.path = filepath.Join(a.Dir, fmt.Sprintf("%s-%d.parquet", kind, head))
		t.width = width
		t.w, err = schemas.CreateBlocks(t.path, schemas.BlocksMeta{Kind: kind, Head: head, Width: width, WithSHA256: kind == schemas.KindLogprobs && head == 0,
			Compact: kind == schemas.KindLogprobs && c.design.Compact, BlockRows: blockRows(width, len(c.Heads), a.Run.Job.Extract.ShardRows), KV: kv})
		return err
	}
	for h, head := range c.Heads {
		t := &table{}
		o.heads = append(o.heads, t)
		if err := create(t, schemas.KindLogprobs, fmt.Sprintf("logprobs/head-%d", h), h, head.Clusters); err != nil {
			return o, err
		}
		s := &sample{threshold: threshold(head.Clusters, images)}
		o.samples = append(o.samples, s)
		if err := create(&s.table, schemas.KindSample, fmt.Sprintf("sample/head-%d", h), h, head.Clusters); err != nil {
			return o, err
		}
	}
	if c.FeatureDim > 0 {
		o.features = &table{}
		return o, create(o.features, schemas.KindFeatures, "features", 0, c.FeatureDim)
	}
	return o, nil
}

// writers is how many tables are written or finished side by side. What one of
// them encodes is held in memory.
const writers = 4

// write appends a batch. The slot's memory is free again when it returns.
func (o *output) write(b *batch) error { return o.writePart(b, 0, len(b.images)) }

// writePart appends the images of a batch at positions in [from, to). What is
// before them in the slot's memory is lost.
func (o *output) writePart(b *batch, from, to int) error {
	if err := o.sort(b, from, to); err != nil {
		return err
	}
	o.attempt.Progress(int64(to - from))
	if len(o.kept) == 0 {
		return nil
	}
	var group errgroup.Group
	group.SetLimit(writers)
	for h := range o.heads {
		group.Go(func() error {
			values := compact(b.slot.Outputs[h].Float32(), o.heads[h].width, o.kept)
			var sha [][32]byte
			if h == 0 {
				sha = o.digests
			}
			if err := o.heads[h].append(o.rows, values, sha); err != nil {
				return err
			}
			return o.samples[h].pick(o.rows, o.hashes, values)
		})
	}
	if o.features != nil {
		group.Go(func() error {
			return o.features.append(o.rows, compact(b.slot.Outputs[len(o.heads)].Float32(), o.features.width, o.kept), nil)
		})
	}
	return group.Wait()
}

// sort parts the images at positions in [from, to) that can be used from those
// that go to quarantine.
func (o *output) sort(b *batch, from, to int) error {
	o.kept, o.rows, o.digests, o.hashes = o.kept[:0], o.rows[:0], o.digests[:0], o.hashes[:0]
	for pos := from; pos < to; pos++ {
		img := b.images[pos]
		bad := b.rejects[pos]
		if bad == nil {
			bad = o.classifier.examine(b.slot, pos)
		}
		if bad != nil {
			if err := o.quarantine.Add(bad.row(img)); err != nil {
				return err
			}
			continue
		}
		o.kept = append(o.kept, pos)
		o.rows = append(o.rows, img.Row)
		o.digests = append(o.digests, b.digests[pos])
		o.hashes = append(o.hashes, o.keyHash(img))
	}
	return nil
}

// compact moves the rows at the kept positions, which ascend, to the front.
func compact(values []float32, width int, kept []int) []float32 {
	for i, pos := range kept {
		if i != pos {
			copy(values[i*width:(i+1)*width], values[pos*width:(pos+1)*width])
		}
	}
	return values[:len(kept)*width]
}

// keyHash is the hash that decides whether an image belongs to a sample: the
// same in every run that lists it.
func (o *output) keyHash(img schemas.Image) uint64 {
	o.key = append(append(append(o.key[:0], img.Key...), 0), img.Member...)
	sum := sha256.Sum256(o.key)
	return binary.BigEndian.Uint64(sum[:])
}

func (o *output) tables() []*table {
	all := append([]*table{}, o.heads...)
	for _, s := range o.samples {
		all = append(all, &s.table)
	}
	if o.features != nil {
		all = append(all, o.features)
	}
	return all
}

// finish checks every table and uploads it.
func (o *output) finish(ctx context.Context) error {
	for _, s := range o.samples {
		if err := s.flush(); err != nil {
			return err
		}
	}
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, t := range o.tables() {
		group.Go(func() error {
			if running.Err() != nil {
				return running.Err()
			}
			stats, err := t.w.Commit()
			t.w = nil
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return o.attempt.Upload(running, t.path, t.name, stats)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return o.quarantine.Finish(ctx)
}

// abort drops what is not finished.
func (o *output) abort() error {
	var errs []error
	for _, t := range o.tables() {
		if t.w != nil {
			errs = append(errs, t.w.Abort())
		}
	}
	o.quarantine.Abort()
	return errors.Join(errs...)
}
