package schemas

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/xitongsys/parquet-go/parquet"
)

// Run is a run of consecutive row numbers of a block table.
type Run struct {
	First int64 // row number
	Count int64 // rows
	Index int64 // rows of the table before First
}

// Blocks reads a block table. All methods but Close are safe for concurrent use.
type Blocks struct {
	f      *os.File
	path   string
	meta   BlocksMeta
	rows   int64
	runs   []Run
	places []place
}

// place has the file offsets of a block's payloads.
type place struct{ rows, values, sha int64 }

// OpenBlocks opens a block table whose SHA-256 the caller has verified. It
// reads the footer and the row numbers, and holds memory in proportion to the
// number of blocks and of gaps between row numbers.
func OpenBlocks(path string) (*Blocks, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("open blocks %s: only little-endian hosts can read blocks", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open blocks: %w", err)
	}
	b := &Blocks{f: f, path: path}
	if err := b.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open blocks %s: %w", path, err)
	}
	return b, nil
}

func (b *Blocks) load() error {
	ft, err := readFooter(b.f)
	if err != nil {
		return err
	}
	column := blockColumn[ft.kv[keyKind]]
	if column == "" {
		return fmt.Errorf("%w: it holds %q, not blocks", ErrKind, ft.kv[keyKind])
	}
	if err := ft.expect(ft.kv[keyKind], blockColumns(column, false), blockColumns(column, true)); err != nil {
		return err
	}
	if b.meta, b.places, err = blockPlaces(ft); err != nil {
		return err
	}
	b.rows = ft.NumRows
	buf := make([]int64, min(int64(b.meta.BlockRows), b.rows, 1<<16))
	var index int64
	for i, p := range b.places {
		for done, rows := int64(0), b.blockRows(i); done < rows; {
			part := buf[:min(rows-done, int64(len(buf)))]
			if _, err := b.f.ReadAt(bytesOf(part), p.rows+done*8); err != nil {
				return unexpectedEOF(err)
			}
			for _, row := range part {
				if err := b.addRow(row, index); err != nil {
					return err
				}
				index++
			}
			done += int64(len(part))
		}
	}
	return nil
}

func (b *Blocks) addRow(row, index int64) error {
	if row < 0 {
		return fmt.Errorf("%w: row number %d", ErrCorrupt, row)
	}
	if len(b.runs) > 0 {
		run := &b.runs[len(b.runs)-1]
		if row == run.First+run.Count {
			run.Count++
			return nil
		}
		if row < run.First+run.Count {
			return fmt.Errorf("%w: row %d after row %d", ErrCorrupt, row, run.First+run.Count-1)
		}
	}
	b.runs = append(b.runs, Run{First: row, Count: 1, Index: index})
	return nil
}

// blockRows returns the rows of block i.
func (b *Blocks) blockRows(i int) int64 {
	return min(int64(b.meta.BlockRows), b.rows-int64(i)*int64(b.meta.BlockRows))
}

// blockPlaces computes from the footer where the payloads lie, and checks that
// every row group is one block as this package writes it.
func blockPlaces(ft *footer) (meta BlocksMeta, places []place, err error) {
	meta = BlocksMeta{Kind: ft.kv[keyKind], KV: callersKV(ft.kv)}
	if meta.Head, err = metaInt(ft.kv, keyHead, 0); err != nil {
		return meta, nil, err
	}
	if meta.Width, err = metaInt(ft.kv, keyWidth, 1); err != nil {
		return meta, nil, err
	}
	if meta.BlockRows, err = metaInt(ft.kv, keyBlockRows, 1); err != nil {
		return meta, nil, err
	}
	if err := meta.check(); err != nil {
		return meta, nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	places = make([]place, len(ft.RowGroups))
	for i, rg := range ft.RowGroups {
		want := int64(meta.BlockRows)
		if i == len(ft.RowGroups)-1 {
			want = ft.NumRows - int64(i)*want
		}
		if rg.NumRows != want || want < 1 || want > int64(meta.BlockRows) {
			return meta, nil, fmt.Errorf("%w: block %d has %d rows of %d", ErrCorrupt, i, rg.NumRows, meta.BlockRows)
		}
		if places[i].rows, err = payload(rg.Columns[0], want, 8); err == nil {
			places[i].values, err = payload(rg.Columns[1], want*int64(meta.Width), 4)
		}
		if meta.WithSHA256 = len(rg.Columns) == 3; err == nil && meta.WithSHA256 {
			places[i].sha, err = payload(rg.Columns[2], want, 32)
		}
		if err != nil {
			return meta, nil, fmt.Errorf("block %d: %w", i, err)
		}
	}
	meta.WithSHA256 = ft.columns == blockColumns(blockColumn[meta.Kind], true)
	return meta, places, nil
}

// payload returns the offset of the n values of size bytes each that end the
// only page of a column chunk.
func payload(chunk *parquet.ColumnChunk, n, size int64) (int64, error) {
	m := chunk.MetaData
	header := m.TotalCompressedSize - n*size
	if m.Codec != parquet.CompressionCodec_UNCOMPRESSED || m.NumValues != n || m.TotalUncompressedSize != m.TotalCompressedSize || header <= 0 {
		return 0, fmt.Errorf("%w: column %q has %d values in %d bytes, want %d contiguous ones of %d bytes",
			ErrCorrupt, m.PathInSchema, m.NumValues, m.TotalCompressedSize, n, size)
	}
	return m.DataPageOffset + header, nil
}

// Meta returns the table's metadata. The caller must not change its map.
func (b *Blocks) Meta() BlocksMeta { return b.meta }

// Width returns the number of values of a row.
func (b *Blocks) Width() int { return b.meta.Width }

// NumRows returns the number of rows.
func (b *Blocks) NumRows() int64 { return b.rows }

// Runs returns the row numbers as runs, ascending, with a gap between any two.
// The caller must not change them.
func (b *Blocks) Runs() []Run { return b.runs }

// Count returns the number of rows whose row number r has from <= r < to.
func (b *Blocks) Count(from, to int64) int {
	return int(max(0, b.before(to)-b.before(from)))
}

// before returns the number of rows whose row number is below row.
func (b *Blocks) before(row int64) int64 {
	i := sort.Search(len(b.runs), func(i int) bool { return b.runs[i].First >= row })
	if i == 0 {
		return 0
	}
	run := b.runs[i-1]
	return run.Index + min(row-run.First, run.Count)
}

// ReadRows reads the rows whose row number r has from <= r < to. It puts their
// numbers, ascending, into rows and their values, row-major, into dst, and
// returns how many they are. Both slices must have room for them (see
// [Blocks.Count]; to−from rows always suffice), else the error is
// [io.ErrShortBuffer]. Rows that lie in one block cost one positional read into
// dst and no allocation.
func (b *Blocks) ReadRows(from, to int64, rows []int64, dst []float32) (n int, err error) {
	first, width := b.before(from), b.meta.Width
	n = int(max(0, b.before(to)-first))
	if n > len(rows) || n > len(dst)/width {
		return 0, fmt.Errorf("read rows %d to %d of %s: %d rows of %d values do not fit into %d and %d: %w",
			from, to, b.path, n, width, len(rows), len(dst), io.ErrShortBuffer)
	}
	b.rowNumbers(first, rows[:n])
	for done := 0; done < n; {
		block, skip, count := b.piece(first+int64(done), n-done)
		offset := b.places[block].values + int64(skip)*int64(width)*4
		if _, err := b.f.ReadAt(bytesOf(dst[done*width:(done+count)*width]), offset); err != nil {
			return 0, fmt.Errorf("read rows %d to %d of %s: %w", from, to, b.path, unexpectedEOF(err))
		}
		done += count
	}
	return n, nil
}

// rowNumbers fills rows with the numbers of the rows from the index first on.
func (b *Blocks) rowNumbers(first int64, rows []int64) {
	i := sort.Search(len(b.runs), func(i int) bool { return b.runs[i].Index > first }) - 1
	for done := 0; done < len(rows); i++ {
		run := b.runs[i]
		skip := first + int64(done) - run.Index
		for k := skip; k < run.Count && done < len(rows); k++ {
			rows[done] = run.First + k
			done++
		}
	}
}

// piece says where in the blocks the row with the given index lies, and how
// many of the n rows from there on are in the same block.
func (b *Blocks) piece(index int64, n int) (block, skip, count int) {
	block, skip = int(index/int64(b.meta.BlockRows)), int(index%int64(b.meta.BlockRows))
	return block, skip, min(n, b.meta.BlockRows-skip)
}

// SHA256s calls fn with the SHA-256 of the image's bytes for the rows whose row
// number r has from <= r < to, in order. A table without that column is an
// error. An error of fn ends the reading and is returned as it is.
func (b *Blocks) SHA256s(from, to int64, fn func(row int64, sha [32]byte) error) error {
	if !b.meta.WithSHA256 {
		return fmt.Errorf("read sha256 of %s: %w: it has no sha256 column", b.path, ErrKind)
	}
	const batch = 4096
	sums, rows := make([][32]byte, batch), make([]int64, batch)
	for first, n := b.before(from), b.Count(from, to); n > 0; {
		block, skip, count := b.piece(first, min(n, batch))
		if _, err := b.f.ReadAt(bytesOf(sums[:count]), b.places[block].sha+int64(skip)*32); err != nil {
			return fmt.Errorf("read sha256 of %s: %w", b.path, unexpectedEOF(err))
		}
		b.rowNumbers(first, rows[:count])
		for i, row := range rows[:count] {
			if err := fn(row, sums[i]); err != nil {
				return err
			}
		}
		first, n = first+int64(count), n-count
	}
	return nil
}

// Close closes the file. No other method may run then or later.
func (b *Blocks) Close() error { return b.f.Close() }
