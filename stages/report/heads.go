package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/loop"
	"sela/stages/solve"
	"sela/stages/truth"
)

// sureBins is the number of bins of the histogram of confidence.
const sureBins = 20

// head is what the labels of one head say.
type head struct {
	number   int
	solution *solve.Solution
	clusters []cluster
	rows     int64
	sure     [sureBins]int64 // images by confidence
	mean     float64         // confidence
	// agreement is that with the labels before and with the truth.
	agreement loop.Agreement

	order []int   // clusters by rank: see [reporter.rank]
	tiles []*tile // of the clusters in that order
}

// cluster is what the labels of one head say about one of its clusters.
type cluster struct {
	size    int64
	sure    float64 // mean confidence
	before  int64   // images that had a label in the run before
	changed int64   // of these, whose label was another
	known   int64   // images whose class is known
	class   int32   // the commonest one, −1 where none is known
	common  int64   // images of that class
	best    []*tile // the most confident images, surest first
	shown   int     // how many of these are shown
}

// purity is the share of the commonest class among the images whose class is
// known.
func (c *cluster) purity() float64 {
	if c.known == 0 {
		return 0
	}
	return float64(c.common) / float64(c.known)
}

// classes numbers the true classes of the labelled images, which are the same
// in every head.
type classes struct {
	names  []string
	number map[string]int32
	of     []int32 // by labelled image; nil where no truth is given
	known  int
}

// add takes the class of the next image.
func (c *classes) add(source *truth.Source, key, member string) {
	name, ok := source.Class(key, member)
	if !ok {
		c.of = append(c.of, -1)
		return
	}
	n, ok := c.number[name]
	if !ok {
		if c.number == nil {
			c.number = map[string]int32{}
		}
		n, name = int32(len(c.names)), strings.Clone(name) // it may be a part of the image's name
		c.number[name], c.names = n, append(c.names, name)
	}
	c.of = append(c.of, n)
	c.known++
}

// readHeads reads the labels of all heads, one after the other.
func (r *reporter) readHeads(ctx context.Context) error {
	for h := range r.solutions {
		reading := &reading{reporter: r, head: &head{number: h, solution: &r.solutions[h]}}
		if err := reading.read(ctx); err != nil {
			return fmt.Errorf("head %d: %w", h, err)
		}
		r.heads = append(r.heads, reading.head)
	}
	if round := r.round(); round != nil && len(round.Heads) == len(r.heads) {
		for h := range r.heads {
			r.heads[h].agreement = round.Heads[h].Agreement
		}
	}
	return nil
}

// reading is the reading of one head's labels.
type reading struct {
	*reporter
	*head
	at     int              // images read
	counts map[uint64]int64 // images by cluster and class

	labels, previous []int32 // where they are to be compared
}

func (r *reading) read(ctx context.Context) error {
	r.clusters = make([]cluster, r.solution.Clusters())
	r.counts = map[uint64]int64{}
	prefix := fmt.Sprintf("labels/head=%d/", r.number)
	for _, f := range r.reporter.labels {
		if !strings.HasPrefix(f.Name, prefix) {
			continue
		}
		local, release, err := r.Run.Fetch(ctx, f)
		if err != nil {
			return err
		}
		err = schemas.ReadLabels(local, r.add)
		release()
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if r.classes.of != nil && r.at != len(r.classes.of) {
		return pipeline.BadData(fmt.Errorf("it labels %d images, head 0 labels %d", r.at, len(r.classes.of)))
	}
	r.sum()
	return r.compare()
}

// add takes a row of the label table.
func (r *reading) add(l *schemas.Label) error {
	if int(l.Label) >= len(r.clusters) {
		return pipeline.BadData(fmt.Errorf("row %d: label %d of %d clusters", l.Row, l.Label, len(r.clusters)))
	}
	if r.number == 0 && r.Truth != nil {
		r.classes.add(r.Truth, l.Key, l.Member)
	}
	class := int32(-1)
	if r.at < len(r.classes.of) {
		class = r.classes.of[r.at]
	}
	r.at++
	// Where labels have no probability, the model's own says how sure it is.
	sure := l.ModelProb
	if l.Prob != nil {
		sure = *l.Prob
	}
	c := &r.clusters[l.Label]
	c.size++
	c.sure += float64(sure)
	r.sure[min(max(int(sure*sureBins), 0), sureBins-1)]++
	if class >= 0 {
		r.counts[uint64(l.Label)<<32|uint64(class)]++
	}
	previous := int32(-1)
	if l.PrevLabel != nil {
		previous = *l.PrevLabel
		c.before++
		if previous != l.Label {
			c.changed++
		}
	}
	if r.round() == nil && (r.Run.Parent != "" || r.Truth != nil) {
		r.labels, r.previous = append(r.labels, l.Label), append(r.previous, previous)
	}
	c.keep(l, sure, class, r.Spec.ImagesPerCluster)
	return nil
}

// keep inserts an image among the n most confident ones. Of images equally
// sure, the one of which the model is surer comes first, then the earlier row.
func (c *cluster) keep(l *schemas.Label, sure float32, class int32, n int) {
	if n == 0 {
		return
	}
	before := func(t *tile) bool { return sure > t.sure || sure == t.sure && l.ModelProb > t.model }
	if len(c.best) == n && !before(c.best[n-1]) {
		return
	}
	at := len(c.best)
	for at > 0 && before(c.best[at-1]) {
		at--
	}
	if len(c.best) == n {
		c.best = c.best[:n-1]
	}
	c.best = slices.Insert(c.best, at, &tile{key: strings.Clone(l.Key), member: strings.Clone(l.Member), sha256: strings.Clone(l.SHA256),
		sure: sure, model: l.ModelProb, class: class})
}

// sum ends the sums over the rows.
func (r *reading) sum() {
	for k := range r.clusters {
		c := &r.clusters[k]
		r.rows += c.size
		r.mean += c.sure
		c.class = -1
		if c.size > 0 {
			c.sure /= float64(c.size)
		}
	}
	r.mean /= float64(max(r.rows, 1))
	for pair, n := range r.counts {
		c, class := &r.clusters[pair>>32], int32(pair)
		c.known += n
		if n > c.common || n == c.common && r.classes.names[class] < r.classes.names[c.class] {
			c.common, c.class = n, class
		}
	}
}

// compare fills in the agreement with the labels before and with the truth, of
// the images that have a class.
func (r *reading) compare() error {
	if r.labels == nil {
		return nil
	}
	a, err := loop.Agree(r.labels, r.previous, nil)
	if err != nil {
		return err
	}
	if r.classes.known > 0 {
		mine, theirs := make([]int32, 0, r.classes.known), make([]int32, 0, r.classes.known)
		for i, class := range r.classes.of {
			if class >= 0 {
				mine, theirs = append(mine, r.labels[i]), append(theirs, class)
			}
		}
		with, err := loop.Agree(mine, nil, theirs)
		if err != nil {
			return err
		}
		a.Truth = with.Truth
	}
	r.agreement = a
	r.labels, r.previous = nil, nil
	return nil
}

// rank orders the clusters of a head from the purest to the least pure, where
// the truth is known, and else from the surest to the least sure. Clusters
// without images come last.
func (r *reporter) rank(h *head) {
	value := func(k int) float64 {
		c := &h.clusters[k]
		switch {
		case c.size == 0:
			return -1
		case r.classes.known > 0:
			return c.purity()
		}
		return c.sure
	}
	h.order = make([]int, len(h.clusters))
	for k := range h.order {
		h.order[k] = k
	}
	slices.SortStableFunc(h.order, func(a, b int) int {
		return cmp.Or(-cmp.Compare(value(a), value(b)), -cmp.Compare(h.clusters[a].sure, h.clusters[b].sure))
	})
}
