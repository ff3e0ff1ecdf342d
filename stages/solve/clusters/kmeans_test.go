package clusters

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sela/sinkhorn"
)

// TestInvariance: the same bits for any number of workers, any blocks, rows held
// or read for each pass, and from any saved state; other ones for another head
// or seed.
func TestInvariance(t *testing.T) {
	s := shape{N: 5000, Width: 24, Groups: 7, Spread: 1.5, Seed: 31}
	options := KMeans{Clusters: 30, Iterations: 8, Seed: 5, Head: 1}
	for _, components := range []int{0, 10} {
		run := func(workers, block int, memory int64, o KMeans) *Result {
			t.Helper()
			e, m := engine(t, workers), source(s, true)
			m.block = block
			var w *Whitening
			if components > 0 {
				var err error
				if w, err = e.Whiten(context.Background(), m, m.numbers, components); err != nil {
					t.Fatal(err)
				}
			}
			f := open(t, e, m, Options{Whitening: w, Memory: memory})
			if f.Held() != (memory > 0) {
				t.Fatalf("held: %t of %d bytes", f.Held(), memory)
			}
			before := m.reads.Load()
			r := cluster(t, f, o)
			if again := m.reads.Load() > before; again == f.Held() {
				t.Errorf("rows were read again: %t", again)
			}
			return r
		}
		var states []State
		saving := options
		saving.Save = func(_ context.Context, s State) error {
			states = append(states, State{s.Iterations, s.Moved, slices.Clone(s.Centres)})
			return nil
		}
		want := run(1, 1024, plenty, saving)
		same := func(name string, got *Result) {
			t.Helper()
			if !slices.Equal(got.Labels, want.Labels) || !slices.Equal(got.Centres, want.Centres) || got.Objective != want.Objective || got.Iterations != want.Iterations || got.Moved != want.Moved {
				t.Errorf("%d components, %s: another result: objective %v after %d, want %v after %d", components, name, got.Objective, got.Iterations, want.Objective, want.Iterations)
			}
		}
		same("2 workers, small blocks", run(2, 7, plenty, options))
		same("5 workers", run(5, 400, plenty, options))
		same("not held", run(3, 200, 0, options))
		same("not held, 1 worker", run(1, 1024, 0, options))
		if len(states) < 5 {
			t.Fatalf("only %d states", len(states))
		}
		for i, state := range states {
			resumed := options
			resumed.Start = &state
			same(fmt.Sprintf("from state %d", i), run(2, 300, int64(i%2)*plenty, resumed))
		}
		for _, other := range []KMeans{{Clusters: 30, Iterations: 8, Seed: 6, Head: 1}, {Clusters: 30, Iterations: 8, Seed: 5, Head: 2}} {
			if got := run(2, 1024, plenty, other); slices.Equal(got.Labels, want.Labels) {
				t.Errorf("seed %d, head %d: the same labels", other.Seed, other.Head)
			}
		}
	}
}

// TestSeeding: k-means++ finds far places that a random choice would miss, and
// ends better than it.
func TestSeeding(t *testing.T) {
	s := shape{N: 3000, Width: 16, Groups: 40, Spread: 0.1, Seed: 41}
	e := engine(t, 2)
	f := open(t, e, source(s, false), Options{Memory: plenty})
	for seed := range uint64(5) {
		r := cluster(t, f, KMeans{Clusters: 40, Iterations: 20, Seed: seed})
		first := cluster(t, f, KMeans{Clusters: 40, Iterations: 20, Start: &State{Centres: slices.Repeat(f.held[:16], 40)}})
		if !(r.Objective < 0.05) || r.Objective > first.Objective {
			t.Errorf("seed %d: objective %v, from 40 equal centres %v", seed, r.Objective, first.Objective)
		}
	}
}

// TestEmptyClusters: equal centres leave all but one without rows; each gets a
// row of its own, the farthest first, and all end with rows.
func TestEmptyClusters(t *testing.T) {
	s := shape{N: 400, Width: 6, Groups: 5, Spread: 1, Seed: 51}
	for _, memory := range []int64{0, plenty} {
		m := source(s, true)
		whole := open(t, engine(t, 2), m, Options{Memory: plenty})
		start := State{Centres: slices.Repeat(whole.held[:6], 8)}
		f := open(t, engine(t, 2), m, Options{Memory: memory})
		one := cluster(t, f, KMeans{Clusters: 8, Iterations: 1, Start: &start})
		if one.Moved != 7 {
			t.Fatalf("%d clusters were given a row, want 7", one.Moved)
		}
		far := make([]float64, s.N)
		for i := range far {
			far[i] = squaredDistance(whole.held[i*6:(i+1)*6], whole.held[:6])
		}
		for k := 1; k < 8; k++ {
			at := slices.Index(far, slices.Max(far))
			far[at] = -1
			if got, want := one.Centres[k*6:(k+1)*6], whole.held[at*6:(at+1)*6]; !slices.Equal(got, want) {
				t.Errorf("cluster %d begins with %v, want row %d: %v", k, got, at, want)
			}
		}
		if all := cluster(t, f, KMeans{Clusters: 8, Iterations: 20, Start: &start}); slices.Min(all.Counts) == 0 || all.Objective > one.Objective {
			t.Errorf("counts %v, objective %v after %v", all.Counts, all.Objective, one.Objective)
		}
	}
}

// TestFewDifferentRows: more clusters than different rows leave some empty, and
// the lowest of equal centres has the rows.
func TestFewDifferentRows(t *testing.T) {
	m := &memory{width: 2, block: 10}
	for i := range 90 {
		m.numbers = append(m.numbers, int64(i))
		m.x = append(m.x, [][]float32{{1, 0}, {0, 2}, {0, 0}}[i%3]...)
	}
	r := cluster(t, open(t, engine(t, 2), m, Options{Memory: plenty}), KMeans{Clusters: 6, Iterations: 20, Seed: 1})
	counts := slices.Clone(r.Counts)
	slices.Sort(counts)
	if !slices.Equal(counts, []int64{0, 0, 0, 30, 30, 30}) || r.Objective != 0 || !r.Converged {
		t.Errorf("counts %v, objective %v, converged %t", r.Counts, r.Objective, r.Converged)
	}
}

// TestRefusals: too few rows, unusable ones, nothing to whiten, too little
// memory, a state of other clusters, a source that contradicts itself.
func TestRefusals(t *testing.T) {
	ctx := context.Background()
	e := engine(t, 2)
	s := shape{N: 2000, Width: 4, Groups: 3, Spread: 1, Seed: 61}
	if _, err := open(t, e, source(s, false), Options{}).KMeans(ctx, KMeans{Clusters: 2001, Iterations: 1}); !errors.Is(err, ErrTooFewRows) {
		t.Error(err)
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		m := source(s, true)
		m.x[4*1500+2] = bad
		var row *RowError
		_, err := Open(ctx, e, m, m.numbers, Options{Memory: plenty})
		if !errors.As(err, &row) || row.Row != m.numbers[1500] {
			t.Errorf("%v: %v", bad, err)
		}
		row = nil
		if _, err := e.Whiten(ctx, m, m.numbers, 2); !errors.As(err, &row) || row.Row != m.numbers[1500] {
			t.Errorf("whiten %v: %v", bad, err)
		}
	}
	same := source(shape{N: 50, Width: 4, Groups: 1, Seed: 1}, false)
	if _, err := e.Whiten(ctx, same, same.numbers, 2); !errors.Is(err, ErrNoVariance) {
		t.Error(err)
	}
	if left, err := e.Memory(1<<20, 3000, 2048); !errors.Is(err, ErrMemory) || left != 0 {
		t.Error(left, err)
	}
	if left, err := e.Memory(plenty, 128, 256); err != nil || left < plenty/2 || left >= plenty {
		t.Error(left, err)
	}
	m := source(s, true)
	if _, err := open(t, e, m, Options{}).KMeans(ctx, KMeans{Clusters: 3, Iterations: 1, Start: &State{Centres: make([]float32, 7)}}); err == nil || !strings.Contains(err.Error(), "3 clusters of 4 columns") {
		t.Error(err)
	}
	wrong := slices.Clone(m.numbers)
	wrong[len(wrong)-1]++
	if _, err := Open(ctx, e, m, wrong, Options{Memory: plenty}); !errors.Is(err, sinkhorn.ErrSource) {
		t.Error(err)
	}
	if _, err := Open(ctx, e, m, wrong[1:], Options{Memory: plenty}); !errors.Is(err, sinkhorn.ErrSource) {
		t.Error(err)
	}
}

// TestCancelled: the end of the context ends every phase with its error.
func TestCancelled(t *testing.T) {
	e := engine(t, 2)
	m := source(shape{N: 4000, Width: 8, Groups: 3, Spread: 1, Seed: 71}, false)
	f := open(t, e, m, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	_, err := f.KMeans(ctx, KMeans{Clusters: 9, Iterations: 1000, Save: func(context.Context, State) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := e.Whiten(ctx, m, m.numbers, 2); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Open(ctx, e, m, m.numbers, Options{Memory: plenty}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	failed := errors.New("disk full")
	if _, err := f.KMeans(context.Background(), KMeans{Clusters: 9, Iterations: 1000, Save: func(context.Context, State) error { return failed }}); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// TestMemory: a pass over rows that are not held allocates per chunk, not per
// row.
func TestMemory(t *testing.T) {
	e := engine(t, 1)
	s := shape{N: 20 * sinkhorn.ChunkRows, Width: 8, Groups: 3, Spread: 1, Seed: 81}
	m := source(s, false)
	f := open(t, e, m, Options{})
	iterate := func(n int) float64 {
		return testing.AllocsPerRun(3, func() {
			cluster(t, f, KMeans{Clusters: 5, Iterations: n, Start: &State{Centres: m.x[:40]}})
		})
	}
	if per := (iterate(6) - iterate(2)) / 4; per > 20*40 {
		t.Errorf("%v allocations per pass of 20 chunks", per)
	}
}
