package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// repair moves contested rows along shortest paths in the graph of clusters:
// the edge j → k costs the least that a row labelled j loses by moving to k.
// A last node stands for the slots above low: k → last gives cluster k one,
// last → k takes it back. Prices keep every cost at zero or more, which is the
// optimality of the labels for the counts they have.
type repair struct {
	*balancer
	found   *contested
	rows    [][]int32 // [K] rows of label k, until column k is built
	columns []*column // [K] nil until needed
	mark    []bool    // [K] scratch, false
	excess  []int64   // [K+1] rows above what the cluster is to have, negative below

	dist  []int64 // [K+1]
	from  []int32 // [K+1] the node before on the shortest path, −1 at its start
	done  []bool  // [K+1]
	seen  []int32 // nodes with dist set
	queue ranks

	targets []int32 // of shortest
}

// column holds the edges out of a cluster.
type column struct {
	to   []int32 // ascending
	rows []ranks // by edge: rows by what they lose; those since moved are dropped late
}

func newRepair(b *balancer, found *contested) *repair {
	nodes := len(b.v) + 1
	r := &repair{
		balancer: b, found: found,
		rows: make([][]int32, nodes), columns: make([]*column, nodes), mark: make([]bool, nodes), excess: make([]int64, nodes),
		dist: make([]int64, nodes), from: make([]int32, nodes), done: make([]bool, nodes),
	}
	for k := range b.v {
		r.excess[k] = b.counts[k] - b.low[k]
		if b.extra[k] {
			r.excess[k]--
		}
	}
	for k := range r.dist {
		r.dist[k] = math.MaxInt64
	}
	for i := range found.end {
		k := found.cluster[found.at[i]]
		r.rows[k] = append(r.rows[k], int32(i))
	}
	return r
}

// surplus counts the rows of clusters with too many.
func (r *repair) surplus() (n int64) {
	for _, e := range r.excess {
		n += max(0, e)
	}
	return n
}

// run moves rows until the counts are those wanted, or no path leads from a
// cluster with too many to one with too few, and hands the labels back.
func (r *repair) run(ctx context.Context) (*UnplacedError, error) {
	defer r.handBack()
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("sinkhorn: balance stopped: %w", ctx.Err())
		}
		surplus := r.surplus()
		if surplus == 0 {
			return nil, nil
		}
		targets := r.shortest()
		if len(targets) == 0 {
			stuck := &UnplacedError{Rows: surplus}
			for k, e := range r.excess {
				if e < 0 {
					stuck.Clusters = append(stuck.Clusters, k)
				}
			}
			return stuck, nil
		}
		for _, target := range targets {
			r.augment(target)
		}
	}
}

func (r *repair) handBack() {
	for i, ordinal := range r.found.ordinal {
		k := r.found.cluster[r.found.at[i]]
		if old := r.labels[ordinal]; old != k {
			r.counts[old]--
			r.counts[k]++
			r.labels[ordinal] = k
		}
	}
}

// shortest finds cheapest paths from the clusters with too many rows to some of
// those with too few, the cheapest first, and adds distances to the prices so
// that their edges cost nothing. It returns the paths' ends, none if there is
// no path. A part of the sources that grows with their number is served at a
// time: paths from different ones seldom share a row.
func (r *repair) shortest() []int32 {
	for _, k := range r.seen {
		r.dist[k], r.done[k] = math.MaxInt64, false
	}
	r.seen, r.queue, r.targets = r.seen[:0], r.queue[:0], r.targets[:0]
	sources := 0
	for k, e := range r.excess {
		if e > 0 {
			sources++
			r.relax(-1, int32(k), 0)
		}
	}
	end := int64(0)
	for len(r.queue) > 0 && len(r.targets) <= sources/4 {
		next := r.queue.pop()
		k := next.id
		if r.done[k] {
			continue
		}
		r.done[k] = true
		if r.excess[k] < 0 {
			r.targets, end = append(r.targets, k), next.cost
		}
		r.expand(k)
	}
	for _, k := range r.seen {
		if r.done[k] {
			r.price[k] -= max(0, end-r.dist[k])
		}
	}
	return r.targets
}

// relax notes a path to k over j.
func (r *repair) relax(j, k int32, dist int64) {
	if dist >= r.dist[k] {
		return
	}
	if r.dist[k] == math.MaxInt64 {
		r.seen = append(r.seen, k)
	}
	r.dist[k], r.from[k] = dist, j
	r.queue.push(rank{dist, k})
}

// expand relaxes the edges out of j.
func (r *repair) expand(j int32) {
	last := int32(len(r.v))
	if j == last {
		for k, extra := range r.extra {
			if extra {
				r.relax(last, int32(k), r.dist[last]+r.cost(last, int32(k)))
			}
		}
		return
	}
	if r.high[j] > r.low[j] && !r.extra[j] {
		r.relax(j, last, r.dist[j]+r.cost(j, last))
	}
	column := r.column(j)
	for i, k := range column.to {
		if r.done[k] {
			continue
		}
		if top, ok := r.top(j, &column.rows[i]); ok {
			r.relax(j, k, r.dist[j]+top.cost+r.price[j]-r.price[k])
		}
	}
}

// cost returns the cost of an edge under the prices, −1 if there is none.
func (r *repair) cost(j, k int32) int64 {
	last := int32(len(r.v))
	switch {
	case j == last && r.extra[k]:
		return r.price[last] - r.price[k] - r.slot[k]
	case k == last && j != last && r.high[j] > r.low[j] && !r.extra[j]:
		return r.price[j] + r.slot[j] - r.price[last]
	case j == last || k == last:
		return -1
	}
	column := r.column(j)
	if i, ok := slices.BinarySearch(column.to, k); ok {
		if top, ok := r.top(j, &column.rows[i]); ok {
			return top.cost + r.price[j] - r.price[k]
		}
	}
	return -1
}

// top returns the row of label j that loses least on an edge, the lowest of
// equals.
func (r *repair) top(j int32, rows *ranks) (rank, bool) {
	for len(*rows) > 0 {
		top := (*rows)[0]
		if r.found.cluster[r.found.at[top.id]] == j {
			return top, true
		}
		rows.pop()
	}
	return rank{}, false
}

// column returns the edges out of j.
func (r *repair) column(j int32) *column {
	if r.columns[j] != nil {
		return r.columns[j]
	}
	c := &column{}
	for _, row := range r.rows[j] {
		from, to := r.found.entries(row)
		for _, k := range r.found.cluster[from:to] {
			if !r.mark[k] && k != j {
				r.mark[k] = true
				c.to = append(c.to, k)
			}
		}
	}
	slices.Sort(c.to)
	for _, k := range c.to {
		r.mark[k] = false
	}
	c.rows = make([]ranks, len(c.to))
	r.columns[j] = c
	for _, row := range r.rows[j] {
		r.offer(row)
	}
	r.rows[j] = nil
	return c
}

// offer adds a row to the edges out of its cluster.
func (r *repair) offer(row int32) {
	own := r.found.at[row]
	column := r.columns[r.found.cluster[own]]
	from, to := r.found.entries(row)
	for e := from; e < to; e++ {
		if e == own {
			continue
		}
		k := r.found.cluster[e]
		i, ok := slices.BinarySearch(column.to, k)
		if !ok {
			column.to = slices.Insert(column.to, i, k)
			column.rows = slices.Insert(column.rows, i, nil)
		}
		column.rows[i].push(rank{r.found.score[own] - r.found.score[e], row})
	}
}

// augment moves rows along the path to target for as long as it costs
// nothing: many times where rows are equal.
func (r *repair) augment(target int32) {
	path := []int32{target}
	for r.from[path[0]] >= 0 {
		path = slices.Insert(path, 0, r.from[path[0]])
	}
	for r.excess[path[0]] > 0 && r.excess[target] < 0 {
		for i, k := range path[1:] {
			if r.cost(path[i], k) != 0 {
				return
			}
		}
		for i, k := range path[1:] {
			r.move(path[i], k)
		}
		r.excess[path[0]]--
		r.excess[target]++
	}
}

// move takes one row, or the spare slot, over an edge.
func (r *repair) move(j, k int32) {
	last := int32(len(r.v))
	switch {
	case j == last:
		r.extra[k] = false
	case k == last:
		r.extra[j] = true
	default:
		column := r.column(j)
		i, _ := slices.BinarySearch(column.to, k)
		row := column.rows[i].pop().id
		from, to := r.found.entries(row)
		at, _ := slices.BinarySearch(r.found.cluster[from:to], k)
		r.found.at[row] = from + at
		r.offer(row)
	}
}

// rank orders rows or nodes by cost, the lowest of equals first.
type rank struct {
	cost int64
	id   int32
}

func (a rank) before(b rank) bool {
	return a.cost < b.cost || a.cost == b.cost && a.id < b.id
}

// ranks is a binary heap.
type ranks []rank

func (h *ranks) push(x rank) {
	s := append(*h, x)
	i := len(s) - 1
	for i > 0 && x.before(s[(i-1)/2]) {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = x
	*h = s
}

func (h *ranks) pop() rank {
	s := *h
	top, x := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	i := 0
	for 2*i+1 < len(s) {
		child := 2*i + 1
		if child+1 < len(s) && s[child+1].before(s[child]) {
			child++
		}
		if !s[child].before(x) {
			break
		}
		s[i] = s[child]
		i = child
	}
	if len(s) > 0 {
		s[i] = x
	}
	return top
}
