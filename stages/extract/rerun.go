package extract

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/internal/ort"
)

// Rerun is what a second look at an image gave.
type Rerun struct {
	SHA256 [32]byte // of the image's bytes
	// Rejected says why the image cannot be used; then LogProbs is nil, and so
	// is SHA256 where the object is missing or too short.
	Rejected error
	// LogProbs are those of each head, K float32 in nats.
	LogProbs [][]float32
}

// Rerun runs images through the model once more, in batches of its own, and
// calls fn for each in order; what it is given is valid until fn returns. An
// image without an ETag is not held against what was listed. bitwise tells
// whether the model gave the same bits in any batch, measured on the first one:
// only then can its outputs be compared exactly with those of another run.
func (c *Classifier) Rerun(ctx context.Context, images *bucket.Bucket, list []schemas.Image, fn func(i int, r *Rerun) error) (bitwise bool, err error) {
	slot, err := c.NewSlot(ctx)
	if err != nil {
		return false, err
	}
	defer slot.Close()
	fetch, worker := newFetcher(maxSpan, c.Spec.Limits.MaxBytes, 1), c.pre.NewWorker()
	results := make([]Rerun, c.Batch)
	bitwise = true
	for first := 0; first < len(list); first += c.Batch {
		batch := list[first:min(first+c.Batch, len(list))]
		c.blank(slot, 0, c.Batch)
		for pos, img := range batch {
			if results[pos], err = c.place(ctx, images, fetch, worker, img, slot, pos); err != nil {
				return false, err
			}
		}
		if first == 0 {
			probe, err := c.session.CheckDeterminism(ctx, slot)
			if err != nil {
				return false, err
			}
			bitwise = probe.Bitwise()
		} else if err := c.session.Run(ctx, slot); err != nil {
			return false, err
		}
		for pos := range batch {
			r := &results[pos]
			for h, head := range c.Heads {
				if r.Rejected == nil {
					r.LogProbs = append(r.LogProbs, slot.Outputs[h].Float32()[pos*head.Clusters:(pos+1)*head.Clusters])
				}
			}
			if err := fn(first+pos, r); err != nil {
				return bitwise, err
			}
		}
	}
	return bitwise, nil
}

// place fetches, hashes and decodes an image into its place of the slot.
func (c *Classifier) place(ctx context.Context, images *bucket.Bucket, fetch *fetcher, worker *imageio.Worker, img schemas.Image, slot *ort.Slot, pos int) (r Rerun, err error) {
	data, err := fetch.one(ctx, images, img)
	if err == nil {
		r.SHA256 = sha256.Sum256(data)
		err = c.preprocess(worker, data, slot, pos)
	}
	if errors.As(err, new(*reject)) {
		r.Rejected, err = err, nil
	}
	if err != nil {
		err = fmt.Errorf("image %s: %w", place(img), err)
	}
	return r, err
}
