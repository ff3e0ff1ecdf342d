package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"sela/pipeline"
	"sela/stages/evaluate"
)

// chanceDraws is how many random labellings the chance columns are the mean of.
const chanceDraws = 5

// writeReport prints a line for each head of a published run: how it was
// solved, how evenly its clusters share the images, and how they agree with
// the truth, beside labels of the same sizes dealt at random. NMI and purity of
// random labels are not 0, and rise with the number of clusters. Every image
// must have an entry in the truth.
func writeReport(out io.Writer, run string, heads []*labels, truth map[name]int32) error {
	fmt.Fprintf(out, "run %s: %d images\n\n", run, len(heads[0].label))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "head\tclusters\tpasses\tmarginal error\tsmallest\tlargest\tNMI\tby chance\tpurity\tby chance\t")
	for _, l := range heads {
		classes, err := l.classes(truth)
		if err != nil {
			return err
		}
		found, err := evaluate.Compare(l.label, classes)
		if err != nil {
			return err
		}
		chance, err := evaluate.Chance(l.label, classes, 1, chanceDraws)
		if err != nil {
			return err
		}
		sizes := l.sizes()
		fmt.Fprintf(table, "%d\t%d\t%d\t%.1e\t%d\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t\n", l.head, l.proof.Clusters, l.proof.Passes, l.proof.MarginalL1,
			slices.Min(sizes), slices.Max(sizes), found.NMI, chance.NMI, found.Purity, chance.Purity)
	}
	return table.Flush()
}

// differences prints, head by head, how many images two runs label differently.
func differences(out io.Writer, one, two []*labels) error {
	if len(one) != len(two) {
		return pipeline.BadData(fmt.Errorf("%d heads in one run, %d in the other", len(one), len(two)))
	}
	for h, l := range one {
		if !slices.Equal(l.names, two[h].names) {
			return pipeline.BadData(fmt.Errorf("head %d: the runs label different images", l.head))
		}
		different := 0
		for i, label := range l.label {
			if label != two[h].label[i] {
				different++
			}
		}
		fmt.Fprintf(out, "head %d: %d of %d labels differ\n", l.head, different, len(l.label))
	}
	return nil
}

// sizes returns the number of images in each cluster.
func (l *labels) sizes() []int {
	sizes := make([]int, l.proof.Clusters)
	for _, label := range l.label {
		sizes[label]++
	}
	return sizes
}

// classes returns the true class of each image, in the order of l.label.
func (l *labels) classes(truth map[name]int32) ([]int32, error) {
	classes := make([]int32, len(l.names))
	for i, n := range l.names {
		class, ok := truth[n]
		if !ok {
			return nil, pipeline.BadData(fmt.Errorf("head %d: image %q, member %q has no entry in the truth: the labels are those of other images", l.head, n.Key, n.Member))
		}
		classes[i] = class
	}
	return classes, nil
}
