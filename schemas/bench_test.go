package schemas

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// benchVectors is 64 MB of rows without gaps.
func benchVectors(width int) vectors {
	r := newRand(1)
	v := vectors{width: width, values: make([]float32, 16<<20/width*width)}
	for i := range v.values {
		v.values[i] = -r.Float32() * 40
	}
	v.rows = make([]int64, len(v.values)/width)
	for i := range v.rows {
		v.rows[i] = int64(i)
	}
	return v
}

func benchBlockRows(width int) int { return 16 << 20 / 4 / width }

func BenchmarkBlocksWrite(b *testing.B) {
	for _, width := range []int{10, 128, 3000} {
		for _, compact := range []bool{false, true} {
			b.Run(fmt.Sprintf("K=%d/compact=%t", width, compact), func(b *testing.B) { benchBlocksWrite(b, width, compact) })
		}
	}
}

func benchBlocksWrite(b *testing.B, width int, compact bool) {
	v := benchVectors(width)
	path := filepath.Join(b.TempDir(), "x")
	b.SetBytes(int64(len(v.values)) * 4)
	b.ReportAllocs()
	for b.Loop() {
		w, err := CreateBlocks(path, BlocksMeta{Kind: KindLogprobs, Width: width, Compact: compact, BlockRows: benchBlockRows(width)})
		check(b, err)
		for i := 0; i < len(v.rows); i += 256 {
			batch := v.slice(i, min(i+256, len(v.rows))).batch(nil)
			check(b, w.Write(batch))
			batch.Release()
		}
		_, err = w.Commit()
		check(b, err)
	}
}

// best keeps the shortest of several runs.
type best struct{ d time.Duration }

func (t *best) time(f func()) {
	start := time.Now()
	f()
	if d := time.Since(start); t.d == 0 || d < t.d {
		t.d = d
	}
}

// BenchmarkReadRows reads chunks of 1,024 row numbers in pieces of half a MiB, in
// both forms, and the bytes of the float32 form with bare positional reads.
// Ratio is the time of the first over the second; rates count float32.
func BenchmarkReadRows(b *testing.B) {
	for _, width := range []int{10, 128, 3000} {
		for _, compact := range []bool{false, true} {
			b.Run(fmt.Sprintf("K=%d/compact=%t", width, compact), func(b *testing.B) { benchReadRows(b, width, compact) })
		}
	}
}

func benchReadRows(b *testing.B, width int, compact bool) {
	v := benchVectors(width)
	path, bare := filepath.Join(b.TempDir(), "x"), filepath.Join(b.TempDir(), "y")
	writeVectors(b, path, BlocksMeta{Kind: KindLogprobs, Compact: compact, BlockRows: benchBlockRows(width)}, v, func() int { return 1 << 20 })
	check(b, os.WriteFile(bare, bytesOf(v.values), 0o600))
	blocks, err := OpenBlocks(path)
	check(b, err)
	defer blocks.Close()
	f, err := os.Open(bare)
	check(b, err)
	defer f.Close()
	piece := min(1024, 512<<10/4/width)
	rows, dst := make([]int64, piece), make([]float32, piece*width)
	read := func() {
		for at := 0; at < len(v.rows); at += piece {
			n := min(piece, len(v.rows)-at)
			check(b, blocks.ReadIndex(int64(at), rows[:n], dst[:n*width]))
		}
	}
	plain := func() {
		size, chunk := int64(len(v.values))*4, int64(len(dst))*4
		for at := int64(0); at < size; at += chunk {
			_, err := f.ReadAt(bytesOf(dst)[:min(chunk, size-at)], at)
			check(b, err)
		}
	}
	b.SetBytes(int64(len(v.values)) * 4)
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
	b.StopTimer()
	// Alternate the two, so that both see the same machine.
	var with, without best
	for range 15 {
		with.time(read)
		without.time(plain)
	}
	b.ReportMetric(float64(len(v.values))*4/1e6/with.d.Seconds(), "best-MB/s")
	b.ReportMetric(float64(len(v.values))*4/1e6/without.d.Seconds(), "pread-MB/s")
	b.ReportMetric(with.d.Seconds()/without.d.Seconds(), "ratio")
}

// BenchmarkDecode decodes half a MiB in place, with what the platform has and
// with the definition.
func BenchmarkDecode(b *testing.B) {
	const width, rows = 3000, 43
	memory, scales := make([]float32, rows*width), make([]scale, rows)
	for i := range scales {
		scales[i].step = maxStep
	}
	for name, f := range map[string]func([]float32, []uint16, []scale, int){"decode": decode, "definition": decodeRows} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(4 * width * rows)
			for b.Loop() {
				f(memory, codesIn(bytesOf(memory)[2*rows*width:]), scales, width)
			}
		})
	}
}

func benchLabels(n int, topK bool) []Label {
	r := newRand(1)
	ls := make([]Label, n)
	for i := range ls {
		ls[i] = Label{
			Row: int64(i), Key: fmt.Sprintf("train/n%08d/n%08d_%d.JPEG", i/1300, i/1300, i), SHA256: hex.EncodeToString(digestOf(int64(i))),
			Label: r.Int32N(3000), Prob: ptr(r.Float32()), ModelLabel: r.Int32N(3000), ModelProb: r.Float32(), PrevLabel: ptr(r.Int32N(3000)),
		}
		for range 5 {
			if topK {
				ls[i].TopK = append(ls[i].TopK, TopK{r.Int32N(3000), r.Float32()})
			}
		}
	}
	return ls
}

func BenchmarkLabels(b *testing.B) {
	for _, topK := range []bool{false, true} {
		ls := benchLabels(2*GroupRows, topK)
		path := filepath.Join(b.TempDir(), "x")
		perSecond := func(b *testing.B) {
			b.ReportMetric(float64(b.N)*float64(len(ls))/b.Elapsed().Seconds(), "rows/s")
		}
		var stats FileStats
		b.Run(fmt.Sprintf("write/topK=%t", topK), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				stats = writeLabels(b, path, LabelsMeta{Clusters: 3000, TopK: topK}, ls)
			}
			perSecond(b)
			b.ReportMetric(float64(stats.Bytes)/float64(stats.Rows), "B/row")
		})
		b.Run(fmt.Sprintf("read/topK=%t", topK), func(b *testing.B) {
			writeLabels(b, path, LabelsMeta{Clusters: 3000, TopK: topK}, ls)
			b.ReportAllocs()
			for b.Loop() {
				check(b, ReadLabels(path, func(*Label) error { return nil }))
			}
			perSecond(b)
		})
	}
}

func BenchmarkImages(b *testing.B) {
	ims := make([]Image, 2*GroupRows)
	for i := range ims {
		ims[i] = Image{Row: int64(i), Key: fmt.Sprintf("train/n%08d/n%08d_%d.JPEG", i/1300, i/1300, i), Size: 100_000, ETag: fmt.Sprintf("%032x", i*7919)}
	}
	path := filepath.Join(b.TempDir(), "x")
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			writeImages(b, path, ImagesMeta{}, ims)
		}
		b.ReportMetric(float64(b.N)*float64(len(ims))/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("read", func(b *testing.B) {
		writeImages(b, path, ImagesMeta{}, ims)
		for b.Loop() {
			check(b, ReadImages(path, 0, 1<<40, func(Image) error { return nil }))
		}
		b.ReportMetric(float64(b.N)*float64(len(ims))/b.Elapsed().Seconds(), "rows/s")
	})
}
