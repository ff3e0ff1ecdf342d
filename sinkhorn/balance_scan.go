package sinkhorn

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"sela/sinkhorn/internal/kernel"
)

// balancer is the state of Balance between scans of the lists.
//
// The repair counts in fixed point: a score λ·log p_ik + v_k, less the best of
// its row under v, is a whole number of units, and so are the prices π that the
// repair adds to v. Integers leave no doubt whether two paths cost the same,
// which float64 sums would.
type balancer struct {
	lists     *Lists
	lambda    float64
	v         []float64 // [K] as given
	low, high []int64   // [K] rows that a cluster may have

	unit   float64 // nats, a power of two
	price  []int64 // [K+1] π in units; the last is that of the spare slots
	slot   []int64 // [K] v_k in units, above the level that divides slots
	extra  []bool  // [K] cluster is to have high, not low
	labels []int32 // by ordinal of the row, −1 before the first scan
	counts []int64 // [K]
	first  []int64 // [K] counts after the first scan, under v

	buf   ListBuffer
	score []int64 // of one row's entries
}

func newBalancer(lists *Lists, v []float64, o *BalanceOptions) (*balancer, error) {
	clusters := len(v)
	b := &balancer{
		lists: lists, lambda: o.Lambda, v: v,
		price: make([]int64, clusters+1), slot: make([]int64, clusters), extra: make([]bool, clusters),
		labels: make([]int32, lists.rows), counts: make([]int64, clusters),
	}
	for i := range b.labels {
		b.labels[i] = -1
	}
	b.low, b.high = quotas(o.Marginals, lists.rows, clusters)

	// No listed entry is further below its row's best, under v. A path visits
	// a cluster once, so none costs more than K+1 times that; two bits more
	// leave room for sums of prices.
	least, most := math.Inf(1), math.Inf(-1)
	for k, vk := range v {
		least, most = min(least, vk-o.ListV[k]), max(most, vk-o.ListV[k])
	}
	drop := max(1, slices.Max(o.Margin)+most-least, slices.Max(v)-slices.Min(v))
	room := 62 - bits.Len(uint(4*(clusters+2))) - int(math.Ceil(math.Log2(drop)))
	if room < 24 {
		return nil, fmt.Errorf("%w: scores %.3g nats apart, by margins and potentials, are too many to balance %d clusters", ErrOptions, drop, clusters)
	}
	b.unit = math.Ldexp(1, -min(room, 40))
	b.deal()
	return b, nil
}

// deal gives the slots above low to the clusters of the lowest potentials, as
// the dual does: those that rows would pay most for.
func (b *balancer) deal() {
	left := b.lists.rows
	var spare []int
	for k := range b.low {
		left -= b.low[k]
		if b.high[k] > b.low[k] {
			spare = append(spare, k)
		}
	}
	if len(spare) == 0 {
		return
	}
	slices.SortFunc(spare, func(j, k int) int { return cmp.Or(cmp.Compare(b.v[j], b.v[k]), j-k) })
	level := b.v[spare[max(0, left-1)]]
	for i, k := range spare {
		b.extra[k] = int64(i) < left
		b.slot[k] = int64(math.Round((b.v[k] - level) / b.unit))
	}
}

// eachRow calls visit with every row that has a list, in order: its ordinal
// and its entries.
func (b *balancer) eachRow(ctx context.Context, visit func(ordinal int64, x []float32, clusters []int32)) error {
	ordinal := int64(0)
	for i := range b.lists.chunks {
		if ctx.Err() != nil {
			return fmt.Errorf("sinkhorn: balance stopped: %w", ctx.Err())
		}
		c, err := b.lists.Chunk(i, &b.buf)
		if err != nil {
			return err
		}
		from := int32(0)
		for _, to := range c.End {
			visit(ordinal, c.X[from:to], c.Cluster[from:to])
			ordinal, from = ordinal+1, to
		}
	}
	return nil
}

// contested holds the rows that have more than one entry within a window of
// their best, with those entries.
type contested struct {
	ordinal []int64 // by row: its place in balancer.labels
	end     []int   // by row: end of its entries
	at      []int   // by row: the entry that is its label
	cluster []int32 // by entry, ascending within a row
	score   []int64 // by entry: its score in units, without π

	whole bool // no entry of any row was left out
}

// entries returns the bounds of row r's entries.
func (c *contested) entries(r int32) (from, to int) {
	if r > 0 {
		from = c.end[r-1]
	}
	return from, c.end[r]
}

// scan gives each row whose label is not among its best under the prices the
// first that is, and returns the rows contested within the window, in units.
func (b *balancer) scan(ctx context.Context, window int64) (*contested, error) {
	found := &contested{whole: true}
	err := b.eachRow(ctx, func(ordinal int64, x []float32, clusters []int32) {
		_, zero, _ := bestEntry(x, clusters, b.v, b.lambda)
		b.score = b.score[:0]
		top, label, own := int64(math.MinInt64), int32(0), int64(math.MinInt64)
		for e, k := range clusters {
			s := int64(math.RoundToEven((kernel.Score(x[e], b.v[k], b.lambda) - zero) / b.unit))
			b.score = append(b.score, s)
			if s += b.price[k]; s > top {
				top, label = s, k
			}
			if k == b.labels[ordinal] {
				own = s
			}
		}
		if own < top {
			if old := b.labels[ordinal]; old >= 0 {
				b.counts[old]--
			}
			b.labels[ordinal] = label
			b.counts[label]++
		}
		start := len(found.score)
		at := 0
		for e, s := range b.score {
			k := clusters[e]
			if s+b.price[k] < top-window {
				continue
			}
			if k == b.labels[ordinal] {
				at = len(found.score)
			}
			found.cluster, found.score = append(found.cluster, k), append(found.score, s)
		}
		kept := len(found.score) - start
		found.whole = found.whole && kept == len(b.score)
		if kept == 1 {
			found.cluster, found.score = found.cluster[:start], found.score[:start]
			return
		}
		found.ordinal, found.end, found.at = append(found.ordinal, ordinal), append(found.end, len(found.score)), append(found.at, at)
	})
	return found, err
}

// place finds the labels of least cost. Every scan leaves each row with one of
// its best clusters under the prices, which makes any labelling an optimum for
// its counts; every repair mends the counts, seeing only entries within the
// window. A repair whose prices moved further apart than that may have left
// rows with a better entry, which the next scan corrects.
func (b *balancer) place(ctx context.Context) error {
	window := int64(1 / b.unit)
	for {
		found, err := b.scan(ctx, window)
		if err != nil {
			return err
		}
		if b.first == nil {
			b.first = slices.Clone(b.counts)
		}
		before := slices.Clone(b.price[:len(b.v)])
		stuck, err := newRepair(b, found).run(ctx)
		switch {
		case err != nil:
			return err
		case stuck == nil && (found.whole || spread(before, b.price) <= window):
			return nil
		case stuck == nil:
			window *= 2
		case found.whole:
			return stuck
		default:
			window *= 8
		}
		window = min(window, math.MaxInt64/8) // then all entries are within it
	}
}

// spread returns the largest difference between the changes from a to b.
func spread(a, b []int64) int64 {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for k := range a {
		least, most = min(least, b[k]-a[k]), max(most, b[k]-a[k])
	}
	return most - least
}
