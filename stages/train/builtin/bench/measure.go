//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"sela/stages/internal/report"
)

// reference is the candidate that all are compared with; it is started second.
const reference = "PyTorch"

// Wanted of the step next to PyTorch's.
const wantedRatio = 0.8

// measure reports one network.
func (b *bench) measure(ctx context.Context, w workload) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var list []*candidate
	defer func() {
		for _, c := range list {
			err = errors.Join(err, c.stop())
		}
	}()
	commands := [][]string{{"ours", self, "-serve", "-onnxruntime", b.library}}
	if _, missing := os.Stat(b.python); missing == nil {
		commands = append(commands, []string{reference, b.python, b.peers()}, []string{reference + ", channels last", b.python, b.peers(), "channels-last"})
	} else if !b.quick {
		return fmt.Errorf("%w: a plain make bench-train installs it", missing)
	}
	for _, command := range commands {
		c, err := start(ctx, command[0], w.Threads, command[1:]...)
		if err != nil {
			return err
		}
		list = append(list, c)
		if c.opened, err = c.ask(request{Do: "open", workload: w}); err != nil {
			return err
		}
		if c.opened.Threads != w.Threads || c.opened.Parameters != list[0].opened.Parameters {
			return fmt.Errorf("%s has %d threads and %d parameters, not %d and %d", c.name, c.opened.Threads, c.opened.Parameters, w.Threads, list[0].opened.Parameters)
		}
		if _, err := c.ask(request{Do: "steps", Count: 2}); err != nil { // to warm up
			return err
		}
	}
	for range b.rounds {
		for _, c := range list {
			a, err := c.ask(request{Do: "steps", Count: b.steps})
			if err != nil {
				return err
			}
			c.wall, c.cpu, c.loss = append(c.wall, slices.Min(a.Wall)), append(c.cpu, slices.Min(a.CPU)), a.Loss
		}
	}
	for _, c := range list {
		a, err := c.ask(request{Do: "memory"})
		if err != nil {
			return err
		}
		c.peak = a.Peak
	}
	return errors.Join(b.rates(w, list), b.operators(w, list[0]))
}

// rates reports how fast the candidates are.
func (b *bench) rates(w workload, list []*candidate) error {
	t := &report.Table{Title: w.String(), Columns: []string{"candidate", "threads", "images/s", "median", "GFLOP/s", "ratio to PyTorch", "images per CPU second", "its ratio", "peak RSS, MB", "loss"}}
	ops := list[0].opened.Operations
	for _, c := range list {
		n, best := float64(w.Batch), slices.Min(c.wall)
		var wall, cpu any
		if len(list) > 1 {
			wall, cpu = spread(ratios(list[1].wall, c.wall)), spread(ratios(list[1].cpu, c.cpu))
		}
		t.Add(c.name+", "+c.opened.Package, c.opened.Threads, n/best, n/median(c.wall), ops/best/1e9, wall, n/slices.Min(c.cpu), cpu, c.peak/1e6, c.loss)
	}
	t.Note("%d parameters, %.4g GFLOP a step; %d rounds of %d steps each in turn; load after: %s.", list[0].opened.Parameters, ops/1e9, b.rounds, b.steps, report.Load())
	if len(list) > 1 && !b.quick {
		b.figures = append(b.figures,
			report.AtLeast(w.Network+": images/s to PyTorch's", median(ratios(list[1].wall, list[0].wall)), wantedRatio, ""),
			report.AtLeast(w.Network+": images per CPU second to PyTorch's", median(ratios(list[1].cpu, list[0].cpu)), wantedRatio, ""))
	}
	return b.report(t)
}

// operators reports what our step spends its time on.
func (b *bench) operators(w workload, c *candidate) error {
	a, err := c.ask(request{Do: "operators", workload: w})
	if err != nil {
		return err
	}
	total := 0.0
	for _, o := range a.Operators {
		total += o.Seconds
	}
	t := &report.Table{Title: w.Network + ": our step by operator", Columns: []string{"operator", "part", "nodes", "ms", "share"}}
	rest, nodes := 0.0, 0
	for i, o := range a.Operators {
		if i >= 16 {
			rest, nodes = rest+o.Seconds, nodes+o.Nodes
			continue
		}
		t.Add(o.Name, o.Part, o.Nodes, 1e3*o.Seconds, share(o.Seconds, total))
	}
	t.Add("all others", "", nodes, 1e3*rest, share(rest, total))
	t.Note("By ONNX Runtime's profiler in a session of its own, the fastest of %d runs of each node; forward has the loss.", profiledRuns)
	return b.report(t)
}

func share(part, all float64) string { return fmt.Sprintf("%.1f %%", 100*part/all) }

// ratios divides element by element.
func ratios(a, b []float64) []float64 {
	list := make([]float64, len(a))
	for i := range a {
		list[i] = a[i] / b[i]
	}
	return list
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// spread is the median with the smallest and the largest.
func spread(list []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(list), slices.Min(list), slices.Max(list))
}
