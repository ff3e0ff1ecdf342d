package schemas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/xitongsys/parquet-go-source/local"
	"github.com/xitongsys/parquet-go/reader"
)

var negInf = float32(math.Inf(-1))

// tame replaces what the compact form refuses by numbers of every size.
func tame(v vectors) vectors {
	for i, x := range v.values {
		if !(x <= math.MaxFloat32) {
			v.values[i] = -float32(math.Ldexp(1, i%300-150))
		}
	}
	return v
}

// stored is v as a compact table gives it back, computed here without a loop of
// the package.
func stored(v vectors) vectors {
	out := v
	out.values = slices.Clone(v.values)
	for i := range v.rows {
		row := out.values[i*v.width : (i+1)*v.width]
		top, bottom := slices.Max(row), math.Inf(1)
		for _, x := range row {
			if x != negInf {
				bottom = min(bottom, float64(x))
			}
		}
		exponent := -20
		for exponent < -8 && math.Ldexp(65534, exponent) < float64(top)-bottom {
			exponent++
		}
		for k, x := range row {
			if x == negInf {
				continue
			}
			code := min(65534, math.RoundToEven(math.Ldexp(float64(top)-float64(x), -exponent)))
			row[k] = float32(float64(top) - math.Ldexp(code, exponent))
		}
	}
	return out
}

func TestCompactReadBack(t *testing.T) {
	t.Parallel()
	for _, s := range blockShapes {
		if s.kind == KindFeatures {
			continue
		}
		t.Run(fmt.Sprintf("%dx%d-by-%d", s.rows, s.width, s.blockRows), func(t *testing.T) {
			r := newRand(uint64(s.width))
			v := tame(someVectors(r, s.rows, s.width, s.digests))
			meta := BlocksMeta{Kind: s.kind, Head: 3, Compact: true, BlockRows: s.blockRows, KV: map[string]string{"model": "m"}}
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
			if !reflect.DeepEqual(b.Meta(), meta) || b.NumRows() != int64(s.rows) || len(b.places) != s.wantBlocks {
				t.Fatalf("meta %+v, %d rows in %d blocks", b.Meta(), b.NumRows(), len(b.places))
			}
			want := stored(v)
			compare(t, b, want, math.MinInt64, math.MaxInt64)
			for range s.reads {
				from := r.Int64N(int64(s.rows)*400+4) - 2
				compare(t, b, want, from, from+r.Int64N(int64(s.rows)*400+2)-1)
			}
			readWithXitongsys(t, path, want)
		})
	}
}

// readWithXitongsys reads the table as any Parquet reader would, and computes
// the values from its columns.
func readWithXitongsys(t *testing.T, path string, want vectors) {
	t.Helper()
	f, err := local.NewLocalFileReader(path)
	check(t, err)
	defer f.Close()
	r, err := reader.NewParquetColumnReader(f, 1)
	check(t, err)
	defer r.ReadStop()
	n := int64(len(want.rows))
	var columns [4][]any
	for c := range columns {
		columns[c], _, _, err = r.ReadColumnByIndex(int64(c), n)
		check(t, err)
	}
	if len(columns[0]) != len(want.rows) {
		t.Fatalf("%d rows of %d", len(columns[0]), n)
	}
	for i, row := range columns[0] {
		top, step, gaps := columns[1][i].(float32), columns[2][i].(float32), []byte(columns[3][i].(string))
		if row.(int64) != want.rows[i] || len(gaps) != 2*want.width {
			t.Fatalf("row %d has %d bytes, want row %d with %d", row, len(gaps), want.rows[i], 2*want.width)
		}
		for k := range want.width {
			x := top - float32(binary.LittleEndian.Uint16(gaps[2*k:]))*step
			if gaps[2*k] == 0xff && gaps[2*k+1] == 0xff {
				x = negInf
			}
			if w := want.values[i*want.width+k]; math.Float32bits(x) != math.Float32bits(w) {
				t.Fatalf("row %d, value %d is %v, want %v", row, k, x, w)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	gap := float32(lastCode * maxStep)
	for name, c := range map[string]struct{ x, want []float32 }{
		"one":               {[]float32{-3.3}, []float32{-3.3}},
		"equal":             {[]float32{-2, -2, -2}, []float32{-2, -2, -2}},
		"multiples":         {[]float32{0, -1, -0.5, -0.25}, []float32{0, -1, -0.5, -0.25}},
		"minus infinity":    {[]float32{negInf, -1, negInf}, []float32{negInf, -1, negInf}},
		"nothing else":      {[]float32{negInf, negInf}, []float32{negInf, negInf}},
		"half is even":      {[]float32{0, -250, -1.5 / 256, -2.5 / 256}, []float32{0, -250, -2. / 256, -2. / 256}},
		"at the end":        {[]float32{0, -gap}, []float32{0, -gap}},
		"beyond":            {[]float32{0, -gap - 1, -1000, -3e38, negInf}, []float32{0, -gap, -gap, -gap, negInf}},
		"smaller than step": {[]float32{0, -1e-30}, []float32{0, 0}},
		"largest range":     {[]float32{math.MaxFloat32, -math.MaxFloat32}, []float32{math.MaxFloat32, math.MaxFloat32}},
	} {
		x := slices.Clone(c.x)
		check(t, RoundTrip(x, make([]uint16, len(x))))
		if !slices.Equal(x, c.want) {
			t.Errorf("%s: %v, want %v", name, x, c.want)
		}
	}
	x, codes := make([]float32, 77), make([]uint16, 77)
	if n := testing.AllocsPerRun(10, func() { check(t, RoundTrip(x, codes)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A value comes back within half a step, and the step follows from the row.
func TestCompactError(t *testing.T) {
	r := newRand(3)
	for std, step := range map[float64]float64{0.1: 1. / (1 << 16), 3: 1. / (1 << 11), 12: 1. / (1 << 9)} {
		for range 50 {
			x := make([]float32, 1000)
			for k := range x {
				x[k] = float32(r.Float64()*10*std - 9)
			}
			top, bottom := slices.Max(x), slices.Min(x)
			x[0], x[1] = top, bottom
			got := slices.Clone(x)
			check(t, RoundTrip(got, make([]uint16, len(x))))
			for k := range x {
				if d := math.Abs(float64(got[k]) - float64(x[k])); d > step/2+1e-6 {
					t.Fatalf("std %g: %v became %v", std, x[k], got[k])
				}
			}
		}
	}
}

// TestDecode: every code and length, and codes that lie in the second half of
// their destination, give the bits of the definition.
func TestDecode(t *testing.T) {
	r := newRand(4)
	for _, width := range []int{1, 2, 31, 32, 33, 64, 100, 1 << 16} {
		for _, rows := range []int{0, 1, 2, 3} {
			memory, want := make([]float32, rows*width), make([]float32, rows*width)
			codes := codesIn(bytesOf(memory)[2*rows*width:])
			for i := range codes {
				codes[i] = uint16(i + r.IntN(2)*r.IntN(1<<16))
			}
			scales := make([]scale, rows)
			for i := range scales {
				scales[i] = scale{-r.Float32() * 9, maxStep / float32(int(1)<<r.IntN(13))}
			}
			decodeRows(want, slices.Clone(codes), scales, width)
			decode(memory, codes, scales, width)
			if !slices.Equal(bits(memory), bits(want)) {
				t.Fatalf("%d rows of %d differ", rows, width)
			}
		}
	}
}

// A row that the form cannot hold ends the table.
func TestCompactRefuses(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), -float32(math.NaN()), float32(math.Inf(1))} {
		for at := range 3 {
			x := []float32{-1, negInf, -2}
			x[at] = bad
			path := filepath.Join(t.TempDir(), "x")
			w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 3, Compact: true, BlockRows: 5})
			check(t, err)
			err = w.Write(NewBatch([]int64{8, 9}, append([]float32{0, 0, 0}, x...), nil, 3, nil))
			if !errors.Is(err, errNotANumber) || !strings.Contains(err.Error(), "row 9") {
				t.Errorf("%v: %v", x, err)
			}
			if _, err := w.Commit(); err == nil {
				t.Errorf("%v was committed", x)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("the file is still there")
			}
		}
	}
	if _, err := CreateBlocks(filepath.Join(t.TempDir(), "x"), BlocksMeta{Kind: KindFeatures, Width: 3, Compact: true, BlockRows: 5}); err == nil {
		t.Error("compact features")
	}
}

// A scale that no encoder writes is damage, and would make NaN of codes.
func TestDamagedScale(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, s := range []scale{
		{nan, maxStep}, {inf, maxStep}, {0, nan}, {0, inf}, {0, 0}, {0, -maxStep}, {0, 2 * maxStep}, {0, minStep / 2}, {0, 1.5 * minStep},
	} {
		path := filepath.Join(t.TempDir(), "x")
		w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: 2, Compact: true, BlockRows: 2})
		check(t, err)
		check(t, w.Write(NewBatch([]int64{1, 2, 3}, make([]float32, 6), nil, 2, nil)))
		w.block.tops[0], w.block.steps[0] = s.top, s.step
		_, err = w.Commit()
		check(t, err)
		if _, err := OpenBlocks(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: %v", s, err)
		}
	}
}
