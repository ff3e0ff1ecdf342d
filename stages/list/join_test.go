package list

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"sela/schemas"
)

func images(all []schemas.Image, end error) iter.Seq2[schemas.Image, error] {
	return func(yield func(schemas.Image, error) bool) {
		for _, img := range all {
			if !yield(img, nil) {
				return
			}
		}
		if end != nil {
			yield(schemas.Image{}, end)
		}
	}
}

// numbered returns images in the listing's order, rows dense from 0.
func numbered(all []schemas.Image) []schemas.Image {
	all = slices.Clone(all)
	slices.SortFunc(all, order)
	for i := range all {
		all[i].Row = int64(i)
	}
	return all
}

// TestJoinFindsWhatDidNotChange edits random listings and compares the join with
// a look-up of whole images.
func TestJoinFindsWhatDidNotChange(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var before, now []schemas.Image
		for i := range rng.IntN(60) {
			tagged := fmt.Sprintf("e%d", rng.IntN(3))
			if rng.IntN(10) == 0 {
				tagged = ""
			}
			img := schemas.Image{Key: fmt.Sprintf("k%d.tar", i/4), Member: fmt.Sprintf("m%d", i), Size: int64(rng.IntN(9)), Offset: int64(i%4) * 512, ETag: tagged}
			switch rng.IntN(8) {
			case 0: // added
				now = append(now, img)
				continue
			case 1: // deleted
				before = append(before, img)
				continue
			}
			before = append(before, img)
			switch rng.IntN(8) {
			case 0:
				img.Size++
			case 1:
				img.ETag += "x"
			case 2:
				img.Member += "x"
			case 3:
				img.Offset += 2048
			}
			now = append(now, img)
		}
		before, now = numbered(before), numbered(now)
		rows := map[schemas.Image]int64{}
		for _, img := range before {
			row := img.Row
			img.Row = 0
			if img.ETag != "" {
				rows[img] = row
			}
		}
		var got, want []int64
		for _, img := range now {
			img.Row = 0
			row, found := rows[img]
			if !found {
				row = NoRow
			}
			want = append(want, row)
		}
		next := int64(0)
		err := merge(images(now, nil), images(before, nil), func(img schemas.Image, row int64) error {
			if img.Row != next {
				t.Fatalf("seed %d: row %d where %d should be", seed, img.Row, next)
			}
			next++
			got = append(got, row)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %v, %v\nwant %v", seed, got, err, want)
		}
	}
}

func TestJoinFails(t *testing.T) {
	bad := errors.New("damaged")
	one := []schemas.Image{{Key: "a", ETag: "e"}}
	two := []schemas.Image{{Key: "a", ETag: "e"}, {Row: 1, Key: "b", ETag: "e"}}
	pass := func(schemas.Image, int64) error { return nil }
	for name, c := range map[string]struct {
		now, before iter.Seq2[schemas.Image, error]
		fn          func(schemas.Image, int64) error
	}{
		"new listing":     {images(one, bad), images(two, nil), pass},
		"earlier listing": {images(two, nil), images(one, bad), pass},
		"caller":          {images(one, nil), images(one, nil), func(schemas.Image, int64) error { return bad }},
	} {
		if err := merge(c.now, c.before, c.fn); !errors.Is(err, bad) {
			t.Errorf("%s: %v, want %v", name, err, bad)
		}
	}
}
