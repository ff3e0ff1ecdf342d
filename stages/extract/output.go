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
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
	"sela/stages/internal/quarantine"
)

// The sample table holds sampleRows images per cluster, which is what a solver
// needs to start well (design notes, "Fewer passes"), but at most a quarter of
// all: where N is small a full pass is cheap.
const (
	sampleRows  = 60
	sampleShare = 0.25
)

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
	value int // index among the slot's outputs
	sha   bool
	w     *schemas.BlocksWriter
}

// output writes what the model says about a task's images: a table per head,
// the features, and the sample; and the images it says nothing about.
type output struct {
	attempt    *pipeline.Attempt
	heads      []*table
	features   *table
	samples    []*table
	quarantine *quarantine.Table
	threshold  uint64 // an image whose key hash is below it belongs to the sample
	rejectable int64  // rows of this task that may be rejected

	rows    []int64
	digests [][32]byte
	chosen  []int // positions, among the kept rows, of the sample
	scratch []float32
}

// createOutput opens the tables of a task under its attempt's folder.
func createOutput(a *pipeline.Attempt, c *Classifier, images int64, kv map[string]string) (*output, error) {
	o := &output{attempt: a, quarantine: quarantine.New(a, "extract-"+a.Task.ID), rejectable: images}
	share := sampleShare
	for _, h := range c.Heads {
		share = math.Min(share, math.Max(0, float64(sampleRows*h.Clusters)/float64(max(images, 1))))
	}
	o.threshold = uint64(share * math.MaxUint64)
	shard := a.Run.Job.Extract.ShardRows
	create := func(kind, folder string, head, width, value int, sha bool) (*table, error) {
		t := &table{name: folder + "/part-" + a.Task.ID + ".parquet", width: width, value: value, sha: sha}
		t.path = filepath.Join(a.Dir, fmt.Sprintf("%s-%d.parquet", kind, head))
		w, err := schemas.CreateBlocks(t.path, schemas.BlocksMeta{Kind: kind, Head: head, Width: width, WithSHA256: sha,
			BlockRows: blockRows(width, len(c.Heads), shard), KV: kv})
		t.w = w
		return t, err
	}
	for h, head := range c.Heads {
		t, err := create(schemas.KindLogprobs, fmt.Sprintf("logprobs/head-%d", h), h, head.Clusters, h, h == 0)
		if err != nil {
			return o, err
		}
		o.heads = append(o.heads, t)
		t, err = create(schemas.KindSample, fmt.Sprintf("sample/head-%d", h), h, head.Clusters, h, false)
		if err != nil {
			return o, err
		}
		o.samples = append(o.samples, t)
	}
	if c.FeatureDim > 0 {
		t, err := create(schemas.KindFeatures, "features", 0, c.FeatureDim, len(c.Heads), false)
		if err != nil {
			return o, err
		}
		o.features = t
	}
	return o, nil
}

// write appends a batch. The slot's memory is free again when it returns.
func (o *output) write(b *batch) error {
	o.rows, o.digests, o.chosen = o.rows[:0], o.digests[:0], o.chosen[:0]
	kept := make([]int, 0, len(b.images))
	for pos, img := range b.images {
		if b.rejects[pos] == nil {
			b.rejects[pos] = o.examine(b.slot, pos)
		}
		if bad := b.rejects[pos]; bad != nil {
			if err := o.reject(img, bad); err != nil {
				return err
			}
			continue
		}
		if keyHash(img) < o.threshold {
			o.chosen = append(o.chosen, len(kept))
		}
		kept = append(kept, pos)
		o.rows = append(o.rows, img.Row)
		o.digests = append(o.digests, b.digests[pos])
	}
	o.attempt.Progress(int64(len(b.images)))
	if len(kept) == 0 {
		return nil
	}
	var group errgroup.Group
	group.SetLimit(4)
	for h := range o.heads {
		group.Go(func() error {
			values := compact(b.slot.Outputs[h].Float32(), o.heads[h].width, kept)
			if err := o.append(o.heads[h], values); err != nil {
				return err
			}
			return o.appendSample(o.samples[h], values)
		})
	}
	if o.features != nil {
		group.Go(func() error {
			return o.append(o.features, compact(b.slot.Outputs[o.features.value].Float32(), o.features.width, kept))
		})
	}
	return group.Wait()
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

func (o *output) append(t *table, values []float32) error {
	var sha [][32]byte
	if t.sha {
		sha = o.digests
	}
	return t.append(o.rows, values, sha)
}

func (o *output) appendSample(t *table, values []float32) error {
	if len(o.chosen) == 0 {
		return nil
	}
	rows := make([]int64, len(o.chosen))
	picked := make([]float32, 0, len(o.chosen)*t.width)
	for i, k := range o.chosen {
		rows[i] = o.rows[k]
		picked = append(picked, values[k*t.width:(k+1)*t.width]...)
	}
	return t.append(rows, picked, nil)
}

func (t *table) append(rows []int64, values []float32, sha [][32]byte) error {
	batch := schemas.NewBatch(rows, values, sha, t.width, nil)
	defer batch.Release()
	if err := t.w.Write(batch); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// notANumber is the class of an image for which the model gives no usable
// log-probabilities.
const notANumber imageio.Class = "nan"

// examine refuses an image in whose outputs a head has NaN, +Inf, or nothing
// but −Inf: no assignment could use it. Features must be finite.
func (o *output) examine(s *ort.Slot, pos int) *imageio.Error {
	for h, t := range o.heads {
		best := math.Inf(-1)
		for _, x := range s.Outputs[t.value].Float32()[pos*t.width : (pos+1)*t.width] {
			if v := float64(x); v > best {
				best = v
			} else if v != v {
				best = math.NaN()
				break
			}
		}
		if math.IsNaN(best) || math.IsInf(best, 0) {
			return &imageio.Error{Class: notANumber, Err: fmt.Errorf("head %d: the model's largest log-probability is %v", h, best)}
		}
	}
	if t := o.features; t != nil {
		for _, x := range s.Outputs[t.value].Float32()[pos*t.width : (pos+1)*t.width] {
			if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
				return &imageio.Error{Class: notANumber, Err: fmt.Errorf("the model's features hold %v", v)}
			}
		}
	}
	return nil
}

func (o *output) reject(img schemas.Image, bad *imageio.Error) error {
	row := img.Row
	return o.quarantine.Add(schemas.Quarantine{Row: &row, Key: img.Key, Member: img.Member, Stage: Name, Class: string(bad.Class), Message: bad.Error()})
}

// keyHash is the hash that decides whether an image belongs to the sample: the
// same in every run that lists it.
func keyHash(img schemas.Image) uint64 {
	h := sha256.New()
	h.Write([]byte(img.Key))
	h.Write([]byte{0})
	h.Write([]byte(img.Member))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (o *output) tables() []*table {
	all := append(append([]*table{}, o.heads...), o.samples...)
	if o.features != nil {
		all = append(all, o.features)
	}
	return all
}

// finish checks every table and uploads it.
func (o *output) finish(ctx context.Context) error {
	for _, t := range o.tables() {
		stats, err := t.w.Commit()
		t.w = nil
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		if err := o.attempt.Upload(ctx, t.path, t.name, stats); err != nil {
			return err
		}
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
