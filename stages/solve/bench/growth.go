//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

// growth solves with more and more rows, and with more and more clusters.
func (b *bench) growth(ctx context.Context) error {
	type size struct {
		rows     int64
		clusters int
	}
	series := []struct {
		title string
		sizes []size
	}{
		{"Growth with the number of rows N", []size{{50_000, 1000}, {100_000, 1000}, {200_000, 1000}, {400_000, 1000}, {800_000, 1000}}},
		{"Growth with the number of clusters K", []size{{200_000, 250}, {200_000, 500}, {200_000, 1000}, {200_000, 2000}, {200_000, 4000}}},
	}
	if b.quick {
		series[0].sizes = []size{{16_384, 200}, {32_768, 200}, {65_536, 200}}
		series[1].sizes = []size{{16_384, 100}, {16_384, 200}, {16_384, 400}}
	}
	for _, s := range series {
		t := &report.Table{Title: fmt.Sprintf("%s: lists to L1 %.0e, %d workers", s.title, sinkhorn.DefaultTol, b.workers),
			Columns: []string{"N", "K", "s", "ns per element", "full passes", "a full pass s", "ns per element", "peak RSS GiB"}}
		t.Note("Each row is a process of its own over shards in the page cache: the best of %d. An element is one of N·K log-probabilities.", b.repeat)
		for _, at := range s.sizes {
			if err := b.grow(ctx, t, b.rows(at.rows), at.clusters); err != nil {
				return fmt.Errorf("%d × %d: %w", at.rows, at.clusters, err)
			}
		}
		if err := b.report(t); err != nil {
			return err
		}
		if !b.full() {
			continue
		}
		b.figures = append(b.figures, spread(t, s.title+": full pass per element, largest / smallest", 6, 1.5), spread(t, s.title+": peak RSS, largest / smallest", 7, 2))
	}
	return nil
}

// spread is how much a column differs between rows.
func spread(t *report.Table, name string, column int, bound float64) report.Figure {
	low, high := t.Rows[0][column].(float64), 0.0
	for _, row := range t.Rows {
		x := row[column].(float64)
		low, high = min(low, x), max(high, x)
	}
	return report.AtMost(name, high/low, bound, "")
}

func (b *bench) grow(ctx context.Context, t *report.Table, rows int64, clusters int) (err error) {
	sets, err := b.make(ctx, "B", rows, clusters, float32Form)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(sets)) }()
	paths, err := sets[0].everything(ctx)
	if err != nil {
		return err
	}
	if err := warm(ctx, paths, b.workers); err != nil {
		return err
	}
	var best *outcome
	pass, rss := 0.0, int64(0)
	for range b.repeat {
		// The second solve of the process finds its shards checked.
		out, err := request{Dataset: *sets[0], Method: lists, Workers: b.workers, Sampled: true, Repeat: 2}.inChild(ctx)
		if err != nil {
			return err
		}
		if best == nil || out[1].Seconds < best.Seconds {
			best = &out[1]
		}
		if took := out[1].passSeconds(); pass == 0 || took < pass {
			pass = took
		}
		rss = max(rss, out[1].PeakRSS)
	}
	elements := float64(rows) * float64(clusters)
	t.Add(rows, clusters, best.Seconds, 1e9*best.Seconds/elements, best.Passes, pass, 1e9*pass/elements, gib(rss))
	return nil
}

// passSeconds is what one full pass took on average.
func (o *outcome) passSeconds() (s float64) {
	for _, step := range o.Steps {
		if step.Name == firstStep || step.Name == furtherStep {
			s += step.Seconds
		}
	}
	return s / float64(o.Passes)
}
