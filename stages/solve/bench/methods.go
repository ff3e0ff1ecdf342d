//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sela/sinkhorn"
	"sela/stages/internal/report"
)

const (
	lists    = string(sinkhorn.MethodLists)
	lbfgs    = string(sinkhorn.MethodLBFGS)
	scalings = string(sinkhorn.MethodSinkhorn)
)

// methods compares passes and seconds of the methods on the families.
func (b *bench) methods(ctx context.Context) error {
	rows := map[int]int64{300: 128_000, 3000: 255_000, 8000: 120_000}
	if b.quick {
		rows = map[int]int64{100: 16_384, 300: 32_768}
	}
	sizes := slices.Sorted(maps.Keys(rows))
	c := b.newComparison(fmt.Sprintf("Passes and seconds to a marginal error (L1) of %.0e, %d workers", sinkhorn.DefaultTol, b.workers))
	var failed []error
	for _, clusters := range sizes {
		for _, name := range strings.Split(b.families, ",") {
			if b.clusters != 0 && b.clusters != clusters || ctx.Err() != nil {
				continue
			}
			if err := b.compareFamily(ctx, c, name, b.rows(rows[clusters]), clusters); err != nil {
				failed = append(failed, fmt.Errorf("family %s with %d clusters: %w", name, clusters, err))
			}
		}
	}
	return errors.Join(append(failed, b.report(c.table))...)
}

func (b *bench) compareFamily(ctx context.Context, c *comparison, name string, rows int64, clusters int) (err error) {
	sets, err := b.make(ctx, name, rows, clusters, float32Form)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(sets)) }()
	cold, again, err := c.compare(ctx, sets[0], name, "")
	if err != nil {
		return err
	}
	label := fmt.Sprintf("full passes, %s, K = %d", name, clusters)
	if name == "flat" {
		b.figures = append(b.figures, passesFigure(label+", cold", cold, 20))
		return nil
	}
	b.figures = append(b.figures, passesFigure(label+", cold", cold, 3), passesFigure(label+", again", again, 2))
	return nil
}

func passesFigure(name string, o *outcome, bound int) report.Figure {
	f := report.Figure{Name: name, Value: strconv.Itoa(o.Passes), Wanted: "≤ " + strconv.Itoa(bound), Met: o.Passes <= bound}
	if o.Capped {
		f.Value, f.Met = "> "+f.Value, false
	}
	return f
}

// comparison is a table of methods on datasets.
type comparison struct {
	b     *bench
	table *report.Table
}

func (b *bench) newComparison(title string) *comparison {
	t := &report.Table{Title: title, Columns: []string{"rows", "K", "N", "method", "start", "full passes", "sample passes", "s", "CPU s", "L1", "by", "sinkhorn's s / this"}}
	t.Note("The shards are in the page cache and were checked, and the sample read, before the clocks start. Seconds include passes over the sample.")
	t.Note("> : given up after %s. sinkhorn ends when its L1 is that of the others; ‘own rule’ is the pass at which the sum of relative changes of the row scalings was at most %.2g, and the L1 then.", b.cap, sinkhorn.DefaultChange)
	t.Note("L1 includes what a bound allows the lists to have missed. ‘by’: lists or lbfgs, and whether a full pass or that bound proves the result.")
	return &comparison{b, t}
}

// listsPatience is how many caps the method that has to end may take.
const listsPatience = 5

// compare measures every method on d, and lists from its own solution; where
// previous names potentials of the round before, from those too. It returns the
// cold solve by lists and the one from its solution.
func (c *comparison) compare(ctx context.Context, d *dataset, name, previous string) (cold, again *outcome, err error) {
	p, err := openProblem(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	defer p.close()
	if err := drain(ctx, p.source, c.b.workers); err != nil { // checks the shards
		return nil, nil, err
	}
	p.opened = step{}
	own := filepath.Join(c.b.scratch, "own.json")
	runs := []struct {
		start string
		r     request
	}{
		{"1/N", request{Method: scalings}},
		{"sample", request{Method: lbfgs, Sampled: true}},
		{"sample", request{Method: lists, Sampled: true, Keep: own}},
		{"own solution", request{Method: lists, Sampled: true, Start: own}},
	}
	if previous != "" {
		runs = append(runs, runs[3])
		runs[4].start, runs[4].r.Start = "previous round", previous
	}
	var slow *outcome
	for i, run := range runs {
		say("%s, %d × %d: %s from %s", name, d.Rows, d.Clusters, run.r.Method, run.start)
		run.r.Dataset, run.r.Workers, run.r.Cap = *d, c.b.workers, c.b.cap.Seconds()
		if run.r.Method == lists {
			run.r.Cap *= listsPatience
		}
		o, err := run.r.solve(ctx, p)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", run.r.Method, err)
		}
		switch i {
		case 0:
			slow = o
		case 2:
			cold = o
		case 3:
			again = o
		}
		c.add(name, d, run.r.Method, run.start, o, slow)
		if o.Capped && run.r.Method == lists {
			return nil, nil, fmt.Errorf("%s from %s did not end within %.0f s", lists, run.start, run.r.Cap)
		}
	}
	return cold, again, nil
}

func (c *comparison) add(name string, d *dataset, method, start string, o, slow *outcome) {
	passes, by, sample := strconv.Itoa(o.Passes), "", any(nil)
	if o.Capped {
		passes = "> " + passes
	}
	if cert := o.Certificate; cert != nil {
		by, sample = fmt.Sprintf("%v, %v", cert.Way, cert.Proof), cert.SamplePasses
		if start == "sample" && cert.SamplePasses == 0 {
			start = "0 (sample too small)"
		}
	} else if o.OwnRule > 0 {
		by = fmt.Sprintf("own rule: %d, L1 %s", o.OwnRule, report.Number(o.OwnRuleL1))
	}
	row := []any{name, d.Clusters, d.Rows, method, start, passes, sample, o.Seconds, o.CPU, o.L1, by}
	switch ratio := slow.Seconds / o.Seconds; {
	case o == slow || o.Capped:
	case slow.Capped:
		row = append(row, "> "+report.Number(ratio))
	default:
		row = append(row, ratio)
	}
	c.table.Add(row...)
}

// realRounds compares the methods on the log-probabilities of a network in
// training: rounds-<k>-K<clusters>.npy, each from the round before.
func (b *bench) realRounds(ctx context.Context) error {
	if b.rounds == "" {
		say("no -rounds folder (see stages/solve/bench/tests/rounds.py): nothing to do")
		return nil
	}
	series, err := findRounds(b.rounds)
	if err != nil {
		return err
	}
	c := b.newComparison(fmt.Sprintf("Rounds of a network in training: passes and seconds to a marginal error (L1) of %.0e, %d workers", sinkhorn.DefaultTol, b.workers))
	var failed []error
	for _, clusters := range slices.Sorted(maps.Keys(series)) {
		failed = append(failed, b.compareRounds(ctx, c, series[clusters]))
	}
	return errors.Join(append(failed, b.report(c.table))...)
}

func (b *bench) compareRounds(ctx context.Context, c *comparison, paths []string) error {
	previous := ""
	for round, path := range paths {
		name := fmt.Sprintf("round %d", round)
		err := withNpy(path, func(m *npy) error {
			sets, err := b.write(ctx, filepath.Base(path), m, float32Form)
			if err != nil {
				return err
			}
			defer func() { _ = remove(sets) }() // the scratch folder goes anyway
			_, again, err := c.compare(ctx, sets[0], name, previous)
			if err != nil {
				return err
			}
			previous = filepath.Join(b.scratch, "previous.json")
			b.figures = append(b.figures, passesFigure(fmt.Sprintf("full passes, %s, K = %d, again", name, m.clusters), again, 2))
			return writePotentials(previous, again.v)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// findRounds returns the files of each number of clusters, by round from 0 on.
func findRounds(dir string) (map[int][]string, error) {
	series := map[int][]string{}
	found, err := filepath.Glob(filepath.Join(dir, "rounds-*-K*.npy"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		var round, clusters int
		if n, _ := fmt.Sscanf(filepath.Base(path), "rounds-%d-K%d.npy", &round, &clusters); n == 2 {
			for len(series[clusters]) <= round {
				series[clusters] = append(series[clusters], "")
			}
			series[clusters][round] = path
		}
	}
	for clusters, paths := range series {
		if i := slices.Index(paths, ""); i >= 0 {
			return nil, fmt.Errorf("%s has no rounds-%d-K%d.npy, but later ones", dir, i, clusters)
		}
	}
	if len(series) == 0 {
		return nil, fmt.Errorf("%s has no rounds-<k>-K<clusters>.npy", dir)
	}
	return series, nil
}

func withNpy(path string, do func(*npy) error) error {
	m, err := openNpy(path)
	if err != nil {
		return err
	}
	defer m.f.Close()
	return do(m)
}
