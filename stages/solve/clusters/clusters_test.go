package clusters

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"sela/sinkhorn"
	"sela/stages/internal/ort/orttest"
)

// uniform and rows are those of testdata/expected.py.
func uniform(n int, seed uint64) []float32 {
	out := make([]float32, n)
	for i := range out {
		x := seed<<32 + uint64(i) + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		out[i] = float32((x^x>>31)>>40)/(1<<24) - 0.5
	}
	return out
}

type shape struct {
	N, Width, Groups, Copies int
	Spread                   float32
	Seed                     uint64
}

func (s shape) rows() []float32 {
	places, x := uniform(s.Groups*s.Width, s.Seed), uniform(s.N*s.Width, s.Seed+1)
	for i := range x {
		row, column := i/s.Width, i%s.Width
		x[i] = places[row%s.Groups*s.Width+column] + s.Spread*x[i]
	}
	for i := range s.N {
		for c := range s.Copies {
			x[(i+1)*s.Width-s.Copies+c] = x[i*s.Width+c]
		}
	}
	return x
}

// expected is testdata/expected.json.
type expected struct {
	KMeans []struct {
		shape
		clustering
	}
	Whitened []struct {
		shape
		clustering
		Components int
		Mean       []float64
		Matrix     [][]float64
		Variance   float64
	}
	Assignments []struct {
		Rows, Columns int
		Seed          uint64
		Match         []int
		Gain          float64
	}
}

type clustering struct {
	Clusters, Iterations int
	Labels               []int32
	Inertia              float64
}

func reference(t *testing.T) (e expected) {
	t.Helper()
	raw, err := os.ReadFile("testdata/expected.json")
	if err == nil {
		err = json.Unmarshal(raw, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(e.KMeans) < 4 || len(e.Whitened) < 3 || len(e.Assignments) < 4 {
		t.Fatalf("too few cases: %d, %d, %d", len(e.KMeans), len(e.Whitened), len(e.Assignments))
	}
	return e
}

// memory is rows whose numbers may have gaps, handed out in blocks of so many.
type memory struct {
	numbers []int64
	x       []float32
	width   int
	block   int
	reads   atomic.Int64
}

func (m *memory) Dims() (int64, int) { return int64(len(m.numbers)), m.width }
func (m *memory) Chunks() int        { return int(m.numbers[len(m.numbers)-1]/sinkhorn.ChunkRows) + 2 }
func (m *memory) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	m.reads.Add(1)
	from, _ := slices.BinarySearch(m.numbers, int64(i)*sinkhorn.ChunkRows)
	to, _ := slices.BinarySearch(m.numbers, int64(i+1)*sinkhorn.ChunkRows)
	for ; from < to && ctx.Err() == nil; from += m.block {
		end := min(from+m.block, to)
		buf.Rows = append(buf.Rows[:0], m.numbers[from:end]...)
		buf.X = append(buf.X[:0], m.x[from*m.width:end*m.width]...)
		if err := yield(buf); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// source numbers rows from 0 on, or leaves out every third and the whole second
// chunk.
func source(s shape, gaps bool) *memory {
	m := &memory{x: s.rows(), width: s.Width, block: 300}
	for next := int64(0); len(m.numbers) < s.N; next++ {
		if !gaps || next%3 != 1 && next/sinkhorn.ChunkRows != 1 {
			m.numbers = append(m.numbers, next)
		}
	}
	return m
}

func engine(t testing.TB, workers int) *Engine {
	t.Helper()
	e, err := NewEngine(orttest.Open(t), t.TempDir(), workers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func open(t testing.TB, e *Engine, m *memory, o Options) *Features {
	t.Helper()
	f, err := Open(context.Background(), e, m, m.numbers, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func cluster(t testing.TB, f *Features, o KMeans) *Result {
	t.Helper()
	r, err := f.KMeans(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// spaced are the rows that expected.py starts from.
func spaced(f *Features, clusters int) *State {
	s := &State{}
	for k := range clusters {
		at := k * (len(f.numbers) / clusters) * f.width
		s.Centres = append(s.Centres, f.held[at:at+f.width]...)
	}
	return s
}

const plenty = 1 << 30

// TestAgainstScikitLearn starts from the same centres: the labels are the same
// and the sum of squared distances is within 1e-6 of its own (float32 rows,
// scikit-learn has float64). An iteration that changes nothing is one more here.
func TestAgainstScikitLearn(t *testing.T) {
	for i, c := range reference(t).KMeans {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			f := open(t, engine(t, 2), source(c.shape, i%2 == 1), Options{Memory: plenty})
			r := cluster(t, f, KMeans{Clusters: c.Clusters, Iterations: 20, Start: spaced(f, c.Clusters)})
			compare(t, r, c.clustering)
		})
	}
}

func compare(t *testing.T, r *Result, want clustering) {
	t.Helper()
	if !slices.Equal(r.Labels, want.Labels) {
		differ := 0
		for i, l := range want.Labels {
			if r.Labels[i] != l {
				differ++
			}
		}
		t.Errorf("%d of %d labels differ", differ, len(want.Labels))
	}
	if got := r.Objective * float64(len(r.Labels)); math.Abs(got-want.Inertia) > 1e-6*want.Inertia {
		t.Errorf("inertia %v, want %v", got, want.Inertia)
	}
	if r.Iterations != want.Iterations && r.Iterations != want.Iterations+1 {
		t.Errorf("%d iterations, want %d", r.Iterations, want.Iterations)
	}
	counts := make([]int64, want.Clusters)
	for _, l := range want.Labels {
		counts[l]++
	}
	if !slices.Equal(r.Counts, counts) {
		t.Errorf("counts %v, want %v", r.Counts, counts)
	}
}

// TestWhiteningAgainstNumPy compares mean and projection, whose rows may have
// either sign, to float32's precision, and what k-means makes of whitened rows.
func TestWhiteningAgainstNumPy(t *testing.T) {
	for i, c := range reference(t).Whitened {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e, m := engine(t, 2), source(c.shape, i%2 == 0)
			w, err := e.Whiten(context.Background(), m, m.numbers, c.Components)
			if err != nil {
				t.Fatal(err)
			}
			if w.Components != len(c.Matrix) || math.Abs(w.Variance-c.Variance) > 1e-9 {
				t.Fatalf("%d components with %v of the variance, want %d with %v", w.Components, w.Variance, len(c.Matrix), c.Variance)
			}
			for j, want := range c.Mean {
				if math.Abs(float64(w.Mean[j])-want) > 1e-7 {
					t.Errorf("mean %v, want %v", w.Mean, c.Mean)
					break
				}
			}
			for p, want := range c.Matrix {
				got, sign, size := w.Matrix[p*c.Width:(p+1)*c.Width], 0.0, 0.0
				for j := range want {
					sign += want[j] * float64(got[j])
					size = max(size, math.Abs(want[j]))
				}
				for j := range want {
					if math.Abs(math.Copysign(1, sign)*float64(got[j])-want[j]) > 2e-6*size {
						t.Errorf("component %d: %v, want %v or its negative", p, got, want)
						break
					}
				}
			}
			f := open(t, e, m, Options{Whitening: w, Memory: plenty})
			compare(t, cluster(t, f, KMeans{Clusters: c.Clusters, Iterations: 20, Start: spaced(f, c.Clusters)}), c.clustering)
		})
	}
}

// TestMatchAgainstSciPy: gains of no ties have one best pairing.
func TestMatchAgainstSciPy(t *testing.T) {
	for _, c := range reference(t).Assignments {
		values, gain := uniform(c.Rows*c.Columns, c.Seed), make([][]float64, c.Rows)
		for i := range gain {
			for j := range c.Columns {
				gain[i] = append(gain[i], float64(values[i*c.Columns+j]))
			}
		}
		match := Match(gain)
		if got := checkMatch(t, gain, match); math.Abs(got-c.Gain) > 1e-9 || !slices.Equal(match, c.Match) {
			t.Errorf("%d×%d: gain %v, want %v; %v, want %v", c.Rows, c.Columns, got, c.Gain, match, c.Match)
		}
	}
}
