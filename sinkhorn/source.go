package sinkhorn

import (
	"context"
	"fmt"
)

// ChunkRows is the number of row numbers in a chunk. Sums are formed within
// chunks and combined in chunk order, so this number is part of what
// determines the bits of a result.
const ChunkRows = 1024

// Block is a buffer of rows. Its owner reuses it from chunk to chunk.
type Block struct {
	Rows []int64   // row numbers, strictly ascending
	X    []float32 // row-major [len(Rows)·K]: log p in nats, not multiplied by λ
}

// Source gives the log-probabilities of N rows over K clusters, as often as
// asked. Row numbers may have gaps; N counts the rows present. Where blocks
// come from (memory, shards, features and head weights) is the source's
// affair.
type Source interface {
	// Dims returns N and K. Both stay the same for the life of the source.
	Dims() (rows int64, clusters int)

	// Chunks returns the number of chunks: every row number lies in
	// [0, ChunkRows·Chunks()). A chunk may be empty.
	Chunks() int

	// ReadChunk sets dst to the rows present with row number in
	// [ChunkRows·i, ChunkRows·(i+1)), reusing the capacity of its slices.
	// The same bytes come back every time. It may be called concurrently with
	// distinct dst, and returns soon after ctx is cancelled.
	ReadChunk(ctx context.Context, i int, dst *Block) error
}

// checkBlock verifies what ReadChunk promised for chunk i.
func checkBlock(b *Block, i, clusters int) error {
	if len(b.X) != len(b.Rows)*clusters {
		return fmt.Errorf("%w: chunk %d: %d values for %d rows of %d clusters", ErrSource, i, len(b.X), len(b.Rows), clusters)
	}
	low, high := int64(i)*ChunkRows, int64(i+1)*ChunkRows
	for _, row := range b.Rows {
		if row < low || row >= high {
			return fmt.Errorf("%w: chunk %d: row %d out of place, want ascending rows in [%d, %d)", ErrSource, i, row, int64(i)*ChunkRows, high)
		}
		low = row + 1
	}
	return nil
}
