//go:build linux

package main

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sela/sinkhorn"
)

func rowsOf(t *testing.T, m matrix, from, n int64) []float32 {
	t.Helper()
	_, clusters := m.dims()
	x := make([]float32, n*int64(clusters))
	if err := m.fill(from, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestFamilies: a row has the same bits however it is asked for, it is a
// distribution, and rows differ.
func TestFamilies(t *testing.T) {
	for _, name := range []string{"A", "B", "C", "flat"} {
		for _, clusters := range []int{1, 7, 300} {
			f, err := newFamily(name, 100, clusters, 1)
			if err != nil {
				t.Fatal(err)
			}
			all := rowsOf(t, f, 0, 100)
			for from := int64(0); from < 100; from += 7 {
				n := min(7, 100-from)
				if !slices.Equal(rowsOf(t, f, from, n), all[from*int64(clusters):(from+n)*int64(clusters)]) {
					t.Errorf("%s, %d clusters: rows from %d on differ from those of a larger block", name, clusters, from)
				}
			}
			for i := 0; i < len(all); i += clusters {
				sum := 0.0
				for _, x := range all[i : i+clusters] {
					sum += math.Exp(float64(x))
				}
				if math.Abs(sum-1) > 1e-5 {
					t.Errorf("%s, %d clusters: probabilities of row %d sum to %v", name, clusters, i/clusters, sum)
				}
			}
			if clusters > 1 && slices.Equal(all[:clusters], all[clusters:2*clusters]) {
				t.Errorf("%s: equal rows", name)
			}
		}
	}
	if _, err := newFamily("D", 1, 1, 1); err == nil {
		t.Error("family D is not refused")
	}
}

// TestFamiliesDiffer in what they are for: how peaked rows are, and how evenly
// their best clusters are spread.
func TestFamiliesDiffer(t *testing.T) {
	const clusters, rows = 100, 4000
	best, largest := map[string]float64{}, map[string]int{}
	for _, name := range []string{"A", "B", "C", "flat"} {
		f, err := newFamily(name, rows, clusters, 1)
		if err != nil {
			t.Fatal(err)
		}
		x, counts := rowsOf(t, f, 0, rows), make([]int, clusters)
		for i := 0; i < len(x); i += clusters {
			row := x[i : i+clusters]
			top := slices.Max(row)
			counts[slices.Index(row, top)]++
			best[name] += math.Exp(float64(top)) / rows
		}
		largest[name] = slices.Max(counts)
	}
	if !(best["flat"] < 0.3 && best["A"] > 0.3 && best["C"] > best["A"]) {
		t.Errorf("mean probability of the best cluster: %v", best)
	}
	if !(largest["A"] < 2*rows/clusters && largest["B"] > 3*rows/clusters && largest["C"] > 3*rows/clusters) {
		t.Errorf("rows of the most popular cluster: %v", largest)
	}
}

// TestDataset writes shards in both forms and reads them as the solver does.
func TestDataset(t *testing.T) {
	const rows, clusters = 9000, 5 // two shards
	ctx, dir := context.Background(), t.TempDir()
	f, err := newFamily("B", rows, clusters, 1)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := generate(ctx, dir, f, 2, float32Form, uint16Form)
	if err != nil {
		t.Fatal(err)
	}
	want := rowsOf(t, f, 0, rows)
	for _, d := range sets {
		p, err := openProblem(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		if n, k := p.source.Dims(); n != rows || k != clusters {
			t.Errorf("%s: %d × %d", d.Form, n, k)
		}
		tolerance := map[string]float64{float32Form: 0, uint16Form: 1e-3}[d.Form]
		compareRows(t, d.Form, p.source, want, clusters, tolerance)
		n, _ := p.sample.Solve.Dims()
		if least := sampleShare(rows, clusters) * rows / 4; float64(n) < least {
			t.Errorf("%s: %d rows to solve on, want at least %v", d.Form, n, least)
		}
		compareRows(t, d.Form+" sample", p.sample.Judge, want, clusters, 0)
		p.close()
		out, err := (&request{Dataset: *d, Method: lists, Workers: 2, Sampled: true, Balanced: true}).run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b := out.Balanced; b.Smallest != rows/clusters || b.Largest != rows/clusters {
			t.Errorf("%s: balanced clusters have %d to %d rows", d.Form, b.Smallest, b.Largest)
		}
		if out.Capped || out.L1 > sinkhorn.DefaultTol || out.PeakRSS < 1<<20 || len(out.Steps) != 5 {
			t.Errorf("%s: %+v", d.Form, out)
		}
		files, err := d.everything(ctx)
		if err != nil || len(files) != 4 {
			t.Errorf("%d files: %v", len(files), err)
		}
	}
}

func compareRows(t *testing.T, name string, src sinkhorn.Source, want []float32, clusters int, tolerance float64) {
	t.Helper()
	var buf sinkhorn.Block
	for i := range src.Chunks() {
		err := src.ReadChunk(context.Background(), i, &buf, func(b *sinkhorn.Block) error {
			for r, row := range b.Rows {
				for k := range clusters {
					got, x := b.X[r*clusters+k], want[int(row)*clusters+k]
					if math.Abs(float64(got-x)) > tolerance {
						t.Fatalf("%s: row %d has %v in column %d, want %v", name, row, got, k, x)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestNoRoom(t *testing.T) {
	err := checkRoom(t.TempDir(), 1<<60)
	if err == nil || !strings.Contains(err.Error(), "-dir") {
		t.Errorf("%v", err)
	}
}

func TestNpy(t *testing.T) {
	f, err := newFamily("A", 70, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rounds-0-K3.npy")
	if err := writeNpy(path, f); err != nil {
		t.Fatal(err)
	}
	series, err := findRounds(filepath.Dir(path))
	if err != nil || len(series) != 1 || !slices.Equal(series[3], []string{path}) {
		t.Fatalf("%v: %v", series, err)
	}
	err = withNpy(path, func(m *npy) error {
		if rows, clusters := m.dims(); rows != 70 || clusters != 3 || m.data%64 != 0 {
			t.Errorf("%d × %d from %d on", rows, clusters, m.data)
		}
		if !slices.Equal(rowsOf(t, m, 60, 10), rowsOf(t, f, 60, 10)) {
			t.Error("other values")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
