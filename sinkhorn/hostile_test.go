package sinkhorn

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// TestRefusedBySemidual has rows that no method can assign, in all rows or
// only in a sample.
func TestRefusedBySemidual(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	clean := family("B", 31, 4000, 60, 3)
	for _, c := range []struct {
		value  float32
		all    bool
		reason string
	}{{nan, false, "cluster 2 is NaN"}, {inf, false, "cluster 2 is +Inf"}, {-inf, true, "every log-probability is -Inf"}} {
		spoil := func(m *memory) *memory {
			for _, row := range []int{501, 777} {
				for k := range 60 {
					if c.all || k == 2 {
						m.x[row*60+k] = c.value
					}
				}
			}
			return m
		}
		bad := spoil(family("B", 31, 4000, 60, 3))
		for name, solve := range map[string]struct {
			m   *memory
			o   Options
			row int64
		}{
			"lists": {bad, Options{}, 501}, "lbfgs": {bad, Options{Method: MethodLBFGS}, 501},
			"start": {bad, Options{Start: make([]float64, 60)}, 501}, "clean sample": {bad, Options{Sample: split(clean, 700)}, 501},
			"solving sample": {clean, Options{Sample: func() *Sample {
				s := split(clean, 1000)
				spoil(s.Solve.(*memory))
				return s
			}()}, 0},
			"judging sample": {clean, Options{Sample: func() *Sample {
				s := split(clean, 1000)
				spoil(s.Judge.(*memory))
				return s
			}()}, 0},
		} {
			if s := solve.o.Sample; s != nil && solve.row == 0 { // a sample keeps its rows' numbers
				part := s.Solve
				if name == "judging sample" {
					part = s.Judge
				}
				solve.row = part.(*memory).rows[501]
			}
			_, err := Solve(context.Background(), NewCPU(solve.m, 2), solve.o)
			var row *RowError
			if !errors.As(err, &row) || row.Row != solve.row || !strings.Contains(row.Reason, c.reason) {
				t.Errorf("%s, %v: error %v, want row %d, %s", name, c.value, err, solve.row, c.reason)
			}
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	nan, m := math.NaN(), problem(32, 300, 10, 1, 0)
	other := problem(33, 300, 11, 1, 0)
	for name, o := range map[string]Options{
		"lambda": {Lambda: -1}, "lambda NaN": {Lambda: nan}, "lambda Inf": {Lambda: math.Inf(1)}, "tol": {Tol: -1}, "tol NaN": {Tol: nan},
		"limit": {MaxIterations: -3}, "short start": {Start: make([]float64, 9)}, "empty start": {Start: []float64{}}, "NaN start": {Start: []float64{9: nan}},
		"Inf start": {Start: []float64{9: math.Inf(1)}}, "potentials": {Potentials: make([]float64, 10)},
		"short marginals": {Marginals: evenShares(9)}, "marginals of 0": {Marginals: append([]float64{0}, evenShares(9)...)}, "marginals": {Marginals: make([]float64, 10)},
		"sample of other clusters": {Sample: &Sample{other, other}},
	} {
		for _, method := range semidualMethods {
			o.Method = method
			if _, err := Solve(context.Background(), NewCPU(m, 1), o); !errors.Is(err, ErrOptions) {
				t.Errorf("%s, %s: %v", method, name, err)
			}
		}
	}
	for _, method := range semidualMethods {
		if _, err := Solve(context.Background(), NewCPU(problem(34, 9, 10, 1, 0), 1), Options{Method: method}); !errors.Is(err, ErrTooFewRows) {
			t.Errorf("%s: 9 rows for 10 clusters: %v", method, err)
		}
		if _, err := Solve(context.Background(), NewCPU(&memory{clusters: 4}, 1), Options{Method: method}); !errors.Is(err, ErrNoRows) {
			t.Errorf("%s: no rows: %v", method, err)
		}
	}
}

// TestCallersSlices solves from slices of the caller's, and changes none.
func TestCallersSlices(t *testing.T) {
	m := lower(problem(35, 2000, 20, 2, 0.5), -300, 3)
	best := solve(t, m, Options{Tol: 1e-7}).V
	for _, method := range semidualMethods {
		for _, sampled := range []bool{false, true} {
			o := Options{Method: method, Tol: 1e-3, Start: append([]float64(nil), best...), Marginals: evenShares(20)}
			if sampled {
				o.Sample = split(m, 900)
			}
			res := solve(t, m, o)
			verify(t, m, o, res)
			res.V[0]++
			for k := range best {
				if o.Start[k] != best[k] || o.Marginals[k] != 1.0/20 {
					t.Fatalf("%s, sample %v: the caller's slices changed", method, sampled)
				}
			}
		}
	}
}

// TestUselessStart starts so far off that scores lose all digits.
func TestUselessStart(t *testing.T) {
	for _, clusters := range []int{2, 5, 40} {
		m := problem(36, 2000, clusters, 2, 0.3)
		for _, start := range []float64{1e4, 1e8, 1e12, 1e300, math.MaxFloat64 / 2} {
			v := make([]float64, clusters)
			v[0], v[1] = start, -start
			for _, method := range semidualMethods {
				o := Options{Method: method, Start: v}
				res := solve(t, m, o)
				verify(t, m, o, res)
				if res.Status != Converged || res.Passes > 40 || res.Certificate.TiedRows > 0 {
					t.Errorf("K = %d, %s from %g: %v, %d passes, %d ties", clusters, method, start, res.Status, res.Passes, res.Certificate.TiedRows)
				}
			}
		}
	}
}

// TestSortedRows solves rows sorted by class, so that each chunk holds few
// clusters: with a sample by row.
func TestSortedRows(t *testing.T) {
	r := rand.New(rand.NewPCG(37, 1))
	const clusters, rows = 64, 64 * 200
	m := &memory{clusters: clusters, x: make([]float32, rows*clusters)}
	for i := range rows {
		row, sum := m.x[i*clusters:(i+1)*clusters], 0.0
		for k := range row {
			row[k] = float32(r.NormFloat64())
			if k == i*clusters/rows {
				row[k] += 6
			}
			sum += math.Exp(float64(row[k]))
		}
		for k := range row {
			row[k] -= float32(math.Log(sum))
		}
	}
	solveAll(t, m, Options{}, converges(t))
}

// generated makes its rows as they are read: each has log p near −5 in a few
// clusters, of which every cluster gets its part, and −20 elsewhere.
type generated struct{ rows, clusters, preferred int }

func (g *generated) Dims() (int64, int) { return int64(g.rows), g.clusters }
func (g *generated) Chunks() int        { return (g.rows + ChunkRows - 1) / ChunkRows }
func (g *generated) ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error {
	for row := i * ChunkRows; row < min(g.rows, (i+1)*ChunkRows); row++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if cap(buf.X) < g.clusters {
			buf.X = make([]float32, g.clusters)
		}
		buf.Rows, buf.X = append(buf.Rows[:0], int64(row)), buf.X[:g.clusters]
		for k := range buf.X {
			buf.X[k] = -20
		}
		r := rand.New(rand.NewPCG(uint64(row), 7))
		for k := row; k < g.clusters; k += g.rows {
			buf.X[k] = float32(-5 - 0.2*r.Float64())
		}
		for range g.preferred {
			buf.X[r.IntN(g.clusters)] = float32(-5 - 0.4*r.Float64())
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// heap records the largest heap seen after a pass.
type heap struct{ most uint64 }

func (h *heap) Record(Progress) {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	h.most = max(h.most, stats.HeapAlloc)
}

// TestManyClusters solves 100,000 clusters in memory that grows with K, not
// with N·K.
func TestManyClusters(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("too slow under the race detector; runs without it")
	}
	const clusters = 100_000
	src := &generated{rows: 1000, clusters: clusters, preferred: 200}
	h := new(heap)
	o := Options{Marginals: evenShares(clusters), Workers: 2, Recorder: h}
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // what is measured is not what waits to be freed
	runtime.GC()
	h.Record(Progress{})
	before := h.most
	res, err := Solve(context.Background(), NewCPU(src, 2), o)
	if err != nil {
		t.Fatal(err)
	}
	c := res.Certificate
	t.Logf("%v by %s, %s: %d passes, %d steps, L1 %.2g, heap at most %d MB more", c.Status, c.Way, c.Proof, c.Passes, c.ListSteps, c.MarginalL1, (h.most-before)>>20)
	if c.Status != Converged || h.most-before > 100*8*clusters {
		t.Errorf("%v by %s after %d passes, heap %d bytes", c.Status, c.Way, c.Passes, h.most-before)
	}
	// A pass at the potentials found agrees.
	fixed, err := Solve(context.Background(), NewCPU(src, 1), Options{Method: MethodFixed, Potentials: res.V, Marginals: o.Marginals})
	if err != nil || fixed.Certificate.MarginalL1 > 1e-6 {
		t.Errorf("%+v, %v", fixed, err)
	}
}

// FuzzSolve solves small problems of every kind: a result that says it
// converged has, by another computation.
func FuzzSolve(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed*37), uint8(seed*11), uint8(seed*5), uint8(seed), uint8(seed*3))
	}
	f.Fuzz(func(t *testing.T, seed uint64, rows, clusters, sharpness, flags, kind uint8) {
		r := rand.New(rand.NewPCG(seed, 55))
		k := 1 + int(clusters)%48
		n := 1 + int(rows)
		m := problem(seed, n, k, []float64{0, 0.01, 0.5, 2, 5}[sharpness%5], float64(sharpness%4))
		if flags&1 != 0 { // impossible entries
			for range n {
				m.x[r.IntN(n)*k+r.IntN(k)] = float32(math.Inf(-1))
			}
		}
		if flags&2 != 0 {
			lower(m, -2000, r.IntN(k))
		}
		if flags&4 != 0 { // copies
			copy(m.x[:n/2*k], m.x[(n-n/2)*k:])
		}
		b := shares(r, []string{"uniform", "power law", "one large"}[kind%3], k)
		o := Options{Lambda: []float64{0.1, 1, 10, 25, 100, 1000}[seed%6], Marginals: b, MaxIterations: 150, Workers: 1}
		if flags&8 != 0 {
			o.Start = normals(r, k, math.Pow(10, float64(kind%8)))
		}
		if flags&16 != 0 {
			o.Sample = split(m, n/2)
		}
		if flags&32 != 0 {
			o.Method = MethodLBFGS
		}
		res, err := Solve(context.Background(), NewCPU(m, 2), o)
		var row *RowError
		var column *ColumnError
		switch {
		case errors.As(err, &row):
			for _, x := range m.x[row.Row*int64(k) : (row.Row+1)*int64(k)] {
				if !math.IsInf(float64(x), -1) {
					t.Fatalf("refused row %d, which holds %v", row.Row, x)
				}
			}
		case errors.As(err, &column):
			for i := column.Clusters[0]; i < len(m.x); i += k {
				if !math.IsInf(float64(m.x[i]), -1) {
					t.Fatalf("refused column %d, which holds %v", column.Clusters[0], m.x[i])
				}
			}
		case err != nil:
			t.Fatal(err)
		default:
			verify(t, m, o, res)
		}
	})
}
