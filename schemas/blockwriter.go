package schemas

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"sync"

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

// BlocksMeta is the metadata of a block table.
type BlocksMeta struct {
	Kind       string // KindLogprobs, KindFeatures or KindSample
	Head       int    // label space, from 0; 0 for features
	Width      int    // values of a row: K clusters or D features
	WithSHA256 bool   // there is a column sha256, of the image's bytes
	Compact    bool   // the compact form, not for features: see the package's documentation
	BlockRows  int    // rows of every block but the last
	// KV is written into the file's key-value metadata.
	KV map[string]string
}

// columns describes the table's columns as describe does.
func (m BlocksMeta) columns() string {
	name := blockColumn[m.Kind]
	s := "row:INT64 " + name + ":1 list:1* element:FLOAT"
	if m.Compact {
		s = fmt.Sprintf("row:INT64 %s_max:FLOAT %s_step:FLOAT %s_gap:FIXED_LEN_BYTE_ARRAY(%d)", name, name, name, 2*m.Width)
	}
	if m.WithSHA256 {
		s += " sha256:FIXED_LEN_BYTE_ARRAY(32)"
	}
	return s
}

func (m BlocksMeta) check() error {
	switch {
	case blockColumn[m.Kind] == "":
		return fmt.Errorf("kind %q is not a block table, these are %q", m.Kind, slices.Sorted(maps.Keys(blockColumn)))
	case m.Compact && m.Kind == KindFeatures:
		return fmt.Errorf("features have no compact form, which is for log-probabilities")
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

	block    payloads // being filled
	def, rep []int16  // list levels of levelChunk values or one row
	fixed    []parquet.FixedLenByteArray

	last  int64 // last row number written, -1 before the first
	total int64
	sums  []blockSums
}

// payloads are what a block's columns hold: values, or what stands for them in
// a compact table.
type payloads struct {
	rows        []int64
	values      []float32
	tops, steps []float32
	codes       []uint16
	sha         []byte
}

// resize gives the payloads of a block of table m the size of so many rows and
// keeps what is in them.
func (p *payloads) resize(m BlocksMeta, rows int) {
	fit(&p.rows, rows)
	if m.Compact {
		fit(&p.tops, rows)
		fit(&p.steps, rows)
		fit(&p.codes, rows*m.Width)
	} else {
		fit(&p.values, rows*m.Width)
	}
	if m.WithSHA256 {
		fit(&p.sha, rows*32)
	}
}

// spare are payloads of tables that have ended. A block's memory is as costly to
// come by as to fill.
var spare = sync.Pool{New: func() any { return new(payloads) }}

// empty returns the payloads without their contents.
func (p payloads) empty() payloads {
	return payloads{p.rows[:0], p.values[:0], p.tops[:0], p.steps[:0], p.codes[:0], p.sha[:0]}
}

func fit[T any](s *[]T, n int) { *s = slices.Grow((*s)[:min(len(*s), n)], n-min(len(*s), n))[:n] }

// read fills the payloads from their places.
func (p *payloads) read(f *os.File, at place) error {
	for _, part := range []struct {
		bytes []byte
		at    int64
	}{
		{bytesOf(p.rows), at.rows}, {bytesOf(p.values), at.values}, {bytesOf(p.tops), at.tops}, {bytesOf(p.steps), at.steps},
		{bytesOf(p.codes), at.values}, {p.sha, at.sha},
	} {
		if _, err := f.ReadAt(part.bytes, part.at); err != nil {
			return unexpectedEOF(err)
		}
	}
	return nil
}

// blockSums are CRC-32C checksums of a block's payloads.
type blockSums struct{ rows, values, scales, sha uint32 }

func (p *payloads) sums() blockSums {
	sum := func(parts ...[]byte) (crc uint32) {
		for _, part := range parts {
			crc = crc32.Update(crc, castagnoli, part)
		}
		return crc
	}
	return blockSums{sum(bytesOf(p.rows)), sum(bytesOf(p.values), bytesOf(p.codes)), sum(bytesOf(p.tops), bytesOf(p.steps)), sum(p.sha)}
}

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
	}, meta.KV), meta.schema(),
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
	b := &BlocksWriter{out: out, w: w, meta: meta, block: spare.Get().(*payloads).empty(), last: -1, def: make([]int16, chunk), rep: make([]int16, chunk)}
	for i := range chunk {
		b.def[i] = 1
		if i%meta.Width != 0 {
			b.rep[i] = 1
		}
	}
	return b, nil
}

// schema has the list as every reader expects it, with required elements.
// (v15's own translation from Arrow would make them optional.)
func (m BlocksMeta) schema() schema.FieldList {
	required, name := parquet.Repetitions.Required, blockColumn[m.Kind]
	fields := schema.FieldList{schema.NewInt64Node("row", required, 1)}
	if m.Compact {
		fields = append(fields, schema.NewFloat32Node(name+"_max", required, 2), schema.NewFloat32Node(name+"_step", required, 3),
			schema.NewFixedLenByteArrayNode(name+"_gap", required, int32(2*m.Width), 5))
	} else {
		element := schema.NewFloat32Node("element", required, 3)
		list := schema.MustGroup(schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{element}, -1))
		fields = append(fields, schema.MustGroup(schema.NewGroupNodeLogical(name, required, schema.FieldList{list}, schema.NewListLogicalType(), 2)))
	}
	if m.WithSHA256 {
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
	if err := w.ascend(rows); err != nil {
		return err
	}
	for len(rows) > 0 {
		n := len(rows)
		at := w.room(&n)
		copy(w.block.rows[at:], rows[:n])
		if err := w.put(at, rows[:n], values[:n*w.meta.Width]); err != nil {
			return err
		}
		rows, values = rows[n:], values[n*w.meta.Width:]
		if sha != nil {
			copy(w.block.sha[at*32:], sha[:n*32])
			sha = sha[n*32:]
		}
		if err := w.full(); err != nil {
			return err
		}
	}
	return nil
}

// ascend refuses rows that do not follow those written before.
func (w *BlocksWriter) ascend(rows []int64) error {
	for _, row := range rows {
		if row <= w.last {
			return fmt.Errorf("row %d after row %d: rows must ascend", row, w.last)
		}
		w.last = row
	}
	return nil
}

// room makes room in the block for as many of n rows as fit, which it sets n to,
// and returns where they begin.
func (w *BlocksWriter) room(n *int) (at int) {
	at = len(w.block.rows)
	*n = min(*n, w.meta.BlockRows-at)
	w.reserve(at + *n)
	w.block.resize(w.meta, at+*n)
	return at
}

// full writes the block if it is.
func (w *BlocksWriter) full() error {
	if len(w.block.rows) < w.meta.BlockRows {
		return nil
	}
	return w.flush()
}

// put stores values from the block's row at on, in the table's form.
func (w *BlocksWriter) put(at int, rows []int64, values []float32) (err error) {
	width := w.meta.Width
	if !w.meta.Compact {
		copy(w.block.values[at*width:], values)
		return nil
	}
	for i := range rows {
		var s scale
		if s, err = encodeRow(w.block.codes[(at+i)*width:(at+i+1)*width], values[i*width:(i+1)*width]); err != nil {
			return fmt.Errorf("row %d: %w", rows[i], err)
		}
		w.block.tops[at+i], w.block.steps[at+i] = s.top, s.step
	}
	return nil
}

// reserve makes room for a whole block as soon as more than half a block is
// there, so that a small table stays small and a large one copies little.
func (w *BlocksWriter) reserve(need int) {
	if b := &w.block; need > w.meta.BlockRows/2 && need > cap(b.rows) {
		rows := len(b.rows)
		b.resize(w.meta, w.meta.BlockRows)
		b.resize(w.meta, rows)
	}
}

// flush writes the gathered rows as one row group.
func (w *BlocksWriter) flush() error {
	b := &w.block
	if len(b.rows) == 0 {
		return nil
	}
	if len(w.sums) == maxGroups {
		return fmt.Errorf("more than %d blocks: raise the rows of a block (%d)", maxGroups, w.meta.BlockRows)
	}
	g := newGroup(w.w)
	writeColumn(g, b.rows, nil)
	if w.meta.Compact {
		writeColumn(g, b.tops, nil)
		writeColumn(g, b.steps, nil)
		writeColumn(g, w.cut(bytesOf(b.codes), 2*w.meta.Width), nil)
	} else {
		vectors := g.next()
		for rest := b.values; len(rest) > 0; {
			n := min(len(rest), len(w.def))
			appendValues(g, vectors, rest[:n], w.def[:n], w.rep[:n])
			rest = rest[n:]
		}
	}
	if w.meta.WithSHA256 {
		writeColumn(g, w.cut(b.sha, 32), nil)
	}
	if err := g.close(); err != nil {
		return err
	}
	w.sums = append(w.sums, b.sums())
	w.total += int64(len(b.rows))
	b.resize(w.meta, 0)
	return nil
}

// cut returns b as values of size bytes, until it is called again.
func (w *BlocksWriter) cut(b []byte, size int) []parquet.FixedLenByteArray {
	w.fixed = w.fixed[:0]
	for at := 0; at < len(b); at += size {
		w.fixed = append(w.fixed, b[at:at+size])
	}
	return w.fixed
}

// Commit ends the table: footer, sync, re-read of every block from its
// computed place. After an error the file is gone.
func (w *BlocksWriter) Commit() (FileStats, error) {
	last := len(w.block.rows)
	if last == 0 {
		last = w.meta.BlockRows
	}
	defer w.end()
	return w.out.commit(w.meta.Kind, w.total+int64(len(w.block.rows)), func() error {
		if err := w.flush(); err != nil {
			return err
		}
		return w.w.Close()
	}, func() error { return w.verify(last) })
}

// verify compares the checksums of all blocks, the last of which has last rows,
// with those of the bytes where a reader will look for them.
func (w *BlocksWriter) verify(last int) error {
	f, ft, err := openTable(w.out.path, w.meta.Kind, w.meta.columns())
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
		w.block.resize(w.meta, n)
		if err := w.block.read(f, p); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		if w.block.sums() != w.sums[i] {
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
func (w *BlocksWriter) Abort() error {
	w.end()
	return w.out.abort()
}

// end hands the block's memory on, once.
func (w *BlocksWriter) end() {
	if w.block.rows == nil {
		return
	}
	block := w.block
	w.block = payloads{}
	spare.Put(&block)
}
