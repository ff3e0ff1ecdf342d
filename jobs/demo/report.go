package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"sela/pipeline"
)

// writeReport prints a line for each head of a published run: its clusters and
// how evenly they share the images. Every image must have an entry in the
// truth.
func writeReport(out io.Writer, run string, heads []*labels, truth map[name]int32) error {
	fmt.Fprintf(out, "run %s: %d images\n", run, len(heads[0].label))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "head\tclusters\tsmallest\tlargest\t")
	for _, l := range heads {
		if _, err := l.classes(truth); err != nil {
			return err
		}
		sizes := l.sizes()
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t\n", l.head, l.clusters(), slices.Min(sizes), slices.Max(sizes))
	}
	return table.Flush()
}

// sizes returns the number of images in each cluster.
func (l *labels) sizes() []int {
	sizes := make([]int, l.clusters())
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
