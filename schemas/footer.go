package schemas

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"
	"github.com/xitongsys/parquet-go/parquet"
)

const (
	magic      = "PAR1"
	maxFooter  = 64 << 20
	tailLength = 8 // footer length, then magic
)

// footer is a file's checked footer. Parsed here once with a bound on every
// list and string, it is also what makes Arrow's own, unbounded parse of the
// same bytes safe.
type footer struct {
	*parquet.FileMetaData
	kv      map[string]string
	columns string // see describe
}

// readFooter reads the footer of f and checks it against the size of the file:
// every column chunk lies between the leading magic and the footer, and the
// rows of the row groups add up. It allocates no more than a small multiple of
// the footer's length.
func readFooter(f *os.File) (*footer, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if size < int64(len(magic))+tailLength {
		return nil, fmt.Errorf("%w: %d bytes are too few for a Parquet file", ErrCorrupt, size)
	}
	var head [len(magic)]byte
	var tail [tailLength]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(tail[:], size-tailLength); err != nil {
		return nil, err
	}
	if string(head[:]) != magic || string(tail[4:]) != magic {
		return nil, fmt.Errorf("%w: no Parquet magic at both ends", ErrCorrupt)
	}
	length := int64(binary.LittleEndian.Uint32(tail[:4]))
	end := size - tailLength - length
	if length > maxFooter || end < int64(len(magic)) {
		return nil, fmt.Errorf("%w: a footer of %d bytes in a file of %d", ErrCorrupt, length, size)
	}
	buf := make([]byte, length)
	if _, err := f.ReadAt(buf, end); err != nil {
		return nil, err
	}
	ft := &footer{FileMetaData: parquet.NewFileMetaData()}
	err = guarded(ErrCorrupt, func() error {
		if err := parseFooter(ft.FileMetaData, buf); err != nil {
			return err
		}
		return ft.check(end)
	})
	if err != nil {
		return nil, err
	}
	return ft, nil
}

func parseFooter(m *parquet.FileMetaData, buf []byte) error {
	bound := &thrift.TConfiguration{MaxMessageSize: int32(max(len(buf), 1))}
	trans := &thrift.TMemoryBuffer{Buffer: bytes.NewBuffer(buf)}
	if err := m.Read(context.Background(), thrift.NewTCompactProtocolConf(trans, bound)); err != nil {
		return fmt.Errorf("%w: footer: %v", ErrCorrupt, err)
	}
	return nil
}

// check compares the footer with itself and with the file, whose column chunks
// lie before the offset end.
func (ft *footer) check(end int64) error {
	leaves := 0
	for _, e := range ft.Schema {
		if e.NumChildren == nil {
			leaves++
		}
	}
	var rows int64
	for g, rg := range ft.RowGroups {
		if rg.NumRows < 0 || len(rg.Columns) != leaves {
			return fmt.Errorf("%w: row group %d has %d rows and %d of %d columns", ErrCorrupt, g, rg.NumRows, len(rg.Columns), leaves)
		}
		rows += rg.NumRows
		for c, chunk := range rg.Columns {
			m := chunk.MetaData
			if m == nil || chunk.FilePath != nil || m.DictionaryPageOffset != nil {
				return fmt.Errorf("%w: column %d of row group %d is not as this program writes it", ErrCorrupt, c, g)
			}
			start, length := m.DataPageOffset, m.TotalCompressedSize
			if start < int64(len(magic)) || length < 0 || length > end || start > end-length || m.TotalUncompressedSize < 0 || m.NumValues < 0 {
				return fmt.Errorf("%w: column %d of row group %d lies outside the file", ErrCorrupt, c, g)
			}
		}
	}
	if rows != ft.NumRows {
		return fmt.Errorf("%w: the footer says %d rows, its row groups %d", ErrCorrupt, ft.NumRows, rows)
	}
	ft.kv = make(map[string]string, len(ft.KeyValueMetadata))
	for _, e := range ft.KeyValueMetadata {
		ft.kv[e.Key] = e.GetValue()
	}
	ft.columns = describe(ft.Schema)
	return nil
}

// expect checks that the file holds the table kind, in this version, with one
// of the given lists of columns, if any are given.
func (ft *footer) expect(kind string, columns ...string) error {
	if got := ft.kv[keyKind]; got != kind {
		return fmt.Errorf("%w: it holds %q, not %q", ErrKind, got, kind)
	}
	if got := ft.kv[keyVersion]; got != strconv.Itoa(Version) {
		return fmt.Errorf("%w: version %q of the format, this program reads %d: use a newer sela", ErrKind, got, Version)
	}
	if len(columns) == 0 || slices.Contains(columns, ft.columns) {
		return nil
	}
	return fmt.Errorf("%w: columns %q, want %q", ErrCorrupt, ft.columns, columns)
}

// describe writes a schema on one line: the columns below the root in depth
// first order, name:type with ? for optional and * for repeated ones; a group
// has its number of children in place of a type.
func describe(schema []*parquet.SchemaElement) string {
	var b strings.Builder
	for i, e := range schema {
		if i == 0 {
			continue
		}
		if i > 1 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Name)
		b.WriteByte(':')
		switch {
		case e.NumChildren != nil:
			fmt.Fprint(&b, *e.NumChildren)
		case e.GetType() == parquet.Type_FIXED_LEN_BYTE_ARRAY:
			fmt.Fprintf(&b, "%v(%d)", e.GetType(), e.GetTypeLength())
		default:
			fmt.Fprint(&b, e.GetType())
		}
		switch e.GetRepetitionType() {
		case parquet.FieldRepetitionType_OPTIONAL:
			b.WriteByte('?')
		case parquet.FieldRepetitionType_REPEATED:
			b.WriteByte('*')
		}
	}
	return b.String()
}

// openTable opens a file whose footer is that of the table kind.
func openTable(path, kind string, columns ...string) (*os.File, *footer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	ft, err := readFooter(f)
	if err == nil {
		err = ft.expect(kind, columns...)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, ft, nil
}

// unexpectedEOF gives a read that found the file shorter than its footer says
// its proper name.
func unexpectedEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends inside a column", ErrCorrupt)
	}
	return err
}

// writeFooter ends a file of xitongsys/parquet-go. Its own WriteStop would add
// a page index whose row numbers count the values of a list column, not its
// rows, and would omit the orders without which readers ignore statistics.
func writeFooter(w io.Writer, m *parquet.FileMetaData) error {
	for _, e := range m.Schema {
		if e.NumChildren == nil {
			m.ColumnOrders = append(m.ColumnOrders, &parquet.ColumnOrder{TYPE_ORDER: parquet.NewTypeDefinedOrder()})
		}
	}
	s := thrift.NewTSerializer()
	s.Protocol = thrift.NewTCompactProtocolConf(s.Transport, nil)
	buf, err := s.Write(context.Background(), m)
	if err != nil {
		return err
	}
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(buf)))
	_, err = w.Write(append(buf, magic...))
	return err
}
