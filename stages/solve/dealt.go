package solve

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/truth"
)

// random deals the clusters, each as many images as any other or one more: the
// labels i mod K in an order drawn by seed and head, as the SeLa reference
// begins. It follows from seed, head and which images there are.
func (s *Stage) random(ctx context.Context, a *pipeline.Attempt, head int) ([]int64, []int32, *Labelling, error) {
	rows, err := s.rowNumbers(ctx, a, head)
	if err != nil {
		return nil, nil, nil, err
	}
	clusters, seed := s.shards.Heads[head].Clusters, a.Run.Job.Solve.Seed
	labels := deal(len(rows), clusters, uint64(seed), uint64(head))
	l := newLabelling("random", clusters, labels)
	l.Dealt = &Dealt{Seed: seed}
	return rows, labels, l, nil
}

// deal returns the labels i mod clusters of n rows in random order.
func deal(n, clusters int, seed, head uint64) []int32 {
	labels := make([]int32, n)
	for i := range labels {
		labels[i] = int32(i % clusters)
	}
	random := rand.New(rand.NewPCG(seed, head))
	for i := n - 1; i > 0; i-- { // Fisher and Yates
		j := random.IntN(i + 1)
		labels[i], labels[j] = labels[j], labels[i]
	}
	return labels
}

// truth labels images with their classes, numbered in the order of their names.
func (s *Stage) truth(ctx context.Context, a *pipeline.Attempt, head int) ([]int64, []int32, *Labelling, error) {
	spec := a.Run.Job.Solve
	source, err := truth.Open(ctx, spec.Truth)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("solve.truth: %w", err)
	}
	if began := a.Run.Provenance.Truth; began != "" && source.Digest() != began {
		return nil, nil, nil, pipeline.BadData(fmt.Errorf("solve.truth: the table changed after the run began (its sha256 was %s): put it back, or begin another run", began))
	}
	rows, err := s.rowNumbers(ctx, a, head)
	if err != nil {
		return nil, nil, nil, err
	}
	names, labels, err := source.Labels(ctx, func(yield func(key, member string) error) error {
		next := 0
		return s.shards.Listing.Read(ctx, 0, s.shards.Listing.Images, func(img schemas.Image) error {
			if next == len(rows) || rows[next] != img.Row {
				return nil // quarantined
			}
			next++
			return yield(img.Key, img.Member)
		})
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("solve.truth: %w", err)
	}
	if k := s.shards.Heads[head].Clusters; len(names) != k {
		return nil, nil, nil, pipeline.BadConfig(fmt.Errorf("solve.truth: the images are of %d classes (%s), head %d has %d clusters: method truth needs as many; make a model with heads of %d clusters",
			len(names), some(names), head, k, len(names)))
	}
	if len(labels) != len(rows) {
		return nil, nil, nil, pipeline.BadData(fmt.Errorf("the shards of head %d hold %d rows, the listing has %d of them", head, len(rows), len(labels)))
	}
	l := newLabelling("truth", len(names), labels)
	l.Classes = names
	return rows, labels, l, nil
}

// some quotes the first names.
func some(names []string) string {
	const first = 5
	if len(names) > first {
		return strings.Join(names[:first], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
