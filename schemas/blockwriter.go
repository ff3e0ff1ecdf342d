package schemas

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

const (
	// maxBlockBytes bounds a block's payload and a batch: Parquet counts the
	// bytes of a page, and Arrow the elements of a list column, in 31 bits.
	maxBlockBytes = 1<<30 - 1<<20
	maxGroups     = math.MaxInt16 // row group ordinals are 16 bits wide
	levelChunk    = 1 << 16       // values whose list levels are encoded at a time
)

// blockColumn names the vector column of each kind of block table.
var blockColumn = map[string]string{KindLogprobs: "log_p", KindFeatures: "features", KindSample: "log_p"}

// blockColumns describes the columns of a block table, see describe.
func blockColumns(column string, digests bool) string {
	s := "row:INT64 " + column + ":1 list:1* element:FLOAT"
	if digests {
		s += " sha256:FIXED_LEN_BYTE_ARRAY(32)"
	}
	return s
}

// BlocksMeta is the metadata of a block table.
type BlocksMeta struct {
	Kind       string // KindLogprobs, KindFeatures or KindSample
	Head       int    // label space, from 0; 0 for features
	Width      int    // values of a row: K clusters or D features
	WithSHA256 bool   // there is a column sha256, of the image's bytes
	BlockRows  int    // rows of every block but the last
	// KV is written into the file's key-value metadata.
	KV map[string]string
}

func (m BlocksMeta) check() error {
	switch {
	case blockColumn[m.Kind] == "":
		return fmt.Errorf("kind %q is not a block table, these are %q", m.Kind, slices.Sorted(maps.Keys(blockColumn)))
	case m.Head < 0:
		return fmt.Errorf("head %d is negative", m.Head)
	case m.Width < 1 || m.BlockRows < 1:
		return fmt.Errorf("width %d, block rows %d: both must be positive", m.Width, m.BlockRows)
	case m.BlockRows > maxBlockBytes/32 || m.Width > maxBlockBytes/4/m.BlockRows:
		return fmt.Errorf("a block of %d rows of %d values is over %d bytes: lower the rows", m.BlockRows, m.Width, maxBlockBytes)
	}
	return checkCallersKeys(m.KV)
}

// BlocksWriter writes a block table. It gathers rows into blocks of exactly
// BlockRows rows, whatever the size of the batches, and holds one block. It is
// not safe for concurrent use: the batches of concurrent producers are brought
// into row order first.
type BlocksWriter struct {
	out  *output
	w    *file.Writer
	meta BlocksMeta

	rows     []int64   // of the block being filled
	values   []float32 //
	sha      []byte    //
	def, rep []int16   // list levels of levelChunk values or one row
	digests  []parquet.FixedLenByteArray

	last  int64 // last row number written, -1 before the first
	total int64
	sums  []blockSums
}

// blockSums are CRC-32C checksums of a block's payloads.
type blockSums struct{ rows, values, sha uint32 }

// CreateBlocks starts a block table at a local path, replacing what is there.
func CreateBlocks(path string, meta BlocksMeta) (*BlocksWriter, error) {
	if err := meta.check(); err != nil {
		return nil, fmt.Errorf("create %s %s: %w", meta.Kind, path, err)
	}
	out, err := createOutput(path)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", meta.Kind, err)
	}
	chunk := max(1, levelChunk/meta.Width) * meta.Width
	w, err := newArrowWriter(out, fileMetadata(meta.Kind, map[string]int64{
		keyHead: int64(meta.Head), keyWidth: int64(meta.Width), keyBlockRows: int64(meta.BlockRows),
	}, meta.KV), blockSchema(blockColumn[meta.Kind], meta.WithSHA256),
		// With DataPageV1, v15 writes a list at 2 MB/s. With DataPageV2 a write
		// batch must hold a whole row: v15 loops forever over a longer list.
		parquet.WithDataPageVersion(parquet.DataPageV2),
		parquet.WithBatchSize(int64(max(chunk, meta.BlockRows))),
		parquet.WithDataPageSize(1<<30),
		parquet.WithMaxRowGroupLength(int64(meta.BlockRows)),
		parquet.WithCompression(compress.Codecs.Uncompressed),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s %s: %w", meta.Kind, path, err), out.abort())
	}
	b := &BlocksWriter{out: out, w: w, meta: meta, last: -1, def: make([]int16, chunk), rep: make([]int16, chunk)}
	for i := range chunk {
		b.def[i] = 1
		if i%meta.Width != 0 {
			b.rep[i] = 1
		}
	}
	return b, nil
}

// blockSchema has the list as every reader expects it, with required elements.
// (v15's own translation from Arrow would make them optional.)
func blockSchema(column string, digests bool) schema.FieldList {
	required := parquet.Repetitions.Required
	element := schema.NewFloat32Node("element", required, 3)
	list := schema.MustGroup(schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{element}, -1))
	fields := schema.FieldList{
		schema.NewInt64Node("row", required, 1),
		schema.MustGroup(schema.NewGroupNodeLogical(column, required, schema.FieldList{list}, schema.NewListLogicalType(), 2)),
	}
	if digests {
		fields = append(fields, schema.NewFixedLenByteArrayNode("sha256", required, 32, 4))
	}
	return fields
}

// Write appends the rows of b, which must follow the rows written before, and
// copies them. The caller still owns b and may release it. After an error the
// table cannot be committed.
func (w *BlocksWriter) Write(b *Batch) error {
	err := w.out.do(func() error { return w.append(b) })
	if err != nil {
		return fmt.Errorf("write %s %s: %w", w.meta.Kind, w.out.path, err)
	}
	return nil
}

func (w *BlocksWriter) append(b *Batch) error {
	switch {
	case b.err != nil:
		return b.err
	case b.width != w.meta.Width:
		return fmt.Errorf("batch of width %d, want %d", b.width, w.meta.Width)
	}
	rows, values, sha := b.rows(), b.values(), b.sha256()
	if w.meta.WithSHA256 != (sha != nil) {
		return fmt.Errorf("sha256 in the batch: %t, in the table: %t", sha != nil, w.meta.WithSHA256)
	}
	for _, row := range rows {
		if row <= w.last {
			return fmt.Errorf("row %d after row %d: rows must ascend", row, w.last)
		}
		w.last = row
	}
	w.reserve(len(rows))
	for len(rows) > 0 {
		n := min(len(rows), w.meta.BlockRows-len(w.rows))
		w.rows, rows = append(w.rows, rows[:n]...), rows[n:]
		w.values, values = append(w.values, values[:n*w.meta.Width]...), values[n*w.meta.Width:]
		if sha != nil {
			w.sha, sha = append(w.sha, sha[:n*32]...), sha[n*32:]
		}
		if len(w.rows) == w.meta.BlockRows {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve makes room for a whole block as soon as more than half a block is
// there, so that a small table stays small and a large one copies little.
func (w *BlocksWriter) reserve(n int) {
	if need := len(w.rows) + n; need > w.meta.BlockRows/2 && cap(w.values) < w.meta.BlockRows*w.meta.Width {
		w.rows = slices.Grow(w.rows, w.meta.BlockRows-len(w.rows))
		w.values = slices.Grow(w.values, w.meta.BlockRows*w.meta.Width-len(w.values))
	}
}

// flush writes the gathered rows as one row group.
func (w *BlocksWriter) flush() error {
	if len(w.rows) == 0 {
		return nil
	}
	if len(w.sums) == maxGroups {
		return fmt.Errorf("more than %d blocks: raise the rows of a block (%d)", maxGroups, w.meta.BlockRows)
	}
	g := newGroup(w.w)
	writeColumn(g, w.rows, nil)
	vectors := g.next()
	for rest := w.values; len(rest) > 0; {
		n := min(len(rest), len(w.def))
		appendValues(g, vectors, rest[:n], w.def[:n], w.rep[:n])
		rest = rest[n:]
	}
	if w.meta.WithSHA256 {
		w.digests = w.digests[:0]
		for i := range w.rows {
			w.digests = append(w.digests, w.sha[i*32:i*32+32])
		}
		writeColumn(g, w.digests, nil)
	}
	if err := g.close(); err != nil {
		return err
	}
	w.sums = append(w.sums, w.sumBlock())
	w.total += int64(len(w.rows))
	w.rows, w.values, w.sha = w.rows[:0], w.values[:0], w.sha[:0]
	return nil
}

func (w *BlocksWriter) sumBlock() blockSums {
	return blockSums{
		rows:   crc32.Checksum(bytesOf(w.rows), castagnoli),
		values: crc32.Checksum(bytesOf(w.values), castagnoli),
		sha:    crc32.Checksum(w.sha, castagnoli),
	}
}

// Commit ends the table: footer, sync, re-read of every block from its
// computed place. After an error the file is gone.
func (w *BlocksWriter) Commit() (FileStats, error) {
	last := len(w.rows)
	if last == 0 {
		last = w.meta.BlockRows
	}
	return w.out.commit(w.meta.Kind, w.total+int64(len(w.rows)), func() error {
		if err := w.flush(); err != nil {
			return err
		}
		return w.w.Close()
	}, func() error { return w.verify(last) })
}

// verify compares the checksums of all blocks, the last of which has last rows,
// with those of the bytes where a reader will look for them.
func (w *BlocksWriter) verify(last int) error {
	f, ft, err := openTable(w.out.path, w.meta.Kind, blockColumns(blockColumn[w.meta.Kind], w.meta.WithSHA256))
	if err != nil {
		return err
	}
	defer f.Close()
	meta, places, err := blockPlaces(ft)
	if err != nil {
		return err
	}
	if !metaEqual(meta, w.meta) || len(places) != len(w.sums) || ft.NumRows != w.total {
		return fmt.Errorf("%w: its footer has %d blocks and %d rows of %+v, written were %d blocks and %d rows of %+v",
			ErrCorrupt, len(places), ft.NumRows, meta, len(w.sums), w.total, w.meta)
	}
	for i, p := range places {
		n := w.meta.BlockRows
		if i == len(places)-1 {
			n = last
		}
		w.rows, w.values = w.rows[:n], w.values[:n*w.meta.Width]
		_, err := f.ReadAt(bytesOf(w.rows), p.rows)
		if err == nil {
			_, err = f.ReadAt(bytesOf(w.values), p.values)
		}
		if err == nil && w.meta.WithSHA256 {
			w.sha = w.sha[:n*32]
			_, err = f.ReadAt(w.sha, p.sha)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", i, unexpectedEOF(err))
		}
		if w.sumBlock() != w.sums[i] {
			return fmt.Errorf("%w: block %d does not lie where its footer says", ErrCorrupt, i)
		}
	}
	return nil
}

func metaEqual(a, b BlocksMeta) bool {
	kv := maps.Equal(a.KV, b.KV)
	a.KV, b.KV = nil, nil
	return kv && reflect.DeepEqual(a, b)
}

// Abort ends the table and removes its file. After Commit it does nothing.
func (w *BlocksWriter) Abort() error { return w.out.abort() }
