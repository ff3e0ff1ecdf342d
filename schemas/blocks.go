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
	scales []scale // of all rows of a compact table
	places []place
}

// place has the file offsets of a block's payloads.
type place struct{ rows, tops, steps, values, sha int64 }

// OpenBlocks opens a block table whose SHA-256 the caller has verified. It
// reads the footer and the row numbers, and holds memory in proportion to the
// number of blocks and of gaps between row numbers; of a compact table it holds
// 8 bytes for each row.
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
	if b.meta, b.places, err = blockPlaces(ft); err != nil {
		return err
	}
	b.rows = ft.NumRows
	var index int64
	err = inParts(b, 8, func(p place) int64 { return p.rows }, func(row int64) error {
		index++
		return b.addRow(row, index-1)
	})
	if err != nil || !b.meta.Compact {
		return err
	}
	return b.loadScales()
}

// loadScales reads what the codes of every row mean.
func (b *Blocks) loadScales() error {
	b.scales = make([]scale, 0, b.rows)
	err := inParts(b, 4, func(p place) int64 { return p.tops }, func(top float32) error {
		b.scales = append(b.scales, scale{top: top})
		return nil
	})
	if err != nil {
		return err
	}
	row := 0
	return inParts(b, 4, func(p place) int64 { return p.steps }, func(step float32) error {
		b.scales[row].step = step
		if !b.scales[row].sound() {
			return fmt.Errorf("%w: the scale of row %d of the table is %v", ErrCorrupt, row, b.scales[row])
		}
		row++
		return nil
	})
}

// inParts calls fn with each value of a column of one value of size bytes a row.
func inParts[T int64 | float32](b *Blocks, size int64, column func(place) int64, fn func(T) error) error {
	buf := make([]T, min(int64(b.meta.BlockRows), b.rows, 1<<16))
	for i, p := range b.places {
		for done, rows := int64(0), b.blockRows(i); done < rows; {
			part := buf[:min(rows-done, int64(len(buf)))]
			if _, err := b.f.ReadAt(bytesOf(part), column(p)+done*size); err != nil {
				return unexpectedEOF(err)
			}
			for _, v := range part {
				if err := fn(v); err != nil {
					return err
				}
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
	if meta, err = blocksMeta(ft); err != nil {
		return meta, nil, err
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
		if places[i], err = meta.place(rg.Columns, want); err != nil {
			return meta, nil, fmt.Errorf("block %d: %w", i, err)
		}
	}
	return meta, places, nil
}

// blocksMeta reads the metadata of a block table, whose columns say in which
// form it is.
func blocksMeta(ft *footer) (meta BlocksMeta, err error) {
	meta = BlocksMeta{Kind: ft.kv[keyKind], KV: callersKV(ft.kv)}
	if blockColumn[meta.Kind] == "" {
		return meta, fmt.Errorf("%w: it holds %q, not blocks", ErrKind, meta.Kind)
	}
	if err := ft.expect(meta.Kind); err != nil {
		return meta, err
	}
	if meta.Head, err = metaInt(ft.kv, keyHead, 0); err != nil {
		return meta, err
	}
	if meta.Width, err = metaInt(ft.kv, keyWidth, 1); err != nil {
		return meta, err
	}
	if meta.BlockRows, err = metaInt(ft.kv, keyBlockRows, 1); err != nil {
		return meta, err
	}
	if err := meta.check(); err != nil {
		return meta, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	var known []string
	for _, meta.Compact = range []bool{false, true} {
		for _, meta.WithSHA256 = range []bool{false, true} {
			if ft.columns == meta.columns() {
				return meta, nil
			}
			known = append(known, meta.columns())
		}
	}
	return meta, ft.expect(meta.Kind, known...)
}

// place returns where the payloads of a block of so many rows lie.
func (m BlocksMeta) place(columns []*parquet.ColumnChunk, rows int64) (p place, err error) {
	next := func(at *int64, n, size int64) {
		if err == nil {
			*at, err = payload(columns[0], n, size)
			columns = columns[1:]
		}
	}
	next(&p.rows, rows, 8)
	if m.Compact {
		next(&p.tops, rows, 4)
		next(&p.steps, rows, 4)
		next(&p.values, rows, 2*int64(m.Width))
	} else {
		next(&p.values, rows*int64(m.Width), 4)
	}
	if m.WithSHA256 {
		next(&p.sha, rows, 32)
	}
	return p, err
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
	return int(max(0, b.Before(to)-b.Before(from)))
}

// Before returns the number of rows whose row number is below row: the index of
// the first one that is not.
func (b *Blocks) Before(row int64) int64 {
	i := sort.Search(len(b.runs), func(i int) bool { return b.runs[i].First >= row })
	if i == 0 {
		return 0
	}
	run := b.runs[i-1]
	return run.Index + min(row-run.First, run.Count)
}

// Find returns the index of a row in the table, and whether it is there.
func (b *Blocks) Find(row int64) (index int64, ok bool) {
	index = b.Before(row)
	return index, b.Before(row+1) > index
}

// ReadRows reads the rows whose row number r has from <= r < to. It puts their
// numbers, ascending, into rows and their values, row-major, into dst, and
// returns how many they are. Both slices must have room for them (see
// [Blocks.Count]; to−from rows always suffice), else the error is
// [io.ErrShortBuffer].
func (b *Blocks) ReadRows(from, to int64, rows []int64, dst []float32) (n int, err error) {
	first := b.Before(from)
	n = int(max(0, b.Before(to)-first))
	if n > len(rows) || n > len(dst)/b.meta.Width {
		return 0, fmt.Errorf("read rows %d to %d of %s: %d rows of %d values do not fit into %d and %d: %w",
			from, to, b.path, n, b.meta.Width, len(rows), len(dst), io.ErrShortBuffer)
	}
	return n, b.ReadIndex(first, rows[:n], dst[:n*b.meta.Width])
}

// ReadIndex reads len(rows) rows, from the one on that has first rows before it
// in the table: their numbers into rows, their values, row-major, into dst,
// which has exactly their size. Rows that lie in one block cost one positional
// read into dst and no allocation. The values of a compact table are decoded
// there, which is cheapest where dst stays in a core's cache.
func (b *Blocks) ReadIndex(first int64, rows []int64, dst []float32) error {
	width := b.meta.Width
	if n := int64(len(rows)); first < 0 || first > b.rows-n || len(dst) != len(rows)*width {
		return fmt.Errorf("read %d rows from %d of %s: it has %d of %d values, room is for %d values: %w", n, first, b.path, b.rows, width, len(dst), io.ErrShortBuffer)
	}
	b.rowNumbers(first, rows)
	for done := 0; done < len(rows); {
		block, skip, count := b.piece(first+int64(done), len(rows)-done)
		if err := b.readPiece(dst[done*width:(done+count)*width], b.places[block].values, skip, first+int64(done)); err != nil {
			return fmt.Errorf("read rows %d to %d of %s: %w", rows[0], rows[len(rows)-1], b.path, unexpectedEOF(err))
		}
		done += count
	}
	return nil
}

// readPiece fills dst from the block whose values begin at the offset values,
// from its row skip on, which is the table's row index.
func (b *Blocks) readPiece(dst []float32, values int64, skip int, index int64) error {
	raw, row := bytesOf(dst), int64(b.meta.Width)*4
	if !b.meta.Compact {
		_, err := b.f.ReadAt(raw, values+int64(skip)*row)
		return err
	}
	// The codes are read into the second half of dst and decoded in place.
	raw = raw[len(raw)/2:]
	if _, err := b.f.ReadAt(raw, values+int64(skip)*row/2); err != nil {
		return err
	}
	decode(dst, codesIn(raw), b.scales[index:index+int64(len(dst)/b.meta.Width)], b.meta.Width)
	return nil
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
	for first, n := b.Before(from), b.Count(from, to); n > 0; {
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
