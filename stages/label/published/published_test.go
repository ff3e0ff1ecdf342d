package published

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sela/pipeline"
	"sela/schemas"
)

type image struct{ key, member string }

// drawImages draws loose files and tars from a small name space, in the order
// of a listing: by key, and within a tar by where the member lies.
func drawImages(r *rand.Rand, keys int) []image {
	names := map[string]bool{}
	for range r.IntN(keys + 1) {
		names[fmt.Sprintf("k%02d", r.IntN(keys))] = true
	}
	var all []image
	for _, key := range slices.Sorted(maps.Keys(names)) {
		if key[2]%3 != 0 {
			all = append(all, image{key, ""})
			continue
		}
		for _, m := range r.Perm(12)[:1+r.IntN(12)] {
			all = append(all, image{key + ".tar", fmt.Sprintf("m%d", m)})
		}
	}
	slices.SortStableFunc(all, func(a, b image) int { return strings.Compare(a.key, b.key) })
	return all
}

// parts cuts rows into files at random, none of them empty, and returns the
// reader of such files and which of them were read.
func parts(r *rand.Rand, rows []schemas.Label) (n int, read func(int, func(*schemas.Label) error) error, opened *[]int) {
	var files [][]schemas.Label
	for len(rows) > 0 {
		cut := 1 + r.IntN(len(rows))
		files, rows = append(files, rows[:cut]), rows[cut:]
	}
	opened = new([]int)
	return len(files), func(i int, fn func(*schemas.Label) error) error {
		*opened = append(*opened, i)
		for _, l := range files[i] {
			if err := fn(&l); err != nil {
				return err
			}
		}
		return nil
	}, opened
}

// TestLabelsAreAMapJoin compares the merge with the join that holds all the
// earlier labels in a map, from every row that a part may begin with.
func TestLabelsAreAMapJoin(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 0))
		earlier, now := drawImages(r, 40), drawImages(r, 40)
		if seed%3 == 0 { // the same tars, but for some members
			now = slices.DeleteFunc(slices.Clone(earlier), func(image) bool { return r.IntN(8) == 0 })
		}
		want := map[image]int32{}
		var rows []schemas.Label
		for i, img := range earlier {
			want[img] = int32(r.IntN(100))
			rows = append(rows, schemas.Label{Row: int64(i), Key: img.key, Member: img.member, Label: want[img]})
		}
		n, read, _ := parts(r, rows)
		for _, from := range []int{0, r.IntN(len(now) + 1), r.IntN(len(now) + 1)} {
			p := newLabels(n, read)
			for _, img := range now[from:] {
				label, ok, err := p.Of(img.key, img.member)
				if err != nil {
					t.Fatal(err)
				}
				if w, had := want[img]; had != ok || label != w {
					t.Fatalf("seed %d, from %d: %v has %d, %t; a map says %d, %t", seed, from, img, label, ok, w, had)
				}
				if k := p.current; k != nil && slices.ContainsFunc(k.members, func(m string) bool { _, had := want[image{k.key, m}]; return !had }) {
					t.Fatalf("seed %d: %+v holds members of another key", seed, k)
				}
			}
			p.Close()
			p.Close()
		}
	}
}

// TestLabelsSkipFiles finds the beginning of a part by bisection.
func TestLabelsSkipFiles(t *testing.T) {
	const files = 100
	var opened []int
	read := func(i int, fn func(*schemas.Label) error) error {
		opened = append(opened, i)
		return fn(&schemas.Label{Key: fmt.Sprintf("k%03d", i), Label: int32(i)})
	}
	p := newLabels(files, read)
	defer p.Close()
	label, ok, err := p.Of("k090", "")
	if label != 90 || !ok || err != nil {
		t.Errorf("%d, %t, %v", label, ok, err)
	}
	if len(opened) > 10 {
		t.Errorf("opened %v", opened)
	}
}

func TestLabelsFail(t *testing.T) {
	damaged := errors.New("damaged")
	for name, read := range map[string]func(int, func(*schemas.Label) error) error{
		"at once": func(int, func(*schemas.Label) error) error { return damaged },
		"second": func(i int, fn func(*schemas.Label) error) error {
			return []error{fn(&schemas.Label{Key: "a"}), damaged}[i]
		},
		"disorder": func(i int, fn func(*schemas.Label) error) error { return fn(&schemas.Label{Key: "ba"[i : i+1]}) },
	} {
		p := newLabels(2, read)
		_, _, err := p.Of("a", "")
		if name == "disorder" && pipeline.ClassOf(err) != pipeline.Data || name != "disorder" && !errors.Is(err, damaged) {
			t.Errorf("%s: %v", name, err)
		}
		p.Close()
	}
	none := newLabels(0, nil)
	if _, ok, err := none.Of("a", ""); ok || err != nil {
		t.Errorf("no files: %t, %v", ok, err)
	}
}

// TestLabelsAllocateNothing holds for loose files and for tars that are as
// they were.
func TestLabelsAllocateNothing(t *testing.T) {
	const tars, members = 50, 20
	var names []image
	for i := range tars {
		names = append(names, image{fmt.Sprintf("k%03d", i), ""})
		for m := range members {
			names = append(names, image{fmt.Sprintf("k%03d.tar", i), fmt.Sprintf("m%02d", m)})
		}
	}
	walk := func(images []image) float64 {
		var l schemas.Label
		read := func(_ int, fn func(*schemas.Label) error) error {
			for i, img := range images {
				l = schemas.Label{Key: img.key, Member: img.member, Label: int32(i)}
				if err := fn(&l); err != nil {
					return err
				}
			}
			return nil
		}
		return testing.AllocsPerRun(3, func() {
			p := newLabels(1, read)
			defer p.Close()
			for i, img := range images {
				if label, ok, err := p.Of(img.key, img.member); label != int32(i) || !ok || err != nil {
					t.Fatalf("%v: %d, %t, %v", img, label, ok, err)
				}
			}
		})
	}
	// What a walk allocates once must be the same for ten times the rows.
	if few, many := walk(names[:len(names)/10]), walk(names); many > few {
		t.Errorf("%v allocations for %d rows, %v for %d", many, len(names), few, len(names)/10)
	}
}

func BenchmarkLabels(b *testing.B) {
	const rows = 1 << 16
	names := make([]string, rows)
	for i := range names {
		names[i] = fmt.Sprintf("train/n%08d/n%08d_%d.JPEG", i/1300, i/1300, 1_000_000+i)
	}
	var l schemas.Label
	read := func(_ int, fn func(*schemas.Label) error) error {
		for _, name := range names {
			l.Key = name
			if err := fn(&l); err != nil {
				return err
			}
		}
		return nil
	}
	b.ReportAllocs()
	for b.Loop() {
		p := newLabels(1, read)
		for _, name := range names {
			if _, ok, err := p.Of(name, ""); !ok || err != nil {
				b.Fatal(name, err)
			}
		}
		p.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
}
