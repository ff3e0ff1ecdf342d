//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sela/stages/internal/imageio"
	"sela/stages/internal/report"
)

// The real images, below the folder of data.
const (
	imagenetTar = "imagenet-samples/imagenet-samples-00000.tar"
	cifarTar    = "cifar10/cifar10-test-00000.tar"
)

// imagenet is the usual way to a network of 224 × 224.
func (b *bench) imagenet(ctx context.Context) error {
	files, what, err := b.pictures(imagenetTar, b.images, 500, 375)
	if err != nil {
		return err
	}
	w := &workload{name: "imagenet", files: files, shorter: 256, crop: 224, filter: imageio.Bilinear}
	title := fmt.Sprintf("%d photographs (%s): decode, Resize(256), CenterCrop(224), normalise to float32 NCHW", len(files), what)
	trials, err := b.whole(ctx, title, w)
	if err != nil {
		return err
	}
	ours, pillow := trials[0], named(trials, reference)
	if pillow != nil && !b.quick {
		b.figures = append(b.figures, report.AtLeast("ahead of Pillow on photographs, exact", ratios(pillow.seconds(), ours.seconds()).Median, 1.5, " ×"))
	}
	if pillow != nil {
		b.figures = append(b.figures, report.AtMost("largest difference from Pillow's pixels", float64(ours.exact.max), 0, " levels"))
	}
	b.figures = append(b.figures, report.AtMost("objects allocated per photograph", ours.last().objects, 0.01, ""))
	return b.bounds(ctx, w, ours)
}

// cifar is images so small that only overheads are left.
func (b *bench) cifar(ctx context.Context) error {
	files, what, err := b.pictures(cifarTar, 4*b.images, 32, 32)
	if err != nil {
		return err
	}
	_, err = b.whole(ctx, fmt.Sprintf("%d images of 32 × 32 (%s): decode, normalise to float32 NCHW", len(files), what),
		&workload{name: "cifar", files: files, crop: 32, filter: imageio.Bilinear})
	return err
}

// large is photographs of a camera's size.
func (b *bench) large(ctx context.Context) error {
	files, what, err := b.pictures(imagenetTar, b.images, 500, 375)
	if err != nil {
		return err
	}
	if files, err = enlarged(files, max(2, b.images/20)); err != nil {
		return err
	}
	_, err = b.whole(ctx, fmt.Sprintf("%d photographs of 2000 × 1500, enlarged (%s): decode, Resize(256), CenterCrop(224), normalise to float32 NCHW", len(files), what),
		&workload{name: "large", files: files, shorter: 256, crop: 224, filter: imageio.Bilinear})
	return err
}

// whole compares all candidates and reports the whole and each step.
func (b *bench) whole(ctx context.Context, title string, w *workload) ([]*trial, error) {
	trials, notes, err := b.compare(ctx, w, b.candidates)
	if err != nil {
		return nil, err
	}
	t := &report.Table{Title: title, Columns: []string{"", "images/s best", "median", "/ Pillow", "decode ms", "resize + crop ms", "normalise ms",
		"max", "mean", "equal", "KB allocated / image", "objects / image"}, Notes: notes}
	pillow := named(trials, reference)
	for _, c := range trials {
		s := c.seconds()
		ahead := any(nil)
		if pillow != nil {
			ahead = ratios(pillow.seconds(), s)
		}
		row := []any{c.name, 1 / slices.Min(s), 1 / median(s), ahead,
			milliseconds(c.step(decodeStep)), milliseconds(c.step(resizeStep)), milliseconds(c.step(normaliseStep))}
		row = append(row, c.exact.cells()...)
		if c.ours {
			row = append(row, c.last().bytes/1e3, c.last().objects)
		}
		t.Add(row...)
	}
	size := 0
	for _, data := range w.files {
		size += len(data)
	}
	t.Note("%.1f KB per file. The core was shared: ours took %s times its processor time on the clock.", float64(size)/float64(len(w.files))/1e3,
		report.Number(median(trials[0].series(func(m measure) float64 { return m.wall / m.seconds }))))
	return trials, b.report(t)
}

// filters compares the resize alone, from files that all decode alike.
func (b *bench) filters(ctx context.Context) error {
	files, what, err := b.pictures(imagenetTar, b.images, 500, 375)
	if err != nil {
		return err
	}
	if files, err = asBMP(spread(files, max(4, b.images/8))); err != nil {
		return err
	}
	var candidates []*candidate
	for _, c := range b.candidates {
		if c.filters {
			candidates = append(candidates, c)
		}
	}
	t := &report.Table{Title: fmt.Sprintf("Resize(256) and CenterCrop(224) by filter, %d photographs (%s) stored as BMP", len(files), what),
		Columns: []string{"filter", "", "resize + crop ms", "/ Pillow", "max", "mean", "equal"}}
	w := &workload{name: "filters", files: files, shorter: 256, crop: 224}
	for _, f := range []imageio.Filter{imageio.Bilinear, imageio.Bicubic, imageio.Box, imageio.Lanczos, imageio.Nearest} {
		w.filter = f
		trials, notes, err := b.compare(ctx, w, candidates)
		if err != nil {
			return errors.Join(err, b.report(t))
		}
		t.Notes = append(t.Notes, notes...)
		pillow := named(trials, reference)
		for _, c := range trials {
			ahead := any(nil)
			if pillow != nil {
				ahead = ratios(pillow.step(resizeStep), c.step(resizeStep))
			}
			t.Add(append([]any{string(f), c.name, milliseconds(c.step(resizeStep)), ahead}, c.exact.cells()...)...)
		}
	}
	return b.report(t)
}

// named returns the trial of the candidate of that name, or nil.
func named(trials []*trial, name string) *trial {
	for _, t := range trials {
		if t.name == name {
			return t
		}
	}
	return nil
}
