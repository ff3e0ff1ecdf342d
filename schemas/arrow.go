package schemas

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/metadata"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// GroupRows is the number of rows in each row group but the last of the
// images, quarantine and labels tables.
const GroupRows = 122_880

// createdBy stands in every footer in place of the libraries' own names, which
// change with their releases.
const createdBy = "sela version 1.0.0"

// allocator provides all of Arrow's memory. It must be one that leaves freed
// memory to the garbage collector: strings read from a page point into it.
var allocator memory.Allocator = memory.NewGoAllocator()

// newArrowWriter starts a Parquet file of the given columns. Every property
// whose default would matter is set: Arrow's are dictionaries and statistics on
// every column, no compression, 64 Mi-row groups and data pages of version 1.
func newArrowWriter(o *output, pairs []pair, columns schema.FieldList, properties ...parquet.WriterProperty) (w *file.Writer, err error) {
	err = o.do(func() error {
		properties := append([]parquet.WriterProperty{
			parquet.WithAllocator(allocator),
			parquet.WithVersion(parquet.V2_LATEST),
			parquet.WithCreatedBy(createdBy),
			parquet.WithDictionaryDefault(false),
			parquet.WithStats(false),
			parquet.WithEncoding(parquet.Encodings.Plain),
		}, properties...)
		root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, columns, -1)
		if err != nil {
			return err
		}
		kv := metadata.NewKeyValueMetadata()
		for _, p := range pairs {
			if err := kv.Append(p.key, p.value); err != nil {
				return err
			}
		}
		w = file.NewParquetWriter(o.w, root, file.WithWriterProps(parquet.NewWriterProperties(properties...)), file.WithWriteMetadata(kv))
		return nil
	})
	return w, err
}

// rowTable are the properties of images, quarantine and potentials files.
var rowTable = []parquet.WriterProperty{
	parquet.WithDataPageVersion(parquet.DataPageV1),
	parquet.WithDataPageSize(1 << 20),
	parquet.WithBatchSize(1024),
	parquet.WithMaxRowGroupLength(GroupRows),
	parquet.WithCompression(compress.Codecs.Zstd),
	parquet.WithCompressionLevel(3),
}

func stringNode(name string, repetition parquet.Repetition, id int32) schema.Node {
	return schema.Must(schema.NewPrimitiveNodeLogical(name, repetition, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, id))
}

// groupWriter writes the columns of one row group in turn. Its first error
// stays and ends the group.
type groupWriter struct {
	rg  file.SerialRowGroupWriter
	err error
}

func newGroup(w *file.Writer) *groupWriter { return &groupWriter{rg: w.AppendRowGroup()} }

// next goes on to the next column.
func (g *groupWriter) next() (c file.ColumnChunkWriter) {
	if g.err == nil {
		c, g.err = g.rg.NextColumn()
	}
	return c
}

func (g *groupWriter) close() error {
	if g.err == nil {
		g.err = g.rg.Close()
	}
	return g.err
}

// writeColumn writes the next column; def has the definition levels of an
// optional one.
func writeColumn[T any](g *groupWriter, values []T, def []int16) {
	appendValues(g, g.next(), values, def, nil)
}

// appendValues adds values to the column c of the group.
func appendValues[T any](g *groupWriter, c file.ColumnChunkWriter, values []T, def, rep []int16) {
	if g.err != nil {
		return
	}
	w, ok := c.(interface {
		WriteBatch(values []T, def, rep []int16) (int64, error)
	})
	if !ok {
		g.err = fmt.Errorf("column %s does not take %T", c.Descr().Path(), values)
		return
	}
	_, g.err = w.WriteBatch(values, def, rep)
}

// byteArray is s without a copy. Nobody writes to it.
func byteArray(s string) parquet.ByteArray {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// groupReader reads whole columns of one row group after another. Its first
// error stays and ends the reading.
type groupReader struct {
	err  error
	rd   *file.Reader
	rg   *file.RowGroupReader
	rows int
	blob strings.Builder
	raw  []parquet.ByteArray
}

// eachGroup calls load, under the protection of guarded, and then use, without
// it, for every row group for which want (given its index) is true. load fills
// memory that use reads; both are usually methods of one table's columns.
func eachGroup(f parquet.ReaderAtSeeker, ft *footer, want func(group int) bool, load func(*groupReader), use func(group, rows int) error) error {
	g := &groupReader{}
	err := guarded(ErrCorrupt, func() (err error) {
		g.rd, err = file.NewParquetReader(f, file.WithReadProps(parquet.NewReaderProperties(allocator)))
		if err == nil && g.rd.NumRowGroups() != len(ft.RowGroups) {
			err = fmt.Errorf("%w: two readings of its footer differ", ErrCorrupt)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i, rg := range ft.RowGroups {
		last := i == len(ft.RowGroups)-1
		if rg.NumRows < 1 || rg.NumRows > GroupRows || !last && rg.NumRows != GroupRows {
			return fmt.Errorf("%w: row group %d of %d has %d rows", ErrCorrupt, i, len(ft.RowGroups), rg.NumRows)
		}
		if !want(i) {
			continue
		}
		err := guarded(ErrCorrupt, func() error {
			g.rg, g.rows = g.rd.RowGroup(i), int(rg.NumRows)
			load(g)
			return g.err
		})
		if err != nil {
			return fmt.Errorf("row group %d: %w", i, err)
		}
		if err := use(i, int(rg.NumRows)); err != nil {
			return err
		}
	}
	return nil
}

func everyGroup(int) bool { return true }

// readColumn reads column c of the row group into col, growing it where it is
// too small. An optional column has a definition level per row, 1 where a value
// is present, and only the present ones in values.
func readColumn[T any](g *groupReader, c int, col *column[T]) {
	if g.err == nil {
		g.err = col.read(g, c)
	}
}

func (col *column[T]) read(g *groupReader, c int) error {
	chunk, err := g.rg.Column(c)
	if err != nil {
		return fmt.Errorf("%w: column %d: %w", ErrCorrupt, c, err)
	}
	r, ok := chunk.(interface {
		ReadBatch(n int64, values []T, def, rep []int16) (int64, int, error)
	})
	if !ok {
		return fmt.Errorf("%w: column %d does not hold %T", ErrCorrupt, c, col.values)
	}
	d := chunk.Descriptor()
	col.reset()
	levels, present, rows := 0, 0, 0
	for {
		// Growth follows what is read, never what a header promises.
		n := min(max(cap(col.values)-present, 1<<12), 1<<16)
		col.values = grown(col.values, present, n)
		var def, rep []int16
		if d.MaxDefinitionLevel() > 0 {
			col.def = grown(col.def, levels, n)
			def = col.def[levels:]
		}
		if d.MaxRepetitionLevel() > 0 {
			col.rep = grown(col.rep, levels, n)
			rep = col.rep[levels:]
		}
		l, v, err := r.ReadBatch(int64(n), col.values[present:], def, rep)
		if err != nil {
			return fmt.Errorf("%w: column %d: %w", ErrCorrupt, c, err)
		}
		if l == 0 {
			break
		}
		if rep == nil {
			rows += int(l)
		} else {
			rows += starts(rep[:l])
		}
		levels, present = levels+int(l), present+v
	}
	if rows != g.rows || d.MaxDefinitionLevel() == 0 && present != levels {
		return fmt.Errorf("%w: column %d ends after %d of %d rows", ErrCorrupt, c, rows, g.rows)
	}
	col.trim(present, levels)
	return nil
}

// readStrings reads a required string column. All strings of the row group
// share one allocation.
func (g *groupReader) readStrings(c int, dst []string) []string {
	col := column[parquet.ByteArray]{values: g.raw}
	if readColumn(g, c, &col); g.err != nil {
		return dst
	}
	g.raw = col.values
	total := 0
	for _, v := range g.raw {
		total += len(v)
	}
	g.blob = strings.Builder{}
	g.blob.Grow(total)
	for _, v := range g.raw {
		g.blob.Write(v)
	}
	blob := g.blob.String()
	dst = dst[:0]
	for i, v := range g.raw {
		dst = append(dst, blob[:len(v)])
		blob, g.raw[i] = blob[len(v):], nil
	}
	return dst
}

// column is one column of a row group in memory, reused from group to group.
type column[T any] struct {
	values   []T
	def, rep []int16
}

func (c *column[T]) reset() { c.values, c.def, c.rep = c.values[:0], c.def[:0], c.rep[:0] }

func (c *column[T]) trim(present, levels int) {
	c.values = c.values[:present]
	if c.def != nil {
		c.def = c.def[:min(levels, len(c.def))]
	}
	if c.rep != nil {
		c.rep = c.rep[:min(levels, len(c.rep))]
	}
}

// grown returns s with room for n elements after the first used ones.
func grown[T any](s []T, used, n int) []T {
	if used+n <= cap(s) {
		return s[:used+n]
	}
	out := make([]T, used+n, max(used+n, 2*cap(s)))
	copy(out, s[:used])
	return out
}

// starts counts the rows that begin among repetition levels.
func starts(rep []int16) int {
	n := 0
	for _, r := range rep {
		if r == 0 {
			n++
		}
	}
	return n
}
