package loop

import (
	"context"
	"fmt"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/label"
	"sela/stages/list"
	"sela/stages/solve"
	"sela/stages/truth"
)

// Measure reads the labels that a run has committed and returns, by head, what
// they are and how they agree with those of the run's parent and with the truth,
// which may be nil. Memory is 12 bytes for each image. Images without truth are an
// error of class Data that names some.
func Measure(ctx context.Context, run *pipeline.Run, source *truth.Source) (heads []Head, images int64, err error) {
	shards, err := extract.OpenShards(ctx, run)
	if err != nil {
		return nil, 0, err
	}
	solutions, err := solve.Solutions(ctx, run, shards)
	if err != nil {
		return nil, 0, err
	}
	files, err := label.Files(ctx, run, shards, solutions)
	if err != nil {
		return nil, 0, err
	}
	var classes []int32
	for h, s := range solutions {
		c := column{ctx: ctx, run: run, prefix: fmt.Sprintf("labels/head=%d/", h), files: files}
		if h == 0 && source != nil {
			if _, classes, err = source.Labels(ctx, c.read); err != nil {
				return nil, 0, fmt.Errorf("loop.truth: %w", err)
			}
		} else if err := c.read(func(string, string) error { return nil }); err != nil {
			return nil, 0, err
		}
		if classes != nil && len(classes) != len(c.labels) {
			return nil, 0, pipeline.BadData(fmt.Errorf("head %d labels %d images, head 0 labels %d", h, len(c.labels), len(classes)))
		}
		head := Head{Clusters: s.Clusters(), Passes: s.Passes(), ListLength: s.Certificate.ListLength, MarginalL1: s.Certificate.MarginalL1}
		head.Smallest, head.Largest = extremes(c.labels, head.Clusters)
		if head.Agreement, err = Agree(c.labels, c.previous, classes); err != nil {
			return nil, 0, fmt.Errorf("head %d: %w", h, err)
		}
		heads, images = append(heads, head), int64(len(c.labels))
	}
	return heads, images, nil
}

// column is the labels of one head.
type column struct {
	ctx    context.Context
	run    *pipeline.Run
	prefix string
	files  []pipeline.Output // of all heads, in row order

	labels, previous []int32
}

// read reads the column and yields the name of each image.
func (c *column) read(yield func(key, member string) error) error {
	for _, f := range c.files {
		if !strings.HasPrefix(f.Name, c.prefix) {
			continue
		}
		local, release, err := c.run.Fetch(c.ctx, f)
		if err != nil {
			return err
		}
		err = schemas.ReadLabels(local, func(l *schemas.Label) error {
			previous := int32(noLabel)
			if l.PrevLabel != nil {
				previous = *l.PrevLabel
			}
			c.labels, c.previous = append(c.labels, l.Label), append(c.previous, previous)
			return yield(l.Key, l.Member)
		})
		release()
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func extremes(labels []int32, clusters int) (smallest, largest int64) {
	counts := make([]int64, clusters)
	for _, l := range labels {
		if int(l) < clusters {
			counts[l]++
		}
	}
	smallest = int64(len(labels))
	for _, n := range counts {
		smallest, largest = min(smallest, n), max(largest, n)
	}
	return smallest, largest
}

// CheckTruth makes sure, before anything is labelled, that every listed image
// has a class.
func CheckTruth(ctx context.Context, listing *list.Listing, source *truth.Source) error {
	_, _, err := source.Labels(ctx, func(yield func(key, member string) error) error {
		return listing.Read(ctx, 0, listing.Images, func(img schemas.Image) error { return yield(img.Key, img.Member) })
	})
	if err != nil {
		return fmt.Errorf("loop.truth: %w", err)
	}
	return nil
}
