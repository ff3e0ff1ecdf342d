package schemas

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The helpers of this file make rows of every table, and write and read whole
// files.

func ptr[T any](v T) *T { return &v }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// text draws a string with what makes strings hard: nothing, long, other scripts, NUL.
func text(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("лес/", r.IntN(30))
	case 2:
		return "a\x00b\"\n"
	}
	return fmt.Sprintf("dir-%d/図-%d.jpg", r.IntN(50), r.Uint64())
}

func someImages(r *rand.Rand, first int64, n int) []Image {
	ims := make([]Image, n)
	for i := range ims {
		ims[i] = Image{Row: first + int64(i), Key: text(r), Member: text(r), Size: r.Int64(), ETag: text(r), Offset: r.Int64()}
	}
	return ims
}

func someQuarantine(r *rand.Rand, n int) []Quarantine {
	qs := make([]Quarantine, n)
	for i := range qs {
		qs[i] = Quarantine{Key: text(r), KeyHex: r.IntN(2) == 0, Member: text(r), Stage: "extract", Class: text(r), Message: text(r)}
		if r.IntN(3) > 0 {
			qs[i].Row = ptr(r.Int64N(1 << 40))
		}
	}
	return qs
}

func someLabels(r *rand.Rand, n, clusters int, topK bool) []Label {
	ls := make([]Label, n)
	row := int64(-1)
	for i := range ls {
		row += 1 + r.Int64N(3)
		ls[i] = Label{
			Row: row, Key: text(r), Member: text(r), SHA256: hex.EncodeToString(digestOf(row)),
			Label: r.Int32N(int32(clusters)), ModelLabel: r.Int32N(int32(clusters)), ModelProb: r.Float32(),
		}
		if r.IntN(3) > 0 {
			ls[i].Prob = ptr(r.Float32())
		}
		if r.IntN(3) > 0 {
			ls[i].PrevLabel = ptr(r.Int32N(int32(clusters)))
		}
		if topK {
			for range r.IntN(6) {
				ls[i].TopK = append(ls[i].TopK, TopK{r.Int32N(int32(clusters)), r.Float32()})
			}
		}
	}
	return ls
}

func digestOf(row int64) []byte {
	sum := sha256.Sum256(fmt.Append(nil, row))
	return sum[:]
}

// vectors is the content of a block table.
type vectors struct {
	width  int
	rows   []int64
	values []float32
	sha    [][32]byte
}

func someVectors(r *rand.Rand, n, width int, digests bool) vectors {
	v := vectors{width: width, rows: make([]int64, n), values: make([]float32, n*width)}
	row := r.Int64N(100) - 1
	for i := range v.rows {
		row++
		if r.IntN(8) == 0 {
			row += r.Int64N(3000)
		}
		v.rows[i] = row
	}
	for i := range v.values {
		switch r.IntN(20) {
		case 0:
			v.values[i] = float32(math.Inf(-1))
		case 1: // any bits, signalling NaNs included
			v.values[i] = math.Float32frombits(r.Uint32())
		default:
			v.values[i] = -r.Float32() * 40
		}
	}
	if digests {
		v.sha = make([][32]byte, n)
		for i := range v.sha {
			v.sha[i] = [32]byte(digestOf(v.rows[i]))
		}
	}
	return v
}

func (v vectors) slice(i, j int) vectors {
	s := vectors{v.width, v.rows[i:j], v.values[i*v.width : j*v.width], nil}
	if v.sha != nil {
		s.sha = v.sha[i:j]
	}
	return s
}

func (v vectors) batch(release func()) *Batch {
	return NewBatch(v.rows, v.values, v.sha, v.width, release)
}

// writeVectors writes v in batches of the sizes that next returns.
func writeVectors(t testing.TB, path string, meta BlocksMeta, v vectors, next func() int) FileStats {
	t.Helper()
	meta.Width, meta.WithSHA256 = v.width, v.sha != nil
	w, err := CreateBlocks(path, meta)
	check(t, err)
	for i := 0; i < len(v.rows); {
		j := min(len(v.rows), i+next())
		b := v.slice(i, j).batch(nil)
		check(t, w.Write(b))
		b.Release()
		i = j
	}
	stats, err := w.Commit()
	check(t, err)
	return stats
}

func writeImages(t testing.TB, path string, meta ImagesMeta, ims []Image) FileStats {
	t.Helper()
	w, err := CreateImages(path, meta)
	check(t, err)
	for _, im := range ims {
		check(t, w.Write(im))
	}
	stats, err := w.Commit()
	check(t, err)
	return stats
}

func writeQuarantine(t testing.TB, path string, meta QuarantineMeta, qs []Quarantine) FileStats {
	t.Helper()
	w, err := CreateQuarantine(path, meta)
	check(t, err)
	for _, q := range qs {
		check(t, w.Write(q))
	}
	stats, err := w.Commit()
	check(t, err)
	return stats
}

// writeLabels hands over one Label and one array for all rows, which the writer
// must copy.
func writeLabels(t testing.TB, path string, meta LabelsMeta, ls []Label) FileStats {
	t.Helper()
	w, err := CreateLabels(path, meta)
	check(t, err)
	var prob float32
	var prev int32
	var top []TopK
	for _, l := range ls {
		if l.Prob != nil {
			prob, l.Prob = *l.Prob, &prob
		}
		if l.PrevLabel != nil {
			prev, l.PrevLabel = *l.PrevLabel, &prev
		}
		top = append(top[:0], l.TopK...)
		l.TopK = top
		check(t, w.Write(&l))
	}
	stats, err := w.Commit()
	check(t, err)
	return stats
}

func readLabels(t testing.TB, path string) (ls []Label) {
	t.Helper()
	check(t, ReadLabels(path, func(l *Label) error {
		c := *l
		if l.Prob != nil {
			c.Prob = ptr(*l.Prob)
		}
		if l.PrevLabel != nil {
			c.PrevLabel = ptr(*l.PrevLabel)
		}
		c.TopK = append([]TopK(nil), l.TopK...)
		ls = append(ls, c)
		return nil
	}))
	return ls
}

// checkStats compares a description with the file itself.
func checkStats(t testing.TB, path string, stats FileStats, rows int) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	check(t, err)
	want := FileStats{Rows: int64(rows), Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}
	if stats != want {
		t.Errorf("%s: stats %+v, want %+v", filepath.Base(path), stats, want)
	}
}
