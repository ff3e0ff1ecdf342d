package solve

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
)

// Flips counts the rows of a float32 source whose label under the potentials v
// at λ changes once they have been stored in the compact form, and all of its
// rows. It uses all cores.
func Flips(ctx context.Context, source sinkhorn.Source, lambda float64, v []float64) (flips, rows int64, err error) {
	var next, flipped, seen atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			var buf sinkhorn.Block
			x, codes := make([]float32, len(v)), make([]uint16, len(v))
			count := func(b *sinkhorn.Block) error {
				for i, row := range b.Rows {
					copy(x, b.X[i*len(v):(i+1)*len(v)])
					was, _ := sinkhorn.Assign(x, lambda, v)
					if err := schemas.RoundTrip(x, codes); err != nil {
						return pipeline.BadData(fmt.Errorf("row %d: %w", row, err))
					}
					if is, _ := sinkhorn.Assign(x, lambda, v); is != was {
						flipped.Add(1)
					}
				}
				seen.Add(int64(len(b.Rows)))
				return nil
			}
			for i := int(next.Add(1)) - 1; i < source.Chunks(); i = int(next.Add(1)) - 1 {
				if err := source.ReadChunk(ctx, i, &buf, count); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, fmt.Errorf("count labels changed by stored precision: %w", err)
	}
	return flipped.Load(), seen.Load(), nil
}
