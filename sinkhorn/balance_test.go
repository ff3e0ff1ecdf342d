package sinkhorn

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// listsOf makes lists of m with the margin at potentials v.
func listsOf(t testing.TB, m *memory, lambda float64, v []float64, margin float64, lists *Lists) (*Lists, BalanceOptions) {
	t.Helper()
	o := BalanceOptions{Lambda: lambda, ListV: v, Margin: make([]float64, m.clusters)}
	for k := range o.Margin {
		o.Margin[k] = margin
	}
	if lists == nil {
		lists = NewLists(1<<40, nil)
	}
	if _, err := NewCPU(m, 2).Pass(context.Background(), Request{Lambda: lambda, V: v, Lists: &ListRequest{Margin: o.Margin, Into: lists}}); err != nil {
		t.Fatal(err)
	}
	return lists, o
}

// balanced balances m from potentials v, nil for zero, on lists made at them,
// and checks what holds of every result.
func balanced(t testing.TB, m *memory, lambda, margin float64, v, marginals []float64) *Balanced {
	t.Helper()
	if v == nil {
		v = make([]float64, m.clusters)
	}
	lists, o := listsOf(t, m, lambda, v, margin, nil)
	o.Marginals = marginals
	got, err := Balance(context.Background(), lists, v, o)
	if err != nil {
		t.Fatal(err)
	}
	checkBalanced(t, m, got, &o)
	return got
}

// checkBalanced recomputes counts, cost and dual bound from the matrix.
func checkBalanced(t testing.TB, m *memory, got *Balanced, o *BalanceOptions) {
	t.Helper()
	n, clusters := float64(m.len()), m.clusters
	counts := make([]int64, clusters)
	cost := 0.0
	for i, label := range got.Labels {
		counts[label]++
		cost -= o.Lambda * float64(m.x[i*clusters+int(label)]) / n
	}
	if len(got.Labels) != m.len() || !slices.Equal(counts, got.Counts) {
		t.Fatalf("%d labels with counts %v, said to be %v", len(got.Labels), counts, got.Counts)
	}
	for k, count := range counts {
		share := n / float64(clusters)
		if o.Marginals != nil {
			share = n * o.Marginals[k]
		}
		if math.Abs(float64(count)-share) > 1-1e-7 {
			t.Errorf("cluster %d has %d rows, want %v, rounded up or down", k, count, share)
		}
	}
	if math.Abs(cost-got.Cost) > 1e-9*(1+math.Abs(cost)) || math.Abs(got.Cost-got.Gap-got.DualBound) > 1e-9*(1+math.Abs(cost)) || got.Gap < 0 {
		t.Errorf("cost %v, want %v; gap %v, bound %v", got.Cost, cost, got.Gap, got.DualBound)
	}
	// The bound with the counts found, of the full matrix.
	dual := 0.0
	for i := range m.len() {
		top := math.Inf(-1)
		for k, x := range m.x[i*clusters : (i+1)*clusters] {
			top = math.Max(top, o.Lambda*float64(x)+got.V[k])
		}
		dual -= top / n
	}
	for k, count := range counts {
		dual += float64(count) / n * got.V[k]
	}
	if got.DualBound > dual+1e-9*(1+math.Abs(dual)) {
		t.Errorf("bound %v exceeds the dual at the same potentials, %v", got.DualBound, dual)
	}
	if got.Unproved == 0 && (got.Gap > 1e-9 || got.DualBound < dual-1e-9*(1+math.Abs(dual))) {
		t.Errorf("proved with a gap of %v; bound %v, want %v", got.Gap, got.DualBound, dual)
	}
}

// transport is the least mean cost of a labelling with the counts allowed,
// by Bellman and Ford's shortest paths in the graph of rows and clusters: an
// oracle that shares nothing with Balance.
func transport(m *memory, lambda float64, low, high []int64) float64 {
	type arc struct {
		to, room int
		cost     float64
	}
	const must = 1e6
	n, clusters := m.len(), m.clusters
	var arcs []arc
	out := make([][]int, n+clusters+2)
	source, sink := n+clusters, n+clusters+1
	connect := func(from, to, room int, cost float64) {
		out[from], out[to] = append(out[from], len(arcs)), append(out[to], len(arcs)+1)
		arcs = append(arcs, arc{to, room, cost}, arc{from, 0, -cost})
	}
	for i := range n {
		connect(source, i, 1, 0)
		for k := range clusters {
			if x := float64(m.x[i*clusters+k]); !math.IsInf(x, -1) {
				connect(i, n+k, 1, -lambda*x)
			}
		}
	}
	forced := 0
	for k := range clusters {
		forced += int(low[k])
		connect(n+k, sink, int(low[k]), -must)
		connect(n+k, sink, int(high[k]-low[k]), 0)
	}
	total := 0.0
	for range n {
		dist, via := make([]float64, len(out)), make([]int, len(out))
		for i := range dist {
			dist[i] = math.Inf(1)
		}
		dist[source] = 0
		for changed := true; changed; {
			changed = false
			for from := range out {
				for _, a := range out[from] {
					if d := dist[from] + arcs[a].cost; arcs[a].room > 0 && d < dist[arcs[a].to]-1e-9 {
						dist[arcs[a].to], via[arcs[a].to], changed = d, a, true
					}
				}
			}
		}
		total += dist[sink]
		for at := sink; at != source; at = arcs[via[at]^1].to {
			arcs[via[at]].room--
			arcs[via[at]^1].room++
		}
	}
	return (total + must*float64(forced)) / float64(n)
}

func randomShares(r *rand.Rand, clusters int) []float64 {
	b, sum := make([]float64, clusters), 0.0
	for k := range b {
		b[k] = 0.05 + r.ExpFloat64()
		sum += b[k]
	}
	for k := range b {
		b[k] /= sum
	}
	return b
}

func TestBalanceIsOptimal(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 120 {
		clusters := 1 + r.IntN(7)
		rows := 1 + r.IntN(40)
		m := problem(uint64(n), rows, clusters, 0.1+3*r.Float64(), 2*r.Float64())
		if n%3 == 0 { // ties
			for i := range m.x {
				m.x[i] = float32(math.Round(float64(m.x[i])))
			}
		}
		var marginals []float64
		if n%2 == 0 {
			marginals = randomShares(r, clusters)
		}
		// The repair reaches the optimum from anywhere.
		v := make([]float64, clusters)
		for k := range v {
			v[k] = float64(n%4) * 10 * r.NormFloat64()
		}
		got := balanced(t, m, 5, 1e4, v, marginals)
		low, high := quotas(marginals, int64(rows), clusters)
		if want := transport(m, 5, low, high); math.Abs(got.Cost-want) > 1e-9*(1+want) || got.Unproved != 0 {
			t.Errorf("problem %d, %d×%d: cost %v, want %v; %d rows unproved", n, rows, clusters, got.Cost, want, got.Unproved)
		}
	}
}

func TestBalanceShapes(t *testing.T) {
	same := func(rows, clusters int) *memory {
		m := problem(3, 1, clusters, 1, 1)
		for len(m.x) < rows*clusters {
			m.x = append(m.x, m.x[:clusters]...)
		}
		return m
	}
	twice := problem(4, 1000, 12, 2, 1)
	twice.x = append(twice.x, twice.x...)
	half := problem(4, 1000, 12, 2, 1) // and a thousand copies of the first row
	for range 1000 {
		half.x = append(half.x, half.x[:12]...)
	}
	dead := problem(5, 2000, 8, 1, 0)
	for i := 3; i < len(dead.x); i += 8 {
		dead.x[i] -= 60
	}
	for _, c := range []struct {
		name string
		m    *memory
	}{
		{"one cluster", problem(1, 50, 1, 1, 0)}, {"one row", problem(1, 1, 1, 1, 0)}, {"two clusters", problem(1, 2001, 2, 3, 2)},
		{"N=K", problem(1, 150, 150, 2, 1)}, {"N<K", problem(1, 40, 60, 2, 1)}, {"N=K, equal rows", same(30, 30)},
		{"equal rows", same(3001, 7)}, {"all twice", twice}, {"half equal", half}, {"dead cluster", dead},
		{"flat", &memory{x: make([]float32, 1100*9), clusters: 9}}, {"not divisible", problem(2, 5003, 41, 3, 1.5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := balanced(t, c.m, 25, 1e5, nil, nil)
			if got.Unproved != 0 {
				t.Errorf("%d rows unproved on whole rows", got.Unproved)
			}
			t.Logf("surplus %d, moved %d, gap %g", got.Surplus, got.Moved, got.Gap)
		})
	}
}

// TestBalanceTies fixes which of equal rows go where.
func TestBalanceTies(t *testing.T) {
	m := &memory{clusters: 3}
	for range 9 {
		m.x = append(m.x, -1, -1, -1)
	}
	first := balanced(t, m, 10, 100, nil, nil)
	if again := balanced(t, m, 10, 100, nil, nil); !slices.Equal(first.Labels, again.Labels) {
		t.Errorf("labels %v, then %v", first.Labels, again.Labels)
	}
	if want := []int32{1, 1, 1, 2, 2, 2, 0, 0, 0}; !slices.Equal(first.Labels, want) {
		t.Errorf("labels %v, want those of the lowest rows to move first, to the lowest clusters: %v", first.Labels, want)
	}
}

// peaked is a problem with potentials that converged on its lists.
func peaked(t testing.TB, seed uint64, rows, clusters int) (*memory, *Lists, []float64, BalanceOptions) {
	m := problem(seed, rows, clusters, 3, 1)
	zero := make([]float64, clusters)
	lists, o := listsOf(t, m, 25, zero, 1e5, nil)
	v := slices.Clone(zero)
	b, _ := (&Options{}).marginals(clusters)
	if _, err := newListProblem(lists, b, 25, 2).solve(context.Background(), v, newtonOptions{tol: 1e-6, steps: 60}); err != nil {
		t.Fatal(err)
	}
	lists, o = listsOf(t, m, 25, v, 45, nil)
	return m, lists, v, o
}

func TestBalanceOnLists(t *testing.T) {
	m, lists, v, o := peaked(t, 9, 6007, 50)
	if mean := float64(lists.Entries()) / 6007; mean > 15 {
		t.Fatalf("%v entries a row are no lists", mean)
	}
	got, err := Balance(context.Background(), lists, v, o)
	if err != nil {
		t.Fatal(err)
	}
	checkBalanced(t, m, got, &o)
	if got.Unproved != 0 || got.Surplus == 0 || got.Moved < got.Surplus || got.Moved > 600 {
		t.Errorf("%d unproved, surplus %d, moved %d", got.Unproved, got.Surplus, got.Moved)
	}
	whole, all := listsOf(t, m, 25, v, 1e5, nil)
	best, err := Balance(context.Background(), whole, v, all)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(best.Cost-got.Cost) > 1e-9 || !slices.Equal(best.Labels, got.Labels) {
		t.Errorf("cost %v on lists, %v on whole rows", got.Cost, best.Cost)
	}

	file, err := os.Create(filepath.Join(t.TempDir(), "spill"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	spilled, _ := listsOf(t, m, 25, v, 45, NewLists(0, file))
	if other, err := Balance(context.Background(), spilled, v, o); err != nil || !slices.Equal(other.Labels, got.Labels) || other.Cost != got.Cost {
		t.Errorf("spilled lists give another result: %v", err)
	}

	// Rows in another order get the same labels.
	order := rand.New(rand.NewPCG(1, 2)).Perm(m.len())
	mixed := &memory{clusters: m.clusters}
	for _, i := range order {
		mixed.x = append(mixed.x, m.x[i*m.clusters:(i+1)*m.clusters]...)
	}
	shuffled, _ := listsOf(t, mixed, 25, v, 45, nil)
	other, err := Balance(context.Background(), shuffled, v, o)
	if err != nil {
		t.Fatal(err)
	}
	for at, i := range order {
		if other.Labels[at] != got.Labels[i] {
			t.Fatalf("row %d has label %d, alone %d in another order", i, got.Labels[i], other.Labels[at])
		}
	}
}

// TestBalanceUnproved makes lists at other potentials, with a margin that the
// repair exceeds: the bound has to hold all the same.
func TestBalanceUnproved(t *testing.T) {
	m, _, v, _ := peaked(t, 10, 3000, 20)
	found := false
	for _, margin := range []float64{150, 100, 60, 30} {
		lists, o := listsOf(t, m, 25, make([]float64, 20), margin, nil)
		got, err := Balance(context.Background(), lists, v, o)
		var unplaced *UnplacedError
		if errors.As(err, &unplaced) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		checkBalanced(t, m, got, &o)
		t.Logf("margin %v: %d unproved, gap %v", margin, got.Unproved, got.Gap)
		if got.Unproved > 0 {
			found = true
			if got.Gap <= 0 {
				t.Errorf("no gap although %d rows are unproved", got.Unproved)
			}
		}
	}
	if !found {
		t.Error("every margin proved the labels")
	}
}

func TestBalanceUnplaced(t *testing.T) {
	// Cluster 2 is on the lists of 3 rows of 90 only.
	m := &memory{clusters: 3}
	for i := range 90 {
		if i < 3 {
			m.x = append(m.x, -1, -1, -1)
		} else {
			m.x = append(m.x, -1, -1.1, -40)
		}
	}
	v := make([]float64, 3)
	lists, o := listsOf(t, m, 10, v, 20, nil)
	_, err := Balance(context.Background(), lists, v, o)
	var unplaced *UnplacedError
	if !errors.As(err, &unplaced) || unplaced.Rows != 27 || !slices.Equal(unplaced.Clusters, []int{2}) {
		t.Fatalf("%v, want 27 rows without a place for want of cluster 2", err)
	}
	o.Margin[2] = 1000
	if _, err := NewCPU(m, 1).Pass(context.Background(), Request{Lambda: 10, V: v, Lists: &ListRequest{Margin: o.Margin, Into: lists}}); err != nil {
		t.Fatal(err)
	}
	got, err := Balance(context.Background(), lists, v, o)
	if err != nil {
		t.Fatal(err)
	}
	checkBalanced(t, m, got, &o)
}

// expiring is a context that is cancelled when it has been looked at a number
// of times.
type expiring struct {
	context.Context
	looks int
}

func (e *expiring) Err() error {
	if e.looks--; e.looks < 0 {
		return context.Canceled
	}
	return nil
}

func TestBalanceRefuses(t *testing.T) {
	m, lists, v, good := peaked(t, 11, 1500, 6)
	for calls := 0; ; calls++ {
		_, err := Balance(&expiring{context.Background(), calls}, lists, v, good)
		if err == nil && calls > 2*lists.Chunks() {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at look %d: %v", calls, err)
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "spill"))
	if err != nil {
		t.Fatal(err)
	}
	spilled, _ := listsOf(t, m, 25, v, 45, NewLists(0, file))
	file.Close()
	if _, err := Balance(context.Background(), spilled, v, good); !errors.Is(err, os.ErrClosed) {
		t.Errorf("lists in a closed file: %v", err)
	}
	for name, spoil := range map[string]func(o *BalanceOptions) []float64{
		"lambda":          func(o *BalanceOptions) []float64 { o.Lambda = 0; return v },
		"potentials":      func(*BalanceOptions) []float64 { return v[1:] },
		"list potentials": func(o *BalanceOptions) []float64 { o.ListV = nil; return v },
		"margins":         func(o *BalanceOptions) []float64 { o.Margin = make([]float64, 6); return v },
		"marginals":       func(o *BalanceOptions) []float64 { o.Marginals = []float64{.5, .5}; return v },
		"shares":          func(o *BalanceOptions) []float64 { o.Marginals = []float64{.5, .5, .1, .1, .1, .1}; return v },
	} {
		o := good
		if _, err := Balance(context.Background(), lists, spoil(&o), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := NewLists(0, nil)
	empty.reset(6, 0)
	if _, err := Balance(context.Background(), empty, v, good); !errors.Is(err, ErrNoRows) {
		t.Errorf("no rows: %v", err)
	}
	far := slices.Clone(v)
	far[0] = 1e18
	if _, err := Balance(context.Background(), lists, far, good); !errors.Is(err, ErrOptions) {
		t.Errorf("potentials 1e18 nats apart: %v", err)
	}
}

func TestQuotas(t *testing.T) {
	low, high := quotas([]float64{0.1, 0.2, 0.7}, 10, 3)
	if !slices.Equal(low, []int64{1, 2, 7}) || !slices.Equal(high, low) {
		t.Errorf("%v to %v of 10 rows", low, high)
	}
	low, high = quotas([]float64{0.25, 0.75}, 10, 2)
	if !slices.Equal(low, []int64{2, 7}) || !slices.Equal(high, []int64{3, 8}) {
		t.Errorf("%v to %v of 10 rows", low, high)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		b := randomShares(r, 1+r.IntN(3000))
		rows := 1 + r.Int64N(1e9)
		low, high := quotas(b, rows, len(b))
		least, most := int64(0), int64(0)
		for k := range b {
			least, most = least+low[k], most+high[k]
		}
		if least > rows || most < rows {
			t.Errorf("%d clusters: %d to %d of %d rows", len(b), least, most, rows)
		}
	}
}

// TestSlotSlack gives the slots of two clusters to the one that rows want less.
func TestSlotSlack(t *testing.T) {
	b := &balancer{low: []int64{1, 1, 4}, high: []int64{2, 2, 4}, counts: []int64{2, 1, 4}}
	for _, c := range []struct{ first, second, want float64 }{{1, 3, 0}, {2, 2, 0}, {3, 1, 2}} {
		if got := b.slotSlack([]float64{c.first, c.second, -9}); got != c.want {
			t.Errorf("potentials %v and %v: %v, want %v", c.first, c.second, got, c.want)
		}
	}
}

func FuzzBalance(f *testing.F) {
	f.Add(uint64(1), uint8(20), uint8(4), []byte{1, 2, 3})
	f.Add(uint64(2), uint8(7), uint8(7), []byte{})
	f.Fuzz(func(t *testing.T, seed uint64, rows, clusters uint8, levels []byte) {
		n, k := 1+int(rows)%24, 1+int(clusters)%6
		r := rand.New(rand.NewPCG(seed, 1))
		m := &memory{x: make([]float32, n*k), clusters: k}
		for i := range m.x {
			m.x[i] = -float32(r.IntN(5))
			if i < len(levels) {
				m.x[i] = -float32(levels[i]) / 8
			}
		}
		marginals := randomShares(r, k)
		got := balanced(t, m, 1+9*r.Float64(), 1e4, nil, marginals)
		low, high := quotas(marginals, int64(n), k)
		for j, count := range got.Counts {
			if count < low[j] || count > high[j] {
				t.Errorf("cluster %d has %d rows, want %d to %d", j, count, low[j], high[j])
			}
		}
	})
}
