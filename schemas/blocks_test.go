package schemas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/parquet/file"
)

var blockShapes = []struct {
	kind                       string
	rows, width, blockRows     int
	digests                    bool
	batches, wantBlocks, reads int
}{
	{KindLogprobs, 1000, 1, 64, true, 100, 16, 200},
	{KindLogprobs, 333, 7, 333, true, 40, 1, 200},
	{KindLogprobs, 1500, 128, 300, false, 1000, 5, 100},
	{KindLogprobs, 41, 3000, 10, true, 4, 5, 50},
	{KindFeatures, 9, 70_001, 4, false, 5, 3, 3},
	{KindSample, 2048, 10, 1, false, 100, 2048, 100},
	{KindSample, 1, 5, 1000, false, 1, 1, 10},
	{KindLogprobs, 0, 128, 1000, true, 1, 0, 3},
}

func bits(v []float32) []uint32 {
	out := make([]uint32, len(v))
	for i, x := range v {
		out[i] = math.Float32bits(x)
	}
	return out
}

// Every value comes back bit by bit, for any range of row numbers, and the
// bytes of the file do not depend on the batches.
func TestBlocksReadBack(t *testing.T) {
	t.Parallel()
	for _, s := range blockShapes {
		t.Run(fmt.Sprintf("%s-%dx%d-by-%d", s.kind, s.rows, s.width, s.blockRows), func(t *testing.T) {
			r := newRand(uint64(s.width))
			v := someVectors(r, s.rows, s.width, s.digests)
			meta := BlocksMeta{Kind: s.kind, Head: 3, BlockRows: s.blockRows, KV: map[string]string{"model": "m", "a": ""}}
			dir := t.TempDir()
			path, again := filepath.Join(dir, "a"), filepath.Join(dir, "b")
			stats := writeVectors(t, path, meta, v, func() int { return 1 + r.IntN(s.batches) })
			checkStats(t, path, stats, s.rows)
			if other := writeVectors(t, again, meta, v, func() int { return 1 + s.rows }); other != stats {
				t.Errorf("other batches, other file: %+v and %+v", stats, other)
			}

			b, err := OpenBlocks(path)
			check(t, err)
			defer b.Close()
			meta.Width, meta.WithSHA256 = s.width, s.digests
			if !reflect.DeepEqual(b.Meta(), meta) || b.Width() != s.width || b.NumRows() != int64(s.rows) || len(b.places) != s.wantBlocks {
				t.Fatalf("meta %+v, width %d, %d rows in %d blocks", b.Meta(), b.Width(), b.NumRows(), len(b.places))
			}
			checkRuns(t, b.Runs(), v.rows)
			top := int64(1)
			if s.rows > 0 {
				top = v.rows[s.rows-1] + 2
			}
			compare(t, b, v, 0, top)
			compare(t, b, v, math.MinInt64, math.MaxInt64)
			for range s.reads {
				from := r.Int64N(top+4) - 2
				compare(t, b, v, from, from+r.Int64N(top)-1)
			}
			readWithArrow(t, path, v)
		})
	}
}

// compare reads the range [from, to) and compares it with what was written.
func compare(t *testing.T, b *Blocks, v vectors, from, to int64) {
	t.Helper()
	i, _ := slices.BinarySearch(v.rows, from)
	j, _ := slices.BinarySearch(v.rows, to)
	want := v.slice(i, max(i, j))
	if n := b.Count(from, to); n != len(want.rows) {
		t.Fatalf("count of [%d, %d) is %d, want %d", from, to, n, len(want.rows))
	}
	rows, dst := make([]int64, len(want.rows)+1), make([]float32, len(want.values)+b.Width())
	n, err := b.ReadRows(from, to, rows, dst)
	check(t, err)
	if n != len(want.rows) || !slices.Equal(rows[:n], want.rows) {
		t.Fatalf("rows of [%d, %d): %v, want %v", from, to, rows[:n], want.rows)
	}
	if !slices.Equal(bits(dst[:n*b.Width()]), bits(want.values)) {
		t.Fatalf("values of [%d, %d) differ", from, to)
	}
	if rows[n] != 0 || slices.ContainsFunc(dst[n*b.Width():], func(x float32) bool { return x != 0 }) {
		t.Fatal("wrote behind the rows")
	}
	if n > 0 {
		if _, err := b.ReadRows(from, to, rows[:n-1], dst); !errors.Is(err, io.ErrShortBuffer) {
			t.Fatalf("short rows: %v", err)
		}
		if _, err := b.ReadRows(from, to, rows, dst[:n*b.Width()-1]); !errors.Is(err, io.ErrShortBuffer) {
			t.Fatalf("short values: %v", err)
		}
	}
	k := 0
	err = b.SHA256s(from, to, func(row int64, sha [32]byte) error {
		if row != want.rows[k] || sha != want.sha[k] {
			t.Fatalf("sha256 of row %d is wrong or out of order", row)
		}
		k++
		return nil
	})
	if want.sha == nil {
		if !errors.Is(err, ErrKind) {
			t.Fatalf("sha256 without a column: %v", err)
		}
	} else if err != nil || k != n {
		t.Fatalf("%d of %d sha256: %v", k, n, err)
	}
}

func checkRuns(t *testing.T, runs []Run, rows []int64) {
	t.Helper()
	var got []int64
	for i, run := range runs {
		if run.Index != int64(len(got)) || run.Count < 1 || i > 0 && run.First <= runs[i-1].First+runs[i-1].Count {
			t.Fatalf("run %d is %+v after %d rows", i, run, len(got))
		}
		for k := range run.Count {
			got = append(got, run.First+k)
		}
	}
	if !slices.Equal(got, rows) {
		t.Fatal("the runs are not the rows")
	}
}

// readWithArrow reads the table as any Parquet reader would: a list column.
func readWithArrow(t *testing.T, path string, v vectors) {
	t.Helper()
	rd, err := file.OpenParquetFile(path, false)
	check(t, err)
	defer rd.Close()
	var rows []int64
	var values []float32
	for g := range rd.NumRowGroups() {
		rg := rd.RowGroup(g)
		c, err := rg.Column(0)
		check(t, err)
		part := make([]int64, rg.NumRows())
		_, n, err := c.(*file.Int64ColumnChunkReader).ReadBatch(rg.NumRows(), part, nil, nil)
		check(t, err)
		rows = append(rows, part[:n]...)
		c, err = rg.Column(1)
		check(t, err)
		all := int(rg.NumRows()) * v.width
		vals, def, rep := make([]float32, all), make([]int16, all), make([]int16, all)
		levels, n, err := c.(*file.Float32ColumnChunkReader).ReadBatch(int64(all), vals, def, rep)
		check(t, err)
		if int(levels) != all || n != all {
			t.Fatalf("block %d: %d levels and %d values of %d", g, levels, n, all)
		}
		for i, level := range rep {
			if (level == 0) != (i%v.width == 0) || def[i] != 1 {
				t.Fatalf("block %d: value %d has levels %d, %d", g, i, def[i], level)
			}
		}
		values = append(values, vals...)
	}
	if !slices.Equal(rows, v.rows) || !slices.Equal(bits(values), bits(v.values)) {
		t.Error("Arrow reads other rows")
	}
}

func TestBlocksConcurrentReads(t *testing.T) {
	v := someVectors(newRand(5), 4000, 16, true)
	path := filepath.Join(t.TempDir(), "x")
	writeVectors(t, path, BlocksMeta{Kind: KindLogprobs, BlockRows: 300}, v, func() int { return 1000 })
	b, err := OpenBlocks(path)
	check(t, err)
	defer b.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for chunk := int64(w); chunk*1024 <= v.rows[len(v.rows)-1]; chunk += 4 {
				compare(t, b, v, chunk*1024, chunk*1024+1024)
			}
		})
	}
	wg.Wait()
}

func TestReadRowsDoesNotAllocate(t *testing.T) {
	for _, compact := range []bool{false, true} {
		readRowsDoesNotAllocate(t, compact)
	}
}

func readRowsDoesNotAllocate(t *testing.T, compact bool) {
	v := tame(someVectors(newRand(6), 3000, 8, false))
	path := filepath.Join(t.TempDir(), "x")
	writeVectors(t, path, BlocksMeta{Kind: KindSample, Compact: compact, BlockRows: 700}, v, func() int { return 1000 })
	b, err := OpenBlocks(path)
	check(t, err)
	defer b.Close()
	rows, dst := make([]int64, 3000), make([]float32, 3000*8)
	var from int64
	if n := testing.AllocsPerRun(100, func() {
		if _, err := b.ReadRows(from, from+2048, rows, dst); err != nil {
			t.Fatal(err)
		}
		from += 512
	}); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}

// ReadIndex takes rows by their place, and no more than there are.
func TestReadIndex(t *testing.T) {
	v := someVectors(newRand(7), 30, 4, false)
	path := filepath.Join(t.TempDir(), "x")
	writeVectors(t, path, BlocksMeta{Kind: KindLogprobs, BlockRows: 7}, v, func() int { return 10 })
	b, err := OpenBlocks(path)
	check(t, err)
	defer b.Close()
	for first := range 31 {
		for n := range 31 - first {
			rows, dst := make([]int64, n), make([]float32, 4*n)
			check(t, b.ReadIndex(int64(first), rows, dst))
			want := v.slice(first, first+n)
			if !slices.Equal(rows, want.rows) || !slices.Equal(bits(dst), bits(want.values)) {
				t.Fatalf("%d rows from %d differ", n, first)
			}
		}
	}
	for _, c := range []struct{ first, rows, values int }{{-1, 1, 4}, {30, 1, 4}, {0, 31, 124}, {0, 2, 7}, {0, 2, 9}} {
		if err := b.ReadIndex(int64(c.first), make([]int64, c.rows), make([]float32, c.values)); !errors.Is(err, io.ErrShortBuffer) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestBlocksRefuse(t *testing.T) {
	meta := BlocksMeta{Kind: KindLogprobs, Width: 2, BlockRows: 4}
	with := func(change func(*BlocksMeta)) BlocksMeta {
		m := meta
		change(&m)
		return m
	}
	for want, m := range map[string]BlocksMeta{
		"not a block table":    with(func(m *BlocksMeta) { m.Kind = KindLabels }),
		"head -1":              with(func(m *BlocksMeta) { m.Head = -1 }),
		"both must be":         with(func(m *BlocksMeta) { m.Width = 0 }),
		"must be positive":     with(func(m *BlocksMeta) { m.BlockRows = -1 }),
		"lower the rows":       with(func(m *BlocksMeta) { m.Width, m.BlockRows = 1<<20, 1<<20 }),
		"lower the":            with(func(m *BlocksMeta) { m.Width, m.BlockRows = 1<<40, 1 }),
		"set by the table":     with(func(m *BlocksMeta) { m.KV = map[string]string{keyWidth: "7"} }),
		"set by the table its": with(func(m *BlocksMeta) { m.KV = map[string]string{keyKind: "x"} }),
	} {
		path := filepath.Join(t.TempDir(), "x")
		if _, err := CreateBlocks(path, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%+v left a file", m)
		}
	}
	sha := make([][32]byte, 2)
	for want, b := range map[string]*Batch{
		"has 3 values":                 NewBatch([]int64{4, 5}, make([]float32, 3), nil, 2, nil),
		"width 0 has":                  NewBatch([]int64{4, 5}, nil, nil, 0, nil),
		"width 3, want 2":              NewBatch([]int64{4, 5}, make([]float32, 6), nil, 3, nil),
		"has 1 sha256":                 NewBatch([]int64{4, 5}, make([]float32, 4), sha[:1], 2, nil),
		"sha256 in the batch":          NewBatch([]int64{4, 5}, make([]float32, 4), sha, 2, nil),
		"row 3 after row 3":            NewBatch([]int64{3, 5}, make([]float32, 4), nil, 2, nil),
		"row 8 after row 9":            NewBatch([]int64{9, 8}, make([]float32, 4), nil, 2, nil),
		"rows must ascend (first row)": nil,
	} {
		path := filepath.Join(t.TempDir(), "x")
		w, err := CreateBlocks(path, meta)
		check(t, err)
		first := int64(3)
		if b == nil {
			want, first, b = "row -1 after row -1", -1, NewBatch([]int64{-1, 5}, make([]float32, 4), nil, 2, nil)
		} else {
			check(t, w.Write(NewBatch([]int64{first}, make([]float32, 2), nil, 2, nil)))
		}
		err = w.Write(b)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, again := w.Commit(); again == nil || !strings.Contains(again.Error(), want) {
			t.Errorf("commit after %q: %v", want, again)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%q left a file", want)
		}
		b.Release()
	}
}

// A writer that finds other bytes at a block's computed place refuses to commit.
func TestBlocksVerify(t *testing.T) {
	v := tame(someVectors(newRand(8), 10, 3, true))
	for name, damage := range map[string]func(*BlocksWriter){
		"rows":   func(w *BlocksWriter) { w.sums[0].rows++ },
		"values": func(w *BlocksWriter) { w.sums[1].values++ },
		"scales": func(w *BlocksWriter) { w.sums[1].scales++ },
		"sha256": func(w *BlocksWriter) { w.sums[1].sha++ },
		"meta":   func(w *BlocksWriter) { w.meta.Head++ },
		"count":  func(w *BlocksWriter) { w.total++ },
	} {
		for _, compact := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "x")
			w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 3, WithSHA256: true, Compact: compact, BlockRows: 5})
			check(t, err)
			check(t, w.Write(v.batch(nil)))
			damage(w)
			if _, err := w.Commit(); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s: the file is still there", name)
			}
		}
	}
}

// Without Commit there is no footer and so no table, at any moment.
func TestWithoutCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 3, BlockRows: 5})
	check(t, err)
	check(t, w.Write(someVectors(newRand(9), 5000, 3, false).batch(nil)))
	if _, err := OpenBlocks(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open before commit: %v", err)
	}
	check(t, w.Abort())
	check(t, w.Abort())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Abort: %v", err)
	}
	if _, err := w.Commit(); err == nil {
		t.Error("commit after abort")
	}
	stats := writeVectors(t, path, BlocksMeta{Kind: KindLogprobs, BlockRows: 5}, someVectors(newRand(9), 7, 3, false), func() int { return 7 })
	checkStats(t, path, stats, 7)
}

// Abort after Commit leaves the file, so that it can be deferred.
func TestAbortAfterCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	w, err := CreateImages(path, ImagesMeta{})
	check(t, err)
	_, err = w.Commit()
	check(t, err)
	before, err := os.ReadFile(path)
	check(t, err)
	check(t, w.Abort())
	if _, err := w.Commit(); err == nil {
		t.Error("a second commit")
	}
	after, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
}

// A disk that fails under a writer is reported by Commit at the latest.
func TestWriteFailure(t *testing.T) {
	v := someVectors(newRand(9), 5000, 30, false)
	dir := t.TempDir()
	w, err := CreateBlocks(filepath.Join(dir, "b"), BlocksMeta{Kind: KindLogprobs, Width: 30, BlockRows: 50})
	check(t, err)
	iw, err := CreateImages(filepath.Join(dir, "i"), ImagesMeta{})
	check(t, err)
	lw, err := CreateLabels(filepath.Join(dir, "l"), LabelsMeta{Clusters: 1})
	check(t, err)
	for _, f := range []*os.File{w.out.f, iw.out.f, lw.out.f} {
		check(t, f.Close())
	}
	w.Write(v.batch(nil))
	check(t, iw.Write(Image{Key: "a"}))
	check(t, lw.Write(&Label{Key: "a"}))
	for _, commit := range []func() (FileStats, error){w.Commit, iw.Commit, lw.Commit} {
		if _, err := commit(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("commit: %v", err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
