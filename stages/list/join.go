package list

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"

	"sela/schemas"
)

// NoRow stands for the row of an image that the earlier listing does not have.
const NoRow = -1

// Join finds the images of a listing in an earlier one. It is safe for
// concurrent use.
type Join struct {
	now, before *Listing
	part        int64
	starts      []int64 // rows of before at which the parts of now begin
}

// NewJoin joins two listings in parts of so many rows of the first. It reads both
// once, side by side, and holds one number for each part.
func NewJoin(ctx context.Context, now, before *Listing, part int64) (*Join, error) {
	j := &Join{now: now, before: before, part: part}
	old, next := int64(0), schemas.Image{}
	earlier, stop := iter.Pull2(before.rows(ctx, 0, before.Images))
	defer stop()
	next, err, more := earlier()
	for img, failed := range now.rows(ctx, 0, now.Images) {
		if failed != nil {
			return nil, failed
		}
		if img.Row%part != 0 {
			continue
		}
		for more && err == nil && order(next, img) < 0 {
			next, err, more = earlier()
			old++
		}
		if err != nil {
			return nil, err
		}
		j.starts = append(j.starts, old)
	}
	return j, nil
}

// Read calls fn for every image of the i-th part, in row order, with the row of
// the same image in the earlier listing, or [NoRow] for an image that is new or
// has changed. Two images are the same if key, member, offset, size and tag are.
// A store that gives no tag cannot tell that an object was replaced: its images
// are never the same. Rows of the earlier listing increase.
//
// As in [Listing.Read], the image's strings share memory. An error of fn ends the
// reading and is returned as it is.
func (j *Join) Read(ctx context.Context, i int, fn func(img schemas.Image, row int64) error) error {
	from := int64(i) * j.part
	return merge(j.now.rows(ctx, from, min(from+j.part, j.now.Images)), j.before.rows(ctx, j.starts[i], j.before.Images), fn)
}

var errEnough = errors.New("no more images are wanted")

// rows are the images with row numbers in [from, to). An error is the last pair.
func (l *Listing) rows(ctx context.Context, from, to int64) iter.Seq2[schemas.Image, error] {
	return func(yield func(schemas.Image, error) bool) {
		err := l.Read(ctx, from, to, func(img schemas.Image) error {
			if !yield(img, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(schemas.Image{}, err)
		}
	}
}

// merge joins two listings that are in order of (Key, Offset). Images out of
// order could at worst be missed, never be taken for another.
func merge(now, before iter.Seq2[schemas.Image, error], fn func(schemas.Image, int64) error) error {
	next, stop := iter.Pull2(before)
	defer stop()
	old, err, more := next()
	for img, failed := range now {
		if failed != nil {
			return failed
		}
		for more && err == nil && order(old, img) < 0 {
			old, err, more = next()
		}
		if err != nil {
			return err
		}
		row := int64(NoRow)
		if more && same(old, img) {
			row = old.Row
		}
		if err := fn(img, row); err != nil {
			return err
		}
	}
	return nil
}

// order compares where two images are.
func order(a, b schemas.Image) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(a.Offset, b.Offset))
}

func same(a, b schemas.Image) bool {
	return a.ETag != "" && a.ETag == b.ETag && a.Key == b.Key && a.Member == b.Member && a.Offset == b.Offset && a.Size == b.Size
}
