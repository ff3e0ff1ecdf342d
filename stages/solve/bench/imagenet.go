//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

// imagenet solves one head of ImageNet's size in a process of its own, from a
// cold and from a warm page cache.
func (b *bench) imagenet(ctx context.Context) (err error) {
	rows, clusters := b.rows(1_281_167), 3000
	if b.quick {
		rows, clusters = 65_536, 1000
	}
	sets, err := b.make(ctx, "B", rows, clusters, float32Form, uint16Form)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(sets)) }()
	t := &report.Table{
		Title:   fmt.Sprintf("ImageNet size: %d × %d, λ = %v, to L1 %.0e, %d workers", rows, clusters, sinkhorn.DefaultLambda, sinkhorn.DefaultTol, b.workers),
		Columns: []string{"form", "GB", "page cache", "s", "CPU s", "peak RSS GiB", "full passes", "list steps", "L1", "proof", "disk GB/s", "s / reading once"},
	}
	exact := &report.Table{Title: "The same with exactly balanced labels", Columns: []string{"form", "page cache", "s in all", "CPU s in all", "s of balancing", "full passes", "rows moved", "gap to dual bound, nats of log p", "smallest cluster", "largest", "peak RSS GiB"}}
	parts := &report.Table{Title: "The same by step", Columns: []string{"form", "page cache", "step", "s", "CPU s", "share of s"}}
	t.Note("Each row but ‘again’ is a process of its own, from its start to the certified potentials, and checks the sha256 of every shard it opens. ‘again’ solves once more in the process of the row above, which has done that; its peak RSS includes balancing.")
	parts.Note("lists: the solve on lists, and the certificate where a bound proves it. CPU seconds are those of all threads.")
	t.Note("disk: the same files read by pread in pieces of 1 MiB by as many workers, just before; cold means dropped from the page cache, and looked up with mincore.")
	var failed []error
	for _, d := range sets {
		if err := b.imagenetForm(ctx, t, exact, parts, d, sets); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", d.Form, err))
		}
	}
	return errors.Join(append(failed, b.report(t), b.report(exact), b.report(parts))...)
}

// imagenetForm adds a form's rows. all are the datasets on disk: those not in
// use must not take the page cache.
func (b *bench) imagenetForm(ctx context.Context, t, exact, parts *report.Table, d *dataset, all []*dataset) error {
	for _, other := range all {
		paths, err := other.everything(ctx)
		if err == nil {
			err = evict(paths)
		}
		if err != nil {
			return err
		}
	}
	paths, err := d.everything(ctx)
	if err != nil {
		return err
	}
	for _, cache := range []string{"cold", "warm"} {
		say("%s, page cache %s", d.Form, cache)
		r := request{Dataset: *d, Method: lists, Workers: b.workers, Sampled: true, Balanced: true, Repeat: 1}
		disk, err := pread(ctx, paths, 1<<20, b.workers)
		if err != nil {
			return err
		}
		if cache == "cold" {
			err = evict(paths)
		} else {
			r.Repeat = 2
			err = warm(ctx, paths, b.workers)
			if err == nil {
				disk, err = pread(ctx, paths, 1<<20, b.workers)
			}
		}
		if err != nil {
			return err
		}
		outcomes, err := r.inChild(ctx)
		if err != nil {
			return err
		}
		for i, o := range outcomes {
			name := cache
			if i > 0 {
				name = cache + ", again"
			}
			t.Add(d.Form, float64(disk.bytes)/1e9, name, o.Seconds, o.CPU, gib(o.PeakRSS), o.Passes, o.Certificate.ListSteps, o.L1, string(o.Certificate.Proof), disk.rate(), o.Seconds/disk.took.Seconds())
			if e := o.Balanced; e != nil {
				exact.Add(d.Form, name, o.Seconds+e.Step.Seconds, o.CPU+e.Step.CPU, e.Step.Seconds, o.Passes+e.Passes, e.Moved, e.Gap, e.Smallest, e.Largest, gib(e.PeakRSS))
				if i == 0 && b.full() {
					b.figures = append(b.figures, report.AtMost(fmt.Sprintf("%d × %d, %s, cache %s, exactly balanced", d.Rows, d.Clusters, d.Form, name), o.Seconds+e.Step.Seconds, 60, " s"),
						report.AtMost(fmt.Sprintf("peak RSS, %s, cache %s, exactly balanced", d.Form, name), gib(e.PeakRSS), 1.5, " GiB"))
				}
			}
			for _, s := range o.Steps {
				parts.Add(d.Form, name, s.Name, s.Seconds, s.CPU, fmt.Sprintf("%.0f %%", 100*s.Seconds/o.Seconds))
			}
			if i == 0 && b.full() {
				b.figures = append(b.figures, report.AtMost(fmt.Sprintf("%d × %d, %s, cache %s", d.Rows, d.Clusters, d.Form, cache), o.Seconds, 30, " s"),
					report.AtMost(fmt.Sprintf("peak RSS, %s, cache %s", d.Form, cache), gib(o.PeakRSS), 1.5, " GiB"))
			}
		}
	}
	return nil
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }
