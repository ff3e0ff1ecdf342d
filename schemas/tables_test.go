package schemas

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var errStop = errors.New("stop")

func TestImagesReadBack(t *testing.T) {
	t.Parallel()
	r := newRand(1)
	for _, n := range []int{0, 1, 3000, GroupRows + 5} {
		const first = 1 << 33
		ims := someImages(r, first, n)
		path := filepath.Join(t.TempDir(), "x")
		stats := writeImages(t, path, ImagesMeta{FirstRow: first, KV: map[string]string{"k": "v"}}, ims)
		checkStats(t, path, stats, n)
		read := func(from, to int64) (got []Image) {
			check(t, ReadImages(path, from, to, func(im Image) error {
				got = append(got, im)
				return nil
			}))
			return got
		}
		if got := read(0, math.MaxInt64); !slices.Equal(got, ims) {
			t.Fatalf("%d images: read %d others", n, len(got))
		}
		for range 2 {
			i := r.IntN(n + 1)
			j := i + r.IntN(n+1-i)
			if n > GroupRows {
				i = GroupRows - r.IntN(3)
			}
			if got := read(first+int64(i), first+int64(j)); !slices.Equal(got, ims[i:max(i, j)]) {
				t.Fatalf("images %d to %d: read %d others", i, j, len(got))
			}
		}
	}
}

func TestImagesRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if _, err := CreateImages(path, ImagesMeta{FirstRow: -1}); err == nil {
		t.Error("negative first row")
	}
	w, err := CreateImages(path, ImagesMeta{FirstRow: 7})
	check(t, err)
	defer w.Abort()
	if err := w.Write(Image{Row: 8}); err == nil || !strings.Contains(err.Error(), "row 8, want 7") {
		t.Errorf("a gap: %v", err)
	}
}

func TestQuarantineReadBack(t *testing.T) {
	r := newRand(2)
	noRows := someQuarantine(r, 100)
	for i := range noRows {
		noRows[i].Row = nil
	}
	for _, qs := range [][]Quarantine{nil, someQuarantine(r, 1), someQuarantine(r, 2500), noRows} {
		path := filepath.Join(t.TempDir(), "x")
		checkStats(t, path, writeQuarantine(t, path, QuarantineMeta{}, qs), len(qs))
		var got []Quarantine
		check(t, ReadQuarantine(path, func(q Quarantine) error {
			got = append(got, q)
			return nil
		}))
		if !reflect.DeepEqual(got, qs) {
			t.Fatalf("%d rows: read %d others", len(qs), len(got))
		}
	}
}

func TestLabelsReadBack(t *testing.T) {
	t.Parallel()
	r := newRand(3)
	plain := someLabels(r, 200, 10, true)
	for i := range plain {
		plain[i].Prob, plain[i].PrevLabel, plain[i].TopK = nil, nil, nil
	}
	for _, c := range []struct {
		rows []Label
		topK bool
	}{
		{nil, false}, {nil, true},
		{someLabels(r, 1, 10, false), false},
		{someLabels(r, 3000, 3000, true), true},
		{plain, false}, {plain, true},
		{severalGroups(someLabels(r, 500, 10, false)), false},
	} {
		path := filepath.Join(t.TempDir(), "x")
		stats := writeLabels(t, path, LabelsMeta{Head: 2, Clusters: 3000, TopK: c.topK, KV: map[string]string{"z": "1"}}, c.rows)
		checkStats(t, path, stats, len(c.rows))
		if got := readLabels(t, path); !reflect.DeepEqual(got, c.rows) {
			t.Fatalf("%d rows, top_k %t: read %d others", len(c.rows), c.topK, len(got))
		}
		kind, version, rows, kv, err := Inspect(path)
		check(t, err)
		if kind != KindLabels || version != Version || rows != int64(len(c.rows)) || kv["z"] != "1" || kv[keyHead] != "2" || kv[keyClusters] != "3000" {
			t.Errorf("inspect: %q, %d, %d, %v", kind, version, rows, kv)
		}
	}
}

// severalGroups repeats ls until they need a second row group.
func severalGroups(ls []Label) []Label {
	out := make([]Label, 0, GroupRows+100)
	for i := range cap(out) {
		l := ls[i%len(ls)]
		l.Row = int64(i)
		out = append(out, l)
	}
	return out
}

// A page's values may cross rows of a list, and a long text its page's size.
func TestLabelsLongValues(t *testing.T) {
	t.Parallel()
	r := newRand(4)
	ls := someLabels(r, 600, 500, false)
	for i := range ls {
		ls[i].Key = strings.Repeat(text(r), 40)
		for k := range 500 {
			ls[i].TopK = append(ls[i].TopK, TopK{int32(k), r.Float32()})
		}
	}
	path := filepath.Join(t.TempDir(), "x")
	writeLabels(t, path, LabelsMeta{Clusters: 500, TopK: true}, ls)
	if !reflect.DeepEqual(readLabels(t, path), ls) {
		t.Error("other rows")
	}
}

func TestLabelsRefuse(t *testing.T) {
	for want, l := range map[string]Label{
		"row 3 after row 3":     {Row: 3},
		"label 4 of 4 clusters": {Row: 4, Label: 4},
		"label -1":              {Row: 4, Label: -1},
	} {
		path := filepath.Join(t.TempDir(), "x")
		w, err := CreateLabels(path, LabelsMeta{Clusters: 4})
		check(t, err)
		check(t, w.Write(&Label{Row: 3}))
		if err := w.Write(&l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := w.Commit(); err == nil {
			t.Errorf("commit after %q", want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%q left a file", want)
		}
	}
	if _, err := CreateLabels(filepath.Join(t.TempDir(), "x"), LabelsMeta{}); err == nil {
		t.Error("no clusters")
	}
}

func TestPotentialsReadBack(t *testing.T) {
	v := []float64{0, math.Copysign(0, -1), math.Inf(-1), math.NaN(), 1e-308, -math.Pi}
	path := filepath.Join(t.TempDir(), "x")
	stats, err := WritePotentials(path, v, map[string]string{"certificate": "{}"})
	check(t, err)
	checkStats(t, path, stats, len(v))
	got, meta, err := ReadPotentials(path)
	check(t, err)
	if len(got) != len(v) || len(meta) != 1 || meta["certificate"] != "{}" {
		t.Fatalf("%v, %v", got, meta)
	}
	for k := range v {
		if math.Float64bits(got[k]) != math.Float64bits(v[k]) {
			t.Errorf("potential %d is %v, want %v", k, got[k], v[k])
		}
	}
	if _, err := WritePotentials(path, nil, nil); err == nil {
		t.Error("no potentials")
	}
}

// An error of the caller's function comes back as it is, and a panic of it is
// not taken for one of the Parquet library.
func TestCallersErrors(t *testing.T) {
	dir := t.TempDir()
	labels, images, quarantine := filepath.Join(dir, "l"), filepath.Join(dir, "i"), filepath.Join(dir, "q")
	writeLabels(t, labels, LabelsMeta{Clusters: 10}, someLabels(newRand(1), 5, 10, false))
	writeImages(t, images, ImagesMeta{}, someImages(newRand(1), 0, 5))
	writeQuarantine(t, quarantine, QuarantineMeta{}, someQuarantine(newRand(1), 5))
	for name, read := range map[string]func(func() error) error{
		"labels":     func(f func() error) error { return ReadLabels(labels, func(*Label) error { return f() }) },
		"images":     func(f func() error) error { return ReadImages(images, 0, 9, func(Image) error { return f() }) },
		"quarantine": func(f func() error) error { return ReadQuarantine(quarantine, func(Quarantine) error { return f() }) },
	} {
		calls := 0
		if err := read(func() error { calls++; return errStop }); err != errStop || calls != 1 {
			t.Errorf("%s: %v after %d calls", name, err, calls)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s swallowed a panic", name)
				}
			}()
			read(func() error { panic("mine") })
		}()
	}
}

// The commit of a row table fails when the other reader finds other rows.
func TestCrossCheck(t *testing.T) {
	for name, damage := range map[string]func(*tally){
		"rows": func(w *tally) { w.rows++ },
		"min":  func(w *tally) { w.min = "!" },
		"max":  func(w *tally) { w.max += "x" },
		"sum":  func(w *tally) { w.sum++ },
	} {
		r := newRand(7)
		dir := t.TempDir()
		iw, err := CreateImages(filepath.Join(dir, "i"), ImagesMeta{})
		check(t, err)
		for _, im := range someImages(r, 0, 30) {
			check(t, iw.Write(im))
		}
		damage(&iw.written)
		lw, err := CreateLabels(filepath.Join(dir, "l"), LabelsMeta{Clusters: 9})
		check(t, err)
		for _, l := range someLabels(r, 30, 9, false) {
			check(t, lw.Write(&l))
		}
		damage(&lw.written)
		for _, commit := range []func() (FileStats, error){iw.Commit, lw.Commit} {
			if _, err := commit(); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}

func TestReadersRefuseOtherTables(t *testing.T) {
	dir := t.TempDir()
	images, labels := filepath.Join(dir, "i"), filepath.Join(dir, "l")
	writeImages(t, images, ImagesMeta{}, nil)
	writeLabels(t, labels, LabelsMeta{Clusters: 1}, nil)
	_, _, potentialsErr := ReadPotentials(images)
	_, blocksErr := OpenBlocks(labels)
	for name, err := range map[string]error{
		"labels":     ReadLabels(images, nil),
		"images":     ReadImages(labels, 0, 1, nil),
		"quarantine": ReadQuarantine(images, nil),
		"potentials": potentialsErr,
		"blocks":     blocksErr,
	} {
		if !errors.Is(err, ErrKind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ReadLabels(filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// String columns promise UTF-8 to their readers.
func TestNotUTF8(t *testing.T) {
	const bad = "a\xffb"
	dir := t.TempDir()
	iw, err := CreateImages(filepath.Join(dir, "i"), ImagesMeta{})
	check(t, err)
	defer iw.Abort()
	lw, err := CreateLabels(filepath.Join(dir, "l"), LabelsMeta{Clusters: 1})
	check(t, err)
	defer lw.Abort()
	qw, err := CreateQuarantine(filepath.Join(dir, "q"), QuarantineMeta{})
	check(t, err)
	for name, err := range map[string]error{
		"image key": iw.Write(Image{Key: bad}), "image member": iw.Write(Image{Member: bad}),
		"label key": lw.Write(&Label{Key: bad}), "quarantine key": qw.Write(Quarantine{Key: bad}),
	} {
		if err == nil || !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, qw.Write(Quarantine{Key: "61ff62", KeyHex: true, Message: bad}))
	_, err = qw.Commit()
	check(t, err)
	check(t, ReadQuarantine(filepath.Join(dir, "q"), func(q Quarantine) error {
		if q.Message != "a\uFFFDb" || q.Key != "61ff62" {
			t.Errorf("read %+v", q)
		}
		return nil
	}))
}
