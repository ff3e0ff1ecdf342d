package evaluate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Scores says how well clusters agree with classes: 1 is perfect. NMI and
// Purity are in [0, 1], AMI and ARI at most 1 and about 0 for labels that say
// nothing. Purity alone is not symmetric.
type Scores struct {
	NMI    float64 // mutual information over the mean of the entropies
	AMI    float64 // the same, adjusted for chance
	ARI    float64 // Rand index, adjusted for chance
	Purity float64 // share of rows whose class is the commonest of their cluster
}

// Compare scores clusters against truth: clusters[i] and truth[i] are the
// labels of the same row. Any values may be labels. Time and memory are linear
// in the rows; AMI adds, for each distinct pair of a cluster's and a class's
// size, the width of the distribution of their overlap. The arguments are only
// read. It fails if the lengths differ or there are no rows.
//
// Where a measure is 0/0 it is 1 if the two clusterings are the same and 0 if
// not.
func Compare(clusters, truth []int32) (Scores, error) {
	t, err := contingency(clusters, truth)
	if err != nil {
		return Scores{}, err
	}
	return t.scores(), nil
}

// NMI is that of [Compare] for two clusterings that were counted already:
// overlaps[i][j] rows, a whole number, are in cluster i of the one and in cluster
// j of the other. All rows of overlaps are of one length, and only read. It fails
// if they count nothing.
func NMI(overlaps [][]float64) (float64, error) {
	t := &table{}
	var class []int64 // rows of each column
	for _, row := range overlaps {
		if class == nil {
			class = make([]int64, len(row))
		}
		first, rows := len(t.cells), int64(0)
		for j, n := range row {
			if n > 0 {
				t.cells = append(t.cells, cell{int32(len(t.clusters)), int32(j), int64(n)})
				class[j] += int64(n)
				rows += int64(n)
			}
		}
		if len(t.cells) > first {
			t.clusters = append(t.clusters, rows)
			t.rows += rows
		}
	}
	if t.rows == 0 {
		return 0, errors.New("compare clusterings: no rows")
	}
	rank := make([]int32, len(class))
	for j, n := range class {
		if n > 0 {
			rank[j] = int32(len(t.classes))
			t.classes = append(t.classes, n)
		}
	}
	for i := range t.cells {
		t.cells[i].class = rank[t.cells[i].class]
	}
	return t.nmi(), nil
}

// Chance returns the mean scores of labels that say nothing: clusters of the
// same sizes as those given, dealt to the rows at random, draws times. The same
// seed gives the same result. It fails as [Compare] does, and for draws < 1.
func Chance(clusters, truth []int32, seed uint64, draws int) (Scores, error) {
	if draws < 1 {
		return Scores{}, fmt.Errorf("%d draws: at least one is needed", draws)
	}
	if _, err := contingency(clusters, truth); err != nil {
		return Scores{}, err
	}
	dealt := slices.Clone(clusters)
	random := rand.New(rand.NewPCG(seed, 0))
	var mean Scores
	for range draws {
		random.Shuffle(len(dealt), func(i, j int) { dealt[i], dealt[j] = dealt[j], dealt[i] })
		t, err := contingency(dealt, truth)
		if err != nil {
			return Scores{}, err
		}
		s := t.scores()
		mean.NMI += s.NMI / float64(draws)
		mean.AMI += s.AMI / float64(draws)
		mean.ARI += s.ARI / float64(draws)
		mean.Purity += s.Purity / float64(draws)
	}
	return mean, nil
}

// table is a contingency table without its zeros. Clusters and classes are
// numbered in order of their first row, and cells ordered by cluster, so that
// sums over them are the same bits every time.
type table struct {
	rows     int64
	clusters []int64 // rows of each cluster
	classes  []int64 // rows of each class
	cells    []cell
}

type cell struct {
	cluster, class int32
	rows           int64
}

func contingency(clusters, truth []int32) (*table, error) {
	if len(clusters) != len(truth) {
		return nil, fmt.Errorf("compare clusterings: %d labels against %d", len(clusters), len(truth))
	}
	if len(clusters) == 0 {
		return nil, errors.New("compare clusterings: no rows")
	}
	t := &table{rows: int64(len(clusters))}
	var cluster, class []int32
	cluster, t.clusters = number(clusters)
	class, t.classes = number(truth)

	// The classes of each cluster's rows, cluster after cluster.
	end := make([]int64, len(t.clusters))
	total := int64(0)
	for k, n := range t.clusters {
		end[k] = total
		total += n
	}
	sorted := make([]int32, len(class))
	for i, k := range cluster {
		sorted[end[k]] = class[i]
		end[k]++
	}
	count := make([]int64, len(t.classes))
	start := int64(0)
	for k := range t.clusters {
		first := len(t.cells)
		for _, c := range sorted[start:end[k]] {
			if count[c] == 0 {
				t.cells = append(t.cells, cell{int32(k), c, 0})
			}
			count[c]++
		}
		for i := first; i < len(t.cells); i++ {
			c := &t.cells[i]
			c.rows, count[c.class] = count[c.class], 0
		}
		start = end[k]
	}
	return t, nil
}

// number replaces labels by their rank of first occurrence and counts them.
func number(labels []int32) (ranks []int32, counts []int64) {
	ranks = make([]int32, len(labels))
	known := map[int32]int32{}
	for i, label := range labels {
		rank, ok := known[label]
		if !ok {
			rank = int32(len(counts))
			known[label] = rank
			counts = append(counts, 0)
		}
		counts[rank]++
		ranks[i] = rank
	}
	return ranks, counts
}

func (t *table) scores() Scores {
	return Scores{NMI: t.nmi(), AMI: t.ami(), ARI: t.ari(), Purity: t.purity()}
}

// same tells whether the two clusterings are one, up to names.
func (t *table) same() bool {
	return len(t.cells) == len(t.clusters) && len(t.cells) == len(t.classes)
}

// meanEntropy is ½(H(clusters) + H(classes)), in nats.
func (t *table) meanEntropy() float64 {
	return (entropy(t.clusters, t.rows) + entropy(t.classes, t.rows)) / 2
}

func entropy(counts []int64, rows int64) float64 {
	h := 0.0
	for _, n := range counts {
		p := float64(n) / float64(rows)
		h -= p * math.Log(p)
	}
	return h
}

// information is the mutual information in nats.
func (t *table) information() float64 {
	n, mi := float64(t.rows), 0.0
	for _, c := range t.cells {
		a, b := float64(t.clusters[c.cluster]), float64(t.classes[c.class])
		mi += float64(c.rows) / n * math.Log(float64(c.rows)*n/(a*b))
	}
	return max(mi, 0)
}

func (t *table) nmi() float64 {
	switch {
	case t.same():
		return 1
	case len(t.clusters) == 1 || len(t.classes) == 1:
		return 0
	}
	return min(1, t.information()/t.meanEntropy())
}

func (t *table) ami() float64 {
	switch {
	case t.same():
		return 1
	case len(t.clusters) == 1 || len(t.classes) == 1:
		return 0
	}
	expected := t.expectedInformation()
	above := t.information() - expected
	room := t.meanEntropy() - expected
	if room <= 0 { // rounding only: the mean entropy bounds any information
		return 0
	}
	return above / room
}

func (t *table) ari() float64 {
	if t.same() {
		return 1
	}
	pairs := func(n int64) float64 { return float64(n) * float64(n-1) / 2 }
	var cells, clusters, classes float64
	for _, c := range t.cells {
		cells += pairs(c.rows)
	}
	for _, n := range t.clusters {
		clusters += pairs(n)
	}
	for _, n := range t.classes {
		classes += pairs(n)
	}
	expected := clusters * classes / pairs(t.rows)
	return (cells - expected) / ((clusters+classes)/2 - expected)
}

func (t *table) purity() float64 {
	best := make([]int64, len(t.clusters))
	for _, c := range t.cells {
		best[c.cluster] = max(best[c.cluster], c.rows)
	}
	sum := int64(0)
	for _, n := range best {
		sum += n
	}
	return float64(sum) / float64(t.rows)
}
