package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// shown are the columns of the table: the measures, and how they are printed.
var shown = []struct {
	measure, title string
	scale          float64
	digits         int
}{
	{"knn_10", "kNN (10, 0.1) %", 100, 1},
	{"knn_50", "kNN (50, 0.5) %", 100, 1},
	{"knn_10_conv3", "kNN of conv3, 2×2 %", 100, 1},
	{"linear", "linear %", 100, 1},
	{"nmi", "NMI", 1, 3},
	{"purity", "purity", 1, 3},
	{"minutes", "minutes", 1, 0},
}

// last returns the figures of a measure after the last epoch, by seed.
func last(figures []figure, measure string) map[int]figure {
	found := map[int]figure{}
	for _, f := range figures {
		if before, ok := found[f.seed]; f.measure == measure && (!ok || f.epoch >= before.epoch) {
			found[f.seed] = f
		}
	}
	return found
}

// table prints the figures of all rows, and the paired differences.
func (s *settings) table(w io.Writer) error {
	fmt.Fprint(w, "| `ROW=` | |")
	for _, c := range shown {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprintf(w, " seeds | machine |\n| --- | --- |%s --- |\n", strings.Repeat(" ---: |", len(shown)+1))
	all := map[string][]figure{}
	for _, r := range rows {
		figures, err := s.figuresOf(r.name)
		if err != nil {
			return err
		}
		if all[r.name] = figures; len(figures) == 0 {
			continue
		}
		fmt.Fprintf(w, "| `%s` | %s |", r.name, r.what)
		seeds, machines := map[int]bool{}, []string{}
		for _, c := range shown {
			by := last(figures, c.measure)
			var values []float64
			chance, chances := 0.0, 0
			for seed, f := range by {
				seeds[seed] = true
				if !slices.Contains(machines, f.machine) {
					machines = append(machines, f.machine)
				}
				values = append(values, c.scale*f.value)
				if f.chance != nil {
					chance, chances = chance+c.scale**f.chance, chances+1
				}
			}
			fmt.Fprintf(w, " %s", spread(values, c.digits))
			if chances > 0 {
				fmt.Fprintf(w, " (by chance %.*f)", c.digits, chance/float64(chances))
			}
			fmt.Fprint(w, " |")
		}
		slices.Sort(machines)
		fmt.Fprintf(w, " %d | %s |\n", len(seeds), strings.Join(machines, "; "))
	}
	return pairs(w, all)
}

// spread is the mean of values and their range.
func spread(values []float64, digits int) string {
	if len(values) == 0 {
		return "–"
	}
	slices.Sort(values) // a sum in one order
	sum := 0.0
	for _, x := range values {
		sum += x
	}
	mean := fmt.Sprintf("%.*f", digits, sum/float64(len(values)))
	if len(values) == 1 {
		return mean
	}
	return fmt.Sprintf("%s (%.*f to %.*f)", mean, digits, values[0], digits, values[len(values)-1])
}

// paired are the rows whose difference is printed seed by seed.
var paired = [][2]string{{"sela", "kmeans"}, {"sela", "deepcluster"}, {"kmeans", "deepcluster"}, {"sela", "sela-1"}, {"deepcluster", "deepcluster-1"}, {"sela-rot", "sela"}, {"sela-rot", "retrained"}, {"transfer-10", "alexnet-own"}, {"transfer-10", "transfer-1"}, {"heavy-sela", "heavy-kmeans"}}

// compared are the measures of the paired differences.
var compared = []string{"knn_10", "knn_10_conv3", "linear"}

// pairs prints differences between two rows with the same seed: the same first
// network and the same order of images. Mean, range and standard error of the mean.
func pairs(w io.Writer, all map[string][]figure) error {
	title := "\n| differences seed by seed, points | kNN (10, 0.1) | kNN of conv3, 2×2 | linear | seeds |\n| --- | ---: | ---: | ---: | ---: |\n"
	for _, p := range paired {
		var cells []string
		seeds := 0
		for _, measure := range compared {
			a, b := last(all[p[0]], measure), last(all[p[1]], measure)
			var values []float64
			for seed, f := range a {
				if g, ok := b[seed]; ok {
					values = append(values, 100*(f.value-g.value))
				}
			}
			seeds = max(seeds, len(values))
			cells = append(cells, spread(values, 2)+standardError(values))
		}
		if seeds == 0 {
			continue
		}
		fmt.Fprintf(w, "%s| %s − %s | %s | %d |\n", title, p[0], p[1], strings.Join(cells, " | "), seeds)
		title = ""
	}
	return nil
}

// standardError is that of the mean of values; nothing for a single one.
func standardError(values []float64) string {
	n := float64(len(values))
	if n < 2 {
		return ""
	}
	sum, squares := 0.0, 0.0
	for _, x := range values {
		sum += x
	}
	for _, x := range values {
		squares += (x - sum/n) * (x - sum/n)
	}
	return fmt.Sprintf(" ± %.2f", math.Sqrt(squares/(n-1)/n))
}

// list prints the rows and their seeds.
func (s *settings) list(w io.Writer) error {
	for _, r := range rows {
		figures, err := s.figuresOf(r.name)
		if err != nil {
			return err
		}
		var seeds []int
		for _, f := range figures {
			if !slices.Contains(seeds, f.seed) {
				seeds = append(seeds, f.seed)
			}
		}
		done := "no figures yet"
		if len(seeds) > 0 {
			done = fmt.Sprintf("seeds %v", seeds)
		}
		fmt.Fprintf(w, "%-18s %-55s %s\n", r.name, r.what, done)
	}
	return nil
}
