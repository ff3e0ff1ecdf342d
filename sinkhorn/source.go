package sinkhorn

import (
	"context"
	"fmt"
)

// ChunkRows is the number of row numbers in a chunk. Sums are formed within
// chunks and combined in chunk order, so this number is part of what
// determines the bits of a result.
const ChunkRows = 1024

// BlockBytes is the advised size of Block.X: a block that was just read is
// still in a core's own cache when it is evaluated.
const BlockBytes = 512 << 10

// Block is a run of rows of one chunk.
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

	// ReadChunk calls yield with the rows present with row number in
	// [ChunkRows·i, ChunkRows·(i+1)), ascending, in blocks of about BlockBytes
	// or whatever suits the source: how rows are cut into blocks changes no
	// bit of a result. A block is only read, and valid until yield returns.
	// It may lie in buf, whose slices the source may grow and which the caller
	// passes again, or in the source's own memory. An error of yield ends the
	// reading and is returned as it is. The same bytes come every time.
	// ReadChunk may be called concurrently with distinct buf, and returns soon
	// after ctx is cancelled.
	ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error
}

// reader reads chunks of a source for one goroutine, and verifies what
// ReadChunk promised.
type reader struct {
	buf      Block
	check    func(*Block) error // the method checked, bound once
	ctx      context.Context
	chunk    int
	clusters int
	low      int64 // first row number that may come
	block    func(*Block) error
	fault    error // of a block, or of what was done with it
}

func newReader(clusters int) *reader {
	r := &reader{clusters: clusters}
	r.check = r.checked
	return r
}

// read calls block with the blocks of chunk i of src.
func (r *reader) read(ctx context.Context, src Source, i int, block func(*Block) error) error {
	r.ctx, r.chunk, r.low, r.block, r.fault = ctx, i, int64(i)*ChunkRows, block, nil
	err := src.ReadChunk(ctx, i, &r.buf, r.check)
	if r.fault != nil {
		return r.fault
	}
	if err != nil {
		return fmt.Errorf("sinkhorn: read chunk %d: %w", i, err)
	}
	return nil
}

func (r *reader) checked(b *Block) error {
	r.fault = r.checkBlock(b)
	if r.fault == nil && r.ctx.Err() != nil {
		r.fault = stopped(r.ctx)
	}
	if r.fault == nil {
		r.fault = r.block(b)
	}
	return r.fault
}

func (r *reader) checkBlock(b *Block) error {
	if len(b.X) != len(b.Rows)*r.clusters {
		return fmt.Errorf("%w: chunk %d: %d values for %d rows of %d clusters", ErrSource, r.chunk, len(b.X), len(b.Rows), r.clusters)
	}
	high := int64(r.chunk+1) * ChunkRows
	for _, row := range b.Rows {
		if row < r.low || row >= high {
			return fmt.Errorf("%w: chunk %d: row %d out of place, want ascending rows in [%d, %d)", ErrSource, r.chunk, row, high-ChunkRows, high)
		}
		r.low = row + 1
	}
	return nil
}
