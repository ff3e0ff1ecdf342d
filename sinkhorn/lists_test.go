package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

// spillFile is a Spill that fails after a number of bytes.
type spillFile struct {
	*os.File
	limit int64 // of writing, −1 for none
	wrote int64
}

func newSpill(t testing.TB, limit int64) *spillFile {
	f, err := os.Create(filepath.Join(t.TempDir(), "lists"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &spillFile{File: f, limit: limit}
}

func (f *spillFile) WriteAt(b []byte, at int64) (int, error) {
	if f.limit >= 0 && at+int64(len(b)) > f.limit {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	f.wrote += int64(len(b))
	return f.File.WriteAt(b, at)
}

// makeLists makes the lists of m at v, and what the pass found.
func makeLists(t testing.TB, m *memory, lambda float64, v, margin []float64, memory int64, spill Spill) (*Lists, *PassResult) {
	t.Helper()
	lists := NewLists(memory, spill)
	r, err := NewCPU(m, 2).Pass(context.Background(), Request{Lambda: lambda, V: v, Certify: true, LogMass: true, Lists: &ListRequest{Margin: margin, Into: lists}})
	if err != nil {
		t.Fatal(err)
	}
	return lists, r
}

// listRows returns the lists as a dense matrix, −Inf where not listed.
func listRows(t testing.TB, lists *Lists, clusters int) *memory {
	t.Helper()
	m := &memory{clusters: clusters}
	var buf ListBuffer
	for i := range lists.Chunks() {
		c, err := lists.Chunk(i, &buf)
		if err != nil {
			t.Fatal(err)
		}
		first := int32(0)
		for r, end := range c.End {
			m.rows = append(m.rows, c.Rows[r])
			row := make([]float32, clusters)
			for k := range row {
				row[k] = float32(math.Inf(-1))
			}
			for e := first; e < end; e++ {
				row[c.Cluster[e]] = c.X[e]
			}
			m.x = append(m.x, row...)
			first = end
		}
	}
	return m
}

func normals(r *rand.Rand, n int, scale float64) []float64 {
	v := make([]float64, n)
	for k := range v {
		v[k] = scale * r.NormFloat64()
	}
	return v
}

// shares returns random marginals: uniform, a power law, or one cluster with
// 60 % of the rows.
func shares(r *rand.Rand, kind string, clusters int) []float64 {
	b, sum := make([]float64, clusters), 0.0
	for k, at := range r.Perm(clusters) {
		switch kind {
		case "power law":
			b[k] = 1 / float64(at+1)
		case "one large":
			b[k] = 0.4 / float64(clusters)
			if at == 0 {
				b[k] = 0.6
			}
		default:
			b[k] = 1
		}
		sum += b[k]
	}
	for k := range b {
		b[k] /= sum
	}
	return b
}

// TestListsHoldWhatTheyPromise compares lists with the rows they were made of:
// entries within their column's margin, no other; Dropped is the mean of the
// rest.
func TestListsHoldWhatTheyPromise(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		clusters := 2 + r.IntN(90)
		m := problem(seed, 1000+r.IntN(2500), clusters, 1+2*r.Float64(), 0.5)
		for range 300 {
			m.x[r.IntN(m.len())*clusters+r.IntN(clusters-1)] = float32(math.Inf(-1))
		}
		lambda, v, margin := 5+20*r.Float64(), normals(r, clusters, 10), make([]float64, clusters)
		for k := range margin {
			margin[k] = []float64{0.5, 8, 45, 270}[r.IntN(4)]
		}
		lists, pass := makeLists(t, m, lambda, v, margin, 1<<30, nil)
		back := listRows(t, lists, clusters)
		if lists.Rows() != int64(m.len()) || back.len() != m.len() {
			t.Fatalf("%d lists of %d rows", lists.Rows(), m.len())
		}
		dropped, entries := make([]float64, clusters), int64(0)
		for i := range m.len() {
			x := m.x[i*clusters : (i+1)*clusters]
			top, sum := math.Inf(-1), 0.0
			for k := range x {
				top = max(top, float64(lambda*float64(x[k]))+v[k])
			}
			for k := range x {
				sum += math.Exp(lambda*float64(x[k]) + v[k] - top)
			}
			for k, got := range back.x[i*clusters : (i+1)*clusters] {
				below := top - (float64(lambda*float64(x[k])) + v[k])
				if below <= margin[k] {
					entries++
				}
				switch has := !math.IsInf(float64(got), -1); {
				case has != (below <= margin[k]) || has && got != x[k]:
					t.Fatalf("row %d, cluster %d: %v nats below the best, margin %v, listed %v as %v", i, k, below, margin[k], has, got)
				case !has:
					dropped[k] += math.Exp(-below) / sum / float64(m.len())
				}
			}
		}
		if lists.Entries() != entries {
			t.Errorf("%d entries, want %d", lists.Entries(), entries)
		}
		for k, want := range dropped {
			if d := pass.Dropped[k] - want; d > 1e-12*want || d < -DroppedTail-1e-12*want {
				t.Errorf("cluster %d: dropped %g, want %g less at most %g", k, pass.Dropped[k], want, DroppedTail)
			}
		}
	}
}

// TestDroppedBound makes random moves, inside the box and far outside: the
// bound holds for the shares, and where it says so no dropped entry wins or
// comes closer than the gap.
func TestDroppedBound(t *testing.T) {
	wins, loses, tight := 0, 0, 0.0
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 2))
		clusters := 2 + r.IntN(40)
		m := problem(seed, 200+r.IntN(200), clusters, 0.3+3*r.Float64(), r.Float64())
		lambda, v0, margin := 1+30*r.Float64(), normals(r, clusters, 5), make([]float64, clusters)
		for k := range margin {
			margin[k] = 0.3 + 20*r.Float64()
		}
		lists, pass := makeLists(t, m, lambda, v0, margin, 1<<30, nil)
		only := listRows(t, lists, clusters)
		b := evenShares(clusters)
		for range 6 {
			v := normals(r, clusters, []float64{0.01, 1, 5, 30}[r.IntN(4)])
			for k := range v {
				v[k] += v0[k] + 7
			}
			bound, gap := droppedBound(v0, v, margin, pass.Dropped)
			all, some := evaluateDense(m, lambda, b, v), evaluateDense(&memory{clusters: clusters, x: only.x}, lambda, b, v)
			l1 := 0.0
			for k := range v {
				l1 += math.Abs(all.mass[k] - some.mass[k])
			}
			if l1 > 2*bound+1e-14 {
				t.Fatalf("seed %d: shares differ by %g, bound 2·%g", seed, l1, bound)
			}
			if bound < 1 {
				tight = max(tight, l1/(2*bound))
			}
			if gap > 0 {
				wins++
				if !reflect.DeepEqual(all.labels, some.labels) || all.tied != some.tied {
					t.Fatalf("seed %d: a dropped entry wins, gap %g", seed, gap)
				}
				if margin := min(some.margin, gap); margin > all.margin || margin < gap && margin != all.margin {
					t.Fatalf("seed %d: smallest margin %g, on lists %g, gap %g", seed, all.margin, some.margin, gap)
				}
			} else if !reflect.DeepEqual(all.labels, some.labels) {
				loses++
			}
		}
	}
	t.Logf("%d moves with a gap, %d where a dropped entry won, closest to the bound: %.3g of it", wins, loses, tight)
	if wins < 100 || loses < 20 || tight < 0.1 {
		t.Error("the moves test nothing")
	}
}

// TestListProblem compares F, gradient and Hessian with dense ones and with
// differences.
func TestListProblem(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 3))
		clusters := 1 + r.IntN(60)
		m := problem(seed, 900+r.IntN(18*ChunkRows), clusters, 1.5, 0.4)
		lambda, v := 2+10*r.Float64(), normals(r, clusters, 3)
		b := shares(r, []string{"uniform", "power law", "one large"}[seed%3], clusters)
		margin := listMargins(nil, b)
		for k := range margin {
			margin[k] = 12
		}
		lists, _ := makeLists(t, m, lambda, v, margin, 1<<30, nil)
		only := listRows(t, lists, clusters)
		only.rows = nil
		p := newListProblem(lists, b, lambda, 3)
		at := append([]float64(nil), v...)
		for k := range at {
			at[k] += 2 * r.NormFloat64()
		}
		val, err := p.evaluate(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		want := evaluateDense(only, lambda, b, at)
		if math.Abs(val.f-want.f) > 1e-12*(1+math.Abs(want.f)) {
			t.Errorf("F = %v, want %v", val.f, want.f)
		}
		for k, mass := range want.mass {
			if math.Abs(val.mass[k]-mass) > 1e-14 {
				t.Errorf("share of cluster %d is %v, want %v", k, val.mass[k], mass)
			}
		}
		d, hd := normals(r, clusters, 1), make([]float64, clusters)
		if err := p.product(ctx, hd, d); err != nil {
			t.Fatal(err)
		}
		const h = 1e-4
		up, down := make([]float64, clusters), make([]float64, clusters)
		for k := range at {
			up[k], down[k] = at[k]+h*d[k], at[k]-h*d[k]
		}
		plus, minus := evaluateDense(only, lambda, b, up), evaluateDense(only, lambda, b, down)
		for k := range hd {
			if diff := (plus.mass[k] - minus.mass[k]) / (2 * h); math.Abs(hd[k]-diff) > 2e-7 {
				t.Errorf("(H·d)_%d = %v, by differences %v", k, hd[k], diff)
			}
		}
		slope := (plus.f - minus.f) / (2 * h)
		if g := dot(val.mass, d) - dot(b, d); math.Abs(slope-g) > 1e-6 {
			t.Errorf("∇F·d = %v, by differences %v", g, slope)
		}
		// The diagonal is that of the products with unit vectors.
		for k := range clusters {
			unit := make([]float64, clusters)
			unit[k] = 1
			if err := p.product(ctx, hd, unit); err != nil {
				t.Fatal(err)
			}
			if math.Abs(hd[k]-val.diagonal[k]) > 1e-8 {
				t.Fatalf("diagonal %d is %v, product %v", k, val.diagonal[k], hd[k])
			}
		}
	}
}

// TestListBits solves on lists in memory, spilled in part and spilled whole,
// by any number of workers: the same bits.
func TestListBits(t *testing.T) {
	ctx := context.Background()
	m := family("B", 4, 18*ChunkRows, 60, 3)
	for i := range m.len() { // gaps, and an empty chunk
		row := int64(i + i/5000)
		if i >= 3*ChunkRows {
			row += ChunkRows
		}
		m.rows = append(m.rows, row)
	}
	b := shares(rand.New(rand.NewPCG(1, 1)), "power law", 60)
	v0, margin := make([]float64, 60), listMargins(nil, b)
	type outcome struct {
		val      *listValue
		v, hd    []float64
		out      listOutcome
		labelled *PassResult
	}
	var want *outcome
	for _, memory := range []int64{1 << 30, 300 << 10, 0} {
		spill := newSpill(t, -1)
		lists, _ := makeLists(t, m, 25, v0, margin, memory, spill)
		if (spill.wrote > 0) != (memory < 1<<30) || memory > 0 && memory < 1<<30 && (lists.used == 0 || lists.used > memory) {
			t.Errorf("%d bytes allowed: %d in memory, %d spilled", memory, lists.used, spill.wrote)
		}
		for _, workers := range []int{1, 2, 7} {
			if raceEnabled && workers == 2 {
				continue
			}
			p := newListProblem(lists, b, 25, workers)
			got := &outcome{v: normals(rand.New(rand.NewPCG(8, 8)), 60, 1), hd: make([]float64, 60)}
			low, high := listBox(v0, margin)
			var err error
			if got.out, err = p.solve(ctx, got.v, newtonOptions{tol: 1e-8, low: low, high: high, steps: 8}); err != nil {
				t.Fatal(err)
			}
			if got.val, err = p.evaluate(ctx, got.v); err != nil {
				t.Fatal(err)
			}
			if err = p.product(ctx, got.hd, v0); err != nil {
				t.Fatal(err)
			}
			if got.labelled, err = p.certify(ctx, got.v, v0, 1); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%d bytes, %d workers: other bits", memory, workers)
			}
		}
	}
}

// TestCertifyOnLists compares what lists certify with a full pass, the
// potentials having moved a little.
func TestCertifyOnLists(t *testing.T) {
	ctx := context.Background()
	m := family("B", 6, 5000, 60, 3)
	b, v0 := evenShares(60), make([]float64, 60)
	lists, pass := makeLists(t, m, 25, v0, listMargins(nil, b), 1<<30, nil)
	v := normals(newRand(9), 60, 2)
	got, err := newListProblem(lists, b, 25, 2).certify(ctx, v, v0, pass.MaxRange)
	if err != nil {
		t.Fatal(err)
	}
	want, err := NewCPU(m, 2).Pass(ctx, Request{Lambda: 25, V: v, Previous: v0, Certify: true})
	if err != nil {
		t.Fatal(err)
	}
	if want.Changed < 100 || got.Changed != want.Changed || !reflect.DeepEqual(got.Counts, want.Counts) || got.TiedRows != want.TiedRows || got.MinMargin != want.MinMargin || got.Rows != want.Rows || got.MaxRange != want.MaxRange {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, x := range [][2]float64{{got.MeanLSE, want.MeanLSE}, {got.MinLSE, want.MinLSE}, {got.MaxLSE, want.MaxLSE}} {
		if math.Abs(x[0]-x[1]) > 1e-9 {
			t.Errorf("log-sum-exp %v, want %v", x[0], x[1])
		}
	}
}

// TestSpillFaults fills the disk, and reads a spill that lost its end.
func TestSpillFaults(t *testing.T) {
	ctx := context.Background()
	m := family("B", 4, 6*ChunkRows, 60, 3)
	margin := listMargins(nil, evenShares(60))
	spill := newSpill(t, 100<<10)
	for _, o := range []Options{{Memory: 1, Spill: spill}, {Memory: 1, Spill: spill, Sample: split(m, 2000)}} {
		if _, err := Solve(ctx, NewCPU(m, 2), o); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v, want one of a full disk", err)
		} else if want := "sinkhorn: spill lists of chunk"; len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
			t.Errorf("error %q does not say what failed", err)
		}
	}
	spill.limit = -1
	lists, _ := makeLists(t, m, 25, make([]float64, 60), margin, 1, spill)
	if err := spill.Truncate(lists.spilled / 2); err != nil {
		t.Fatal(err)
	}
	p := newListProblem(lists, evenShares(60), 25, 2)
	if _, err := p.evaluate(ctx, make([]float64, 60)); !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want the end of the file", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.evaluate(cancelled, make([]float64, 60)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancellation", err)
	}
}

// TestMemoryOfLists allows too little memory: without a spill L-BFGS takes
// over, with one the result is that of memory, bit for bit. A sample is bound by
// the same memory.
func TestMemoryOfLists(t *testing.T) {
	m := family("C", 5, 12000, 100, 3)
	for _, sampled := range []bool{false, true} {
		o := Options{Workers: 2}
		if sampled {
			o.Sample = split(m, 3000)
		}
		t.Run(fmt.Sprintf("sample=%v", sampled), func(t *testing.T) {
			want := solve(t, m, o)
			verify(t, m, o, want)
			if c := want.Certificate; c.Way != phaseLists || c.Proof != ProofBound {
				t.Fatalf("%+v", c)
			}
			for _, memory := range []int64{1, 50 << 10} {
				o := o
				o.Memory = memory
				without := solve(t, m, o)
				verify(t, m, o, without)
				if c := without.Certificate; c.Way != phaseLBFGS || c.Status != Converged || distance(without.V, want.V) > 1e-2 {
					t.Errorf("%d bytes: %v by %s, potentials differ by %g", memory, c.Status, c.Way, distance(without.V, want.V))
				}
				spill := newSpill(t, -1)
				o.Spill = spill
				if got := solve(t, m, o); !reflect.DeepEqual(got, want) || spill.wrote == 0 {
					t.Errorf("%d bytes, %d spilled: %+v\nwant %+v", memory, spill.wrote, got.Certificate, want.Certificate)
				}
			}
		})
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
