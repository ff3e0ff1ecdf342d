package sinkhorn

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// ListChunk is the lists of a chunk: its r-th row has the entries
// [End[r−1], End[r]).
type ListChunk struct {
	Rows    []int64   // row numbers, ascending
	End     []int32   // by row: end of its entries
	Cluster []int32   // by entry: column, ascending within a row
	X       []float32 // by entry: log p in nats, not multiplied by λ
}

func (c *ListChunk) empty() {
	c.Rows, c.End, c.Cluster, c.X = c.Rows[:0], c.End[:0], c.Cluster[:0], c.X[:0]
}

// bytes returns the memory of the chunk's contents, and of the shares that a
// solve keeps beside them.
func (c *ListChunk) bytes() int64 {
	return 12*int64(len(c.Rows)) + 12*int64(len(c.X))
}

// Spill is a file that lists go to when memory is full. Whoever gives it to
// Options removes it.
type Spill interface {
	io.WriterAt
	io.ReaderAt
}

// Lists holds the lists of all rows: in memory up to a budget, beyond it in a
// spill file. It is written by one pass, in chunk order; after that it may be
// read concurrently.
type Lists struct {
	memory   int64 // budget, bytes
	limit    int64 // of entries; 0 for none
	spill    Spill
	clusters int
	chunks   []listPlace
	used     int64 // bytes in memory
	spilled  int64 // bytes in the spill file
	rows     int64
	entries  int64
	buf      []byte
}

// listPlace is where a chunk is: in memory, or at an offset of the spill file.
type listPlace struct {
	ListChunk
	rows, entries int
	offset        int64 // in the spill file, −1 in memory
}

// newLists returns the lists of a solve. They are full with more than
// K/flatShare entries a row, where lists don't pay.
func newLists(rows int64, clusters int, o *Options) *Lists {
	l := NewLists(o.Memory, o.Spill)
	l.limit = max(1, rows*int64(clusters)/flatShare)
	return l
}

// NewLists returns lists that take up to the given number of bytes in memory,
// and go to spill beyond. Without a spill file a pass that fills the memory
// fails with ErrListsFull.
func NewLists(memory int64, spill Spill) *Lists {
	return &Lists{memory: memory, spill: spill}
}

// Entries returns the number of entries of all lists.
func (l *Lists) Entries() int64 { return l.entries }

// Rows returns the number of lists.
func (l *Lists) Rows() int64 { return l.rows }

// Chunks returns the number of chunks, those without rows included.
func (l *Lists) Chunks() int { return len(l.chunks) }

func (l *Lists) reset(clusters, chunks int) {
	*l = Lists{memory: l.memory, limit: l.limit, spill: l.spill, clusters: clusters, chunks: l.chunks[:0], buf: l.buf}
	l.chunks = slices.Grow(l.chunks, chunks)
}

// put appends a copy of chunk i.
func (l *Lists) put(i int, c *ListChunk) error {
	if i != len(l.chunks) {
		return fmt.Errorf("%w: lists of chunk %d where chunk %d should come", ErrSource, i, len(l.chunks))
	}
	place := listPlace{rows: len(c.Rows), entries: len(c.X), offset: -1}
	l.rows += int64(place.rows)
	l.entries += int64(place.entries)
	if l.limit > 0 && l.entries > l.limit {
		return fmt.Errorf("%w: they have more than %d entries", ErrListsFull, l.limit)
	}
	size := c.bytes()
	if l.used+size <= l.memory {
		l.used += size
		place.ListChunk = ListChunk{slices.Clone(c.Rows), slices.Clone(c.End), slices.Clone(c.Cluster), slices.Clone(c.X)}
		l.chunks = append(l.chunks, place)
		return nil
	}
	if l.spill == nil {
		return fmt.Errorf("%w: they take more than the %d bytes allowed", ErrListsFull, l.memory)
	}
	place.offset = l.spilled
	l.buf = c.encode(l.buf[:0])
	if _, err := l.spill.WriteAt(l.buf, place.offset); err != nil {
		return fmt.Errorf("sinkhorn: spill lists of chunk %d: %w", i, err)
	}
	l.spilled += int64(len(l.buf))
	l.chunks = append(l.chunks, place)
	return nil
}

// Chunk returns the lists of chunk i, which must not be changed. They lie in
// memory of l, or in buf, which is grown as needed and belongs to the caller.
func (l *Lists) Chunk(i int, buf *ListBuffer) (*ListChunk, error) {
	place := &l.chunks[i]
	if place.offset < 0 {
		return &place.ListChunk, nil
	}
	n := 12*place.rows + 8*place.entries
	buf.raw = slices.Grow(buf.raw[:0], n)[:n]
	if got, err := l.spill.ReadAt(buf.raw, place.offset); got < n {
		return nil, fmt.Errorf("sinkhorn: read spilled lists of chunk %d: %w", i, err)
	}
	buf.chunk.decode(buf.raw, place.rows, place.entries)
	return &buf.chunk, nil
}

// ListBuffer is memory for one spilled chunk.
type ListBuffer struct {
	raw   []byte
	chunk ListChunk
}

func (c *ListChunk) encode(b []byte) []byte {
	for _, row := range c.Rows {
		b = binary.LittleEndian.AppendUint64(b, uint64(row))
	}
	for _, end := range c.End {
		b = binary.LittleEndian.AppendUint32(b, uint32(end))
	}
	for _, k := range c.Cluster {
		b = binary.LittleEndian.AppendUint32(b, uint32(k))
	}
	for _, x := range c.X {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func (c *ListChunk) decode(b []byte, rows, entries int) {
	c.empty()
	for range rows {
		c.Rows, b = append(c.Rows, int64(binary.LittleEndian.Uint64(b))), b[8:]
	}
	for range rows {
		c.End, b = append(c.End, int32(binary.LittleEndian.Uint32(b))), b[4:]
	}
	for range entries {
		c.Cluster, b = append(c.Cluster, int32(binary.LittleEndian.Uint32(b))), b[4:]
	}
	for range entries {
		c.X, b = append(c.X, math.Float32frombits(binary.LittleEndian.Uint32(b))), b[4:]
	}
}
