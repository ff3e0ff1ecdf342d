//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/jpeg"
	"math"
	"slices"
	"time"

	"sela/stages/internal/report"
)

// bounds reports each step of ours next to what bounds it on this core.
func (b *bench) bounds(ctx context.Context, w *workload, ours *trial) error {
	machine, err := ours.ask(map[string]any{"do": "machine"})
	if err != nil {
		return err
	}
	t := &report.Table{Title: "Steps of ours and what bounds them on this core", Columns: []string{"step", "ms", "rate", "bound", "share of it"}}
	share := func(step string, seconds, amount, bound, unit float64, name, what string) {
		at := any(nil)
		if bound > 0 {
			what = report.Number(bound/unit) + " " + name + ": " + what
			at = fmt.Sprintf("%.0f %%", 100*amount/seconds/bound)
		}
		t.Add(step, 1e3*seconds, report.Number(amount/seconds/unit)+" "+name, what, at)
	}
	encoded, products := 0.0, 0.0
	for _, data := range w.files {
		encoded += float64(len(data)) / float64(len(w.files))
		c, _, err := image.DecodeConfig(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("size of a photograph: %w", err)
		}
		products += resizeProducts(c.Width, c.Height, w.shorter, w.crop) / float64(len(w.files))
	}
	floor, who, err := b.entropyFloor(ctx, w)
	if err != nil {
		return err
	}
	bound := 0.0
	if floor > 0 {
		bound = encoded / floor
	}
	share("decode", slices.Min(ours.step(decodeStep)), encoded, bound, 1e6, "MB/s of file", "entropy decoding, which a decode at ⅛ of the size still does in full"+who)
	share("resize + crop", slices.Min(ours.step(resizeStep)), products, machine.Multiply/2, 1e9, "G products/s",
		"half the 16-bit multiply-adds that AVX2 does here, since a 22-bit coefficient takes two")
	pixels := float64(3 * w.crop * w.crop)
	share("normalise", slices.Min(ours.step(normaliseStep)), pixels*(1+4), machine.Copy, 1e9, "GB/s", "copying as many bytes to and from the cache")
	t.Note("Best of the rounds. A product is a sample times a coefficient; the two passes over the kept window take %s million per photograph. A byte read and a byte written count one each.", report.Number(products/1e6))
	return b.report(t)
}

// entropyFloor returns the seconds per image of decoding at an eighth of the
// size, and by whom, or 0 if nobody here can.
func (b *bench) entropyFloor(ctx context.Context, w *workload) (float64, string, error) {
	c := b.find("ours, scaled")
	if c == nil {
		c = b.find("Pillow, draft mode")
	}
	if c == nil {
		return 0, "; nobody here can, so it is not measured", nil
	}
	eighth := *w
	eighth.shorter, eighth.crop = 16, 16
	trials, _, err := b.compare(ctx, &eighth, []*candidate{c})
	if err != nil {
		return 0, "", err
	}
	return slices.Min(trials[0].seconds()), " (" + c.name + ")", nil
}

// resizeProducts is how many products of a sample and a coefficient a bilinear
// resize and crop takes in two passes, columns first. A filter reaches one
// sample to each side of an output's centre, scale times that when it reduces.
func resizeProducts(width, height, shorter, crop int) float64 {
	scale := float64(min(width, height)) / float64(shorter)
	taps := 2 * max(scale, 1)
	kept := float64(crop)
	rows := math.Min(float64(height), kept*scale+taps)
	return 3 * taps * (rows*kept + kept*kept)
}

// copyRate returns the bytes per second, read and written, of copying as much
// as normalising an image of 224 × 224 moves.
func copyRate() float64 {
	const size = 3 * 224 * 224 * (1 + 4) / 2
	from, to := make([]byte, size), make([]byte, size)
	return bestRate(2*size, func() { copy(to, from) })
}

// bestRate is the best of many times f, which does amount.
func bestRate(amount float64, f func()) float64 {
	best := math.Inf(1)
	for range 200 {
		start := time.Now()
		f()
		best = min(best, time.Since(start).Seconds())
	}
	return amount / best
}
