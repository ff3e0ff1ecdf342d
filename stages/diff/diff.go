// Package diff compares the labels that two runs gave to images: how many labels
// are others now, which cluster of the one run is which of the other, and how
// well the two clusterings agree.
//
// The tables of both runs are ordered by key, so that they are joined as they
// are read. Memory is that of a row group of each, of the rows of one key (the
// members of one tar), and of 8 bytes for each pair of a cluster of the one run
// and a cluster of the other, one head at a time.
package diff

import (
	"context"
	"fmt"
	"slices"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/evaluate"
	"sela/stages/label/published"
	"sela/stages/solve/clusters"
)

// Comparison says how the labels of a run changed since an earlier one.
type Comparison struct {
	Run   string `json:"run"` // the earlier
	Heads []Head `json:"heads"`

	// Churn, Matched and NMI are the means over the heads; nil where a head has
	// none.
	Churn   *float64 `json:"churn,omitempty"`
	Matched *float64 `json:"churn_matched,omitempty"`
	NMI     *float64 `json:"nmi,omitempty"`
}

func (c *Comparison) mean() {
	for _, f := range []struct {
		mean **float64
		of   func(*Head) *float64
	}{{&c.Churn, func(h *Head) *float64 { return h.Churn }}, {&c.Matched, func(h *Head) *float64 { return h.Matched }}, {&c.NMI, func(h *Head) *float64 { return h.NMI }}} {
		sum := 0.0
		for i := range c.Heads {
			x := f.of(&c.Heads[i])
			if x == nil {
				return // as of the others
			}
			sum += *x
		}
		if n := len(c.Heads); n > 0 {
			sum /= float64(n)
			*f.mean = &sum
		}
	}
}

// Head says how the labels of one head changed from an earlier run to a later
// one. What it says of labels is of the images that both runs labelled.
type Head struct {
	Head     int    `json:"head"`
	Clusters [2]int `json:"clusters"` // K in the earlier and the later run

	Images  int64 `json:"images"`       // labelled in both runs
	Earlier int64 `json:"only_earlier"` // images that have a label in the earlier run alone
	Later   int64 `json:"only_later"`   // in the later run alone

	// Churn is the share of Images whose label is another. Matched is that share
	// once every earlier cluster has the number of the later one that it is
	// matched with: what is left of Churn where clusters were only renumbered. NMI
	// does not depend on numbers. All are nil where there are no such images.
	Churn   *float64 `json:"churn,omitempty"`
	Matched *float64 `json:"churn_matched,omitempty"`
	NMI     *float64 `json:"nmi,omitempty"`

	Renumbered int     `json:"renumbered"`      // clusters matched with one of another number
	Moved      []Moved `json:"moved,omitempty"` // the clusters that most images left, most first
}

// Moved is an earlier cluster that images left.
type Moved struct {
	Cluster int   `json:"cluster"`
	Match   int   `json:"match"`  // its later cluster, −1 for none
	Images  int64 `json:"images"` // that it had
	Stayed  int64 `json:"stayed"` // of these, in the matching cluster now
	To      int   `json:"to"`     // where most of the others are now
	Went    int64 `json:"went"`   // there
}

// Options bound a comparison.
type Options struct {
	Memory int64 // bytes for the pairs of clusters
	Cache  int64 // bytes of fetched files that can be held at a time
	Moved  int   // clusters to name in [Head.Moved]
}

// Runs compares an earlier run, whose files by fetches, with the tables of a
// later one, head by head; a head that only one of them has is left out.
func Runs(ctx context.Context, before *published.Run, by published.Fetcher, after []Table, o Options) (*Comparison, error) {
	tables, err := Tables(before, by)
	if err != nil {
		return nil, err
	}
	c := &Comparison{Run: before.Manifest.Run}
	for h := range min(len(tables), len(after)) {
		if held := tables[h].Held + after[h].Held; held > o.Cache {
			return nil, pipeline.BadConfig(fmt.Errorf("compare head %d: it needs %s of fetched files at once, local.bytes leaves %s for them: raise it to %s",
				h, pipeline.Bytes(held), pipeline.Bytes(o.Cache), pipeline.Bytes(2*held)))
		}
		labels := before.Labels(ctx, by, h)
		head, err := compare(ctx, labels, tables[h], after[h], o)
		labels.Close()
		if err != nil {
			return nil, fmt.Errorf("compare head %d with that of run %s: %w", h, c.Run, err)
		}
		head.Head = h
		c.Heads = append(c.Heads, *head)
	}
	c.mean()
	return c, nil
}

// compare compares the labels of a head. The pairs are made so that as many
// images as possible stay in their cluster (the Hungarian method), in time that
// grows with the cube of the clusters at worst. An error is of class Config where
// Memory does not suffice and of class Data where a table is not what it says.
func compare(ctx context.Context, labels *published.Labels, before, after Table, o Options) (*Head, error) {
	if float64(before.Clusters)*float64(after.Clusters) > float64(o.Memory)/8 {
		return nil, pipeline.BadConfig(fmt.Errorf("%d clusters against %d cannot be counted in %s of memory: raise solve.memory",
			before.Clusters, after.Clusters, pipeline.Bytes(o.Memory)))
	}
	both := make([][]float64, before.Clusters)
	for i := range both {
		both[i] = make([]float64, after.Clusters)
	}
	h := &Head{Clusters: [2]int{before.Clusters, after.Clusters}}
	changed := int64(0)
	err := after.Each(ctx, func(l *schemas.Label) error {
		was, ok, err := labels.Of(l.Key, l.Member)
		if err != nil {
			return err
		}
		if l.Label < 0 || int(l.Label) >= after.Clusters || ok && (was < 0 || int(was) >= before.Clusters) {
			return pipeline.BadData(fmt.Errorf("image %q %q: label %d of %d clusters, %d of %d before", l.Key, l.Member, l.Label, after.Clusters, was, before.Clusters))
		}
		if !ok {
			h.Later++
			return nil
		}
		h.Images++
		both[was][l.Label]++
		if was != l.Label {
			changed++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	h.Earlier = before.Rows - h.Images
	if h.Images == 0 {
		return h, nil
	}
	h.Churn = share(changed, h.Images)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	nmi, err := evaluate.NMI(both)
	if err != nil {
		return nil, err
	}
	h.NMI = &nmi
	h.match(both, o.Moved)
	return h, nil
}

func share(part, whole int64) *float64 {
	s := float64(part) / float64(whole)
	return &s
}

// match pairs the clusters and tells which ones images left.
func (h *Head) match(both [][]float64, most int) {
	stayed := int64(0)
	for cluster, match := range clusters.Match(both) {
		m := Moved{Cluster: cluster, Match: match, To: -1}
		for k, n := range both[cluster] {
			m.Images += int64(n)
			if k == match {
				m.Stayed = int64(n)
			} else if int64(n) > m.Went {
				m.To, m.Went = k, int64(n)
			}
		}
		if m.Stayed == 0 {
			m.Match = -1 // no image says that they are the same
		} else if match != cluster {
			h.Renumbered++
		}
		stayed += m.Stayed
		if m.Stayed < m.Images {
			h.Moved = append(h.Moved, m)
		}
	}
	h.Matched = share(h.Images-stayed, h.Images)
	left := func(m Moved) int64 { return m.Images - m.Stayed }
	slices.SortStableFunc(h.Moved, func(a, b Moved) int { return int(min(max(left(b)-left(a), -1), 1)) })
	h.Moved = h.Moved[:min(len(h.Moved), most)]
}
