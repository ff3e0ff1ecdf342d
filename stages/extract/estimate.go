package extract

import (
	"sela/pipeline"
	"sela/stages/internal/imageio"
)

// Estimate is what extracting so many images will take.
type Estimate struct {
	Shards       int64 `json:"shards"`
	HeadBytes    int64 `json:"logprob_bytes_per_head"` // on disk, of the largest head
	TotalBytes   int64 `json:"bytes"`                  // of all heads, features and samples
	ScratchBytes int64 `json:"scratch_bytes"`          // of one task, on the local disk
	MemoryBytes  int64 `json:"memory_bytes"`           // buffers of this program; the runtime's own come on top
	DecodeBytes  int64 `json:"decode_bytes"`           // on top of it if every decoder has an image of preprocess.max_pixels in hand
}

// headBytes is what a row takes in a table of log-probabilities, with its number.
func headBytes(h Head, compact bool) int64 {
	if compact {
		return 2*int64(h.Clusters) + 16
	}
	return 4*int64(h.Clusters) + 8
}

// rowBytes is what a row takes in all tables but the samples, and once the digest
// of the image.
func rowBytes(c *Classifier, compact bool) int64 {
	row := int64(32)
	for _, h := range c.Heads {
		row += headBytes(h, compact)
	}
	if c.FeatureDim > 0 {
		row += 4*int64(c.FeatureDim) + 8
	}
	return row
}

// scratchBytes bounds the local files of a task of so many rows: its tables, the
// largest possible samples, and a quarantine row where there are no others.
func scratchBytes(c *Classifier, rows int64) int64 {
	return rows*(rowBytes(c, c.design.Compact)+rowBytes(c, false)/4+512) + 1<<20
}

// NewEstimate predicts sizes from the shapes alone.
func NewEstimate(job *pipeline.Job, c *Classifier, images int64) Estimate {
	shard := job.Extract.ShardRows
	e := Estimate{Shards: (images + shard - 1) / shard}
	var blocks int64
	for _, h := range c.Heads {
		k := int64(h.Clusters)
		e.HeadBytes = max(e.HeadBytes, images*headBytes(h, c.design.Compact))
		// A row group being gathered and, of the task before, one being encoded
		// in two copies; and a quarter as much for the samples.
		blocks += 4 * 4 * k * int64(blockRows(h.Clusters, len(c.Heads), shard))
	}
	e.TotalBytes = images * rowBytes(c, c.design.Compact)
	for _, h := range c.Heads {
		e.TotalBytes += int64(sampleOf(h.Clusters, images) * float64(images) * float64(headBytes(h, false)))
	}
	e.ScratchBytes = scratchBytes(c, min(images, shard))
	element := int64(4)
	switch c.pre.Spec().DType {
	case imageio.Float16:
		element = 2
	case imageio.Uint8:
		element = 1
	}
	slot := int64(c.Batch) * (int64(c.Spec.Len())*element + rowBytes(c, false))
	workers := workersOf(job)
	// Measured: 20 bytes a pixel for 16-bit PNG with alpha, the costliest.
	e.DecodeBytes = 20 * job.Preprocess.MaxPixels * int64(decoders(workers))
	// What is read ahead, and as much in buffers to be used again.
	ahead := 2*int64(job.Extract.ReadAhead) + int64(requestsOf(job))*requestBytes
	e.MemoryBytes = int64(batches(workers))*slot + blocks + ahead + 2*shard*256 + 64<<20
	return e
}

// requestBytes is what a request under way takes besides its span: connection,
// buffers and a goroutine.
const requestBytes = 64 << 10

func decoders(workers []role) (n int) {
	for _, w := range workers {
		if w.decode {
			n++
		}
	}
	return n
}
