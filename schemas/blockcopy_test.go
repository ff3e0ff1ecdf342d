package schemas

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCopyIsWriting: a table some of whose rows are copied from others, where they
// had other numbers and lay in other blocks, is the table that is written from
// the values, byte by byte.
func TestCopyIsWriting(t *testing.T) {
	t.Parallel()
	for _, s := range blockShapes {
		for _, compact := range []bool{false, true} {
			if compact && s.kind == KindFeatures {
				continue
			}
			t.Run(fmt.Sprintf("%s-%dx%d-by-%d-%t", s.kind, s.rows, s.width, s.blockRows, compact), func(t *testing.T) {
				r := newRand(uint64(s.rows))
				v := tame(someVectors(r, s.rows, s.width, s.digests))
				meta := BlocksMeta{Kind: s.kind, Head: 1, Compact: compact, BlockRows: s.blockRows}
				dir := t.TempDir()
				want := writeVectors(t, filepath.Join(dir, "want"), meta, v, func() int { return 1 + r.IntN(s.batches) })

				// The other table has rows before, between and after, in other blocks.
				other := meta
				other.BlockRows, other.KV = 1+s.blockRows*2/3, map[string]string{"model": "same"}
				extra := tame(someVectors(r, 3, s.width, s.digests))
				wide, at := vectors{width: s.width}, make([]int64, s.rows)
				put := func(v vectors) {
					wide.rows = append(wide.rows, int64(len(wide.rows)*2))
					wide.values = append(wide.values, v.values...)
					wide.sha = append(wide.sha, v.sha...)
				}
				for i := range s.rows {
					if r.IntN(5) == 0 {
						put(extra.slice(i%3, i%3+1))
					}
					at[i] = int64(len(wide.rows))
					put(v.slice(i, i+1))
				}
				put(extra.slice(0, 1))
				writeVectors(t, filepath.Join(dir, "other"), other, wide, func() int { return 1 + r.IntN(s.batches) })
				from, err := OpenBlocks(filepath.Join(dir, "other"))
				check(t, err)
				defer from.Close()

				meta.Width, meta.WithSHA256 = s.width, s.digests
				w, err := CreateBlocks(filepath.Join(dir, "got"), meta)
				check(t, err)
				for i := 0; i < s.rows; {
					j := i + 1
					for j < s.rows && at[j] == at[j-1]+1 && r.IntN(s.batches) > 0 {
						j++
					}
					if r.IntN(2) == 0 {
						check(t, w.Copy(from, at[i], v.rows[i:j]))
					} else {
						b := v.slice(i, j).batch(nil)
						check(t, w.Write(b))
						b.Release()
					}
					i = j
				}
				got, err := w.Commit()
				check(t, err)
				if got != want {
					t.Errorf("copied %+v\nwritten %+v", got, want)
				}
				for i, row := range wide.rows {
					if index, ok := from.Find(row); !ok || index != int64(i) {
						t.Fatalf("row %d is found at %d, %t", row, index, ok)
					}
					if _, ok := from.Find(row + 1); ok {
						t.Fatalf("row %d is found, which is not there", row+1)
					}
				}
			})
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	t.Parallel()
	r := newRand(1)
	v := tame(someVectors(r, 20, 4, true))
	dir := t.TempDir()
	meta := BlocksMeta{Kind: KindLogprobs, Head: 2, BlockRows: 8}
	writeVectors(t, filepath.Join(dir, "from"), meta, v, func() int { return 20 })
	from, err := OpenBlocks(filepath.Join(dir, "from"))
	check(t, err)
	defer from.Close()
	meta.Width, meta.WithSHA256 = 4, true
	for name, c := range map[string]struct {
		change func(*BlocksMeta)
		first  int64
		rows   []int64
		says   string
	}{
		"kind":        {func(m *BlocksMeta) { m.Kind = KindSample }, 0, []int64{1}, "another table"},
		"head":        {func(m *BlocksMeta) { m.Head = 3 }, 0, []int64{1}, "another table"},
		"width":       {func(m *BlocksMeta) { m.Width = 5 }, 0, []int64{1}, "another table"},
		"form":        {func(m *BlocksMeta) { m.Compact = true }, 0, []int64{1}, "another table"},
		"no digests":  {func(m *BlocksMeta) { m.WithSHA256 = false }, 0, []int64{1}, "another table"},
		"before":      {func(*BlocksMeta) {}, -1, []int64{1}, "no 1 rows from -1"},
		"behind":      {func(*BlocksMeta) {}, 19, []int64{1, 2}, "no 2 rows from 19"},
		"not ordered": {func(*BlocksMeta) {}, 0, []int64{2, 2}, "must ascend"},
	} {
		m := meta
		c.change(&m)
		w, err := CreateBlocks(filepath.Join(dir, name), m)
		check(t, err)
		err = w.Copy(from, c.first, slices.Clone(c.rows))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if _, err := w.Commit(); err == nil {
			t.Errorf("%s: committed after an error", name)
		}
	}
}
