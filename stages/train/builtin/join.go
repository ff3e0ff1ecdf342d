package builtin

import (
	"context"
	"errors"
	"fmt"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
	"sela/stages/list"
)

// Listing calls fn for each image of a listing, in order of (key, offset). An
// error of fn ends it and is returned as it is.
type Listing func(ctx context.Context, fn func(schemas.Image) error) error

// RunListing is the listing of a run in a work bucket.
func RunListing(l *list.Listing) Listing {
	return func(ctx context.Context, fn func(schemas.Image) error) error { return l.Read(ctx, 0, l.Images, fn) }
}

// ScanListing lists a bucket anew, as a job does whose images it has. The job's
// limit does not apply: images that came later might push labelled ones over it.
func ScanListing(images *bucket.Bucket, spec pipeline.Images) Listing {
	o := list.Options{Prefix: spec.Prefix, Glob: spec.Glob, Sample: spec.Sample, Extensions: imageio.Extensions}
	return func(ctx context.Context, fn func(schemas.Image) error) error {
		_, err := list.Scan(ctx, images, o, fn, func(schemas.Quarantine) error { return nil })
		return err
	}
}

// errLocated ends a listing when every labelled image is found.
var errLocated = errors.New("all images are located")

// join locates every image in the listing, by key and member. Both are in order
// of their keys; within a tar the order may have changed.
func (l *Labels) join(ctx context.Context, listing Listing) error {
	j := &joiner{Labels: l, left: len(l.rows)}
	err := listing(ctx, j.add)
	if err != nil && !errors.Is(err, errLocated) {
		return fmt.Errorf("find the labelled images: %w", err)
	}
	j.leave()
	return j.err()
}

// joiner walks along the labels as a listing goes by.
type joiner struct {
	*Labels
	from, to int            // the images of the key at hand
	next     int            // of them, the one after the last that was located
	members  map[string]int // of them, by member; made where the order differs
	left     int            // images not located

	missing int // images that the listing lacks
	doubled int // images that the labels have twice
	first   int // of the missing, or else of the doubled
}

func (j *joiner) add(img schemas.Image) error {
	if j.from == j.to || !j.hasKey(j.from, img.Key) {
		j.leave()
		for j.from < len(j.rows) && j.keyBefore(j.from, img.Key) {
			j.enter()
			j.leave()
		}
		if j.from == len(j.rows) || !j.hasKey(j.from, img.Key) {
			return nil // an image without a label
		}
		j.enter()
	}
	i, ok := j.find(img.Member)
	if !ok || j.rows[i].size != 0 {
		return nil
	}
	j.locate(i, img)
	if !j.checked { // targets have the listing's row numbers
		j.rows[i].number = img.Row
	}
	j.next = i + 1
	if j.left--; j.left == 0 {
		return errLocated
	}
	return nil
}

// find returns the image of the key at hand that has the name.
func (j *joiner) find(member string) (int, bool) {
	if j.next < j.to && j.isMember(j.next, member) {
		return j.next, true
	}
	if j.members == nil {
		j.members = make(map[string]int, j.to-j.from)
		for i := j.from; i < j.to; i++ {
			j.members[j.Image(i).Member] = i
		}
	}
	i, ok := j.members[member]
	return i, ok
}

// enter begins with the images of the next key.
func (j *joiner) enter() {
	key := j.Image(j.from).Key
	for j.to = j.from; j.to < len(j.rows) && j.hasKey(j.to, key); j.to++ {
	}
	j.next, j.members = j.from, nil
}

// leave ends with the images of a key, and looks whether all were located.
func (j *joiner) leave() {
	var times map[string]int // how often the key's members stand in the labels
	for i := j.from; i < j.to; i++ {
		if j.rows[i].size != 0 {
			continue
		}
		if times == nil {
			times = make(map[string]int, j.to-j.from)
			for i := j.from; i < j.to; i++ {
				times[j.Image(i).Member]++
			}
		}
		if times[j.Image(i).Member] > 1 {
			if j.doubled++; j.doubled == 1 && j.missing == 0 {
				j.first = i
			}
		} else if j.missing++; j.missing == 1 {
			j.first = i
		}
	}
	j.from = j.to
}

// err says what is wrong, once the listing is at its end.
func (j *joiner) err() error {
	for j.from < len(j.rows) {
		j.enter()
		j.leave()
	}
	img := j.Image(j.first)
	switch {
	case j.missing > 0:
		return pipeline.BadData(fmt.Errorf("%d of %d labelled images are not in the listing, the first is row %d, %q %q: they were deleted, moved or renamed, or this is another bucket: give the bucket as it was labelled, or label it anew",
			j.missing, len(j.rows), img.Row, img.Key, img.Member))
	case j.doubled > 0:
		return pipeline.BadData(fmt.Errorf("%d images have two rows in the label table, the first is row %d, %q %q: verify the data set, or label anew",
			j.doubled, img.Row, img.Key, img.Member))
	}
	return nil
}
