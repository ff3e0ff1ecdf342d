package solve_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sela/pipeline"
	"sela/schemas"
	"sela/sinkhorn"
	"sela/stages/label"
	"sela/stages/solve"
)

// sampled is the sample of a head as it lies in the files.
func sampled(t testing.TB, run *pipeline.Run, head int) table {
	t.Helper()
	files, err := shards(t, run).Sample(head)
	if err != nil {
		t.Fatal(err)
	}
	return readTables(t, run, files, clusters[head])
}

// part is what of a table a source gives.
func part(t testing.TB, source sinkhorn.Source) (got table) {
	t.Helper()
	var buf sinkhorn.Block
	for i := range source.Chunks() {
		if err := source.ReadChunk(context.Background(), i, &buf, func(b *sinkhorn.Block) error {
			got.numbers, got.values = append(got.numbers, b.Rows...), append(got.values, b.X...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if rows, _ := source.Dims(); rows != int64(len(got.numbers)) {
		t.Errorf("%d rows, it said %d", len(got.numbers), rows)
	}
	return got
}

// TestSample: parts are disjoint and make up the sample, with the same rows in
// memory and streamed, from folders and from a remote store.
func TestSample(t *testing.T) {
	for name, remote := range map[string]bool{"local": false, "remote": true} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			r := extracted(t, images, gaps, remote, nil)
			for head, k := range clusters {
				want := sampled(t, r.Run, head)
				if len(want.numbers) < 50 {
					t.Fatalf("a sample of %d rows", len(want.numbers))
				}
				size := int64(len(want.numbers)) * int64(8+4*k)
				for _, budget := range []int64{0, size / 2, size, 1 << 30} {
					sample, err := solve.OpenSample(ctx, r.Run, shards(t, r.Run), head, budget)
					if err != nil {
						t.Fatal(err)
					}
					if sample.Rows() != int64(len(want.numbers)) {
						t.Errorf("%d rows, want %d", sample.Rows(), len(want.numbers))
					}
					all, err := sample.Part(ctx, 0, 1)
					if err != nil {
						t.Fatal(err)
					}
					readAll(t, all, want, k)
					seen := map[int64]int{}
					for i := range 3 {
						source, err := sample.Part(ctx, i, 3)
						if err != nil {
							t.Fatal(err)
						}
						got := part(t, source)
						readAll(t, source, got, k)
						if n := len(got.numbers); n < len(want.numbers)/6 || n > len(want.numbers)/2 {
							t.Errorf("part %d of 3 has %d of %d rows", i, n, len(want.numbers))
						}
						for j, row := range got.numbers {
							at, ok := slices.BinarySearch(want.numbers, row)
							if !ok || !slices.Equal(got.values[j*k:(j+1)*k], want.values[at*k:(at+1)*k]) {
								t.Fatalf("row %d is not in the sample or has other values", row)
							}
							seen[row]++
						}
					}
					if len(seen) != len(want.numbers) {
						t.Errorf("three parts have %d of %d rows", len(seen), len(want.numbers))
					}
					for row, n := range seen {
						if n != 1 {
							t.Errorf("row %d is in %d parts", row, n)
						}
					}
					sample.Close()
				}
			}
		})
	}
}

// TestSampleInMemory: what fits outlives its files and costs no allocation; what
// does not is read from them.
func TestSampleInMemory(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, images, gaps, false, nil)
	want := sampled(t, r.Run, 1)
	size := int64(len(want.numbers)) * int64(8+4*clusters[1])
	sample, err := solve.OpenSample(ctx, r.Run, shards(t, r.Run), 1, size)
	if err != nil {
		t.Fatal(err)
	}
	held, err := sample.Part(ctx, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	streamed, err := sample.Part(ctx, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, streamed, want, clusters[1])
	files, err := shards(t, r.Run).Sample(1)
	if err != nil {
		t.Fatal(err)
	}
	sample.Close()
	for _, f := range files {
		if err := r.Run.Work.Delete(ctx, r.Path(f.Path)); err != nil {
			t.Fatal(err)
		}
	}
	readAll(t, held, want, clusters[1])
	if err := streamed.ReadChunk(ctx, 0, &sinkhorn.Block{}, nothing); !errors.Is(err, context.Canceled) && pipeline.ClassOf(err) != pipeline.Data {
		t.Errorf("streamed without files: %v", err)
	}
	var block sinkhorn.Block
	if n := testing.AllocsPerRun(20, func() {
		if err := held.ReadChunk(ctx, 0, &block, nothing); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := held.ReadChunk(cancelled, 0, &block, nothing); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestNoSample: a run without sample tables, one whose tables have no rows, and
// a part without any.
func TestNoSample(t *testing.T) {
	ctx := context.Background()
	r := extracted(t, 20, nil, false, nil)
	sample, err := solve.OpenSample(ctx, r.Run, shards(t, r.Run), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer sample.Close()
	empty := 0
	for i := range 1000 {
		if _, err := sample.Part(ctx, i, 1000); errors.Is(err, solve.ErrNoSample) {
			empty++
		} else if err != nil {
			t.Error(err)
		}
	}
	if empty < 1000-20 || empty == 1000 {
		t.Errorf("%d empty parts", empty)
	}
	for _, c := range [][2]int{{-1, 2}, {2, 2}, {0, 0}} {
		if _, err := sample.Part(ctx, c[0], c[1]); err == nil || errors.Is(err, solve.ErrNoSample) {
			t.Errorf("part %v: %v", c, err)
		}
	}
	one := extracted(t, 1, nil, false, nil)
	if _, err := solve.OpenSample(ctx, one.Run, shards(t, one.Run), 0, 1<<20); !errors.Is(err, solve.ErrNoSample) && err != nil {
		t.Error(err)
	}
	withoutSamples(t, r.Run)
	if _, err := solve.OpenSample(ctx, r.Run, shards(t, r.Run), 0, 1<<20); !errors.Is(err, solve.ErrNoSample) {
		t.Error(err)
	}
}

// TestFlips counts what the compact form changes, against labels made row by
// row. In every row most values are close to each other and one is far, so that
// the step is coarse.
func TestFlips(t *testing.T) {
	ctx := context.Background()
	const k, n, lambda = 20, 3000, 25
	random := rand.New(rand.NewPCG(1, 2))
	all, v := table{}, make([]float64, k)
	for i := range int64(n) {
		all.numbers = append(all.numbers, 3*i)
		for range k - 1 {
			all.values = append(all.values, -3-random.Float32()/10)
		}
		all.values = append(all.values, -250)
	}
	for i := range v {
		v[i] = random.Float64()
	}
	want, codes := int64(0), make([]uint16, k)
	for i := range all.numbers {
		row := slices.Clone(all.values[i*k : (i+1)*k])
		was, _ := sinkhorn.Assign(row, lambda, v)
		if err := schemas.RoundTrip(row, codes); err != nil {
			t.Fatal(err)
		}
		if is, _ := sinkhorn.Assign(row, lambda, v); is != was {
			want++
		}
	}
	flips, rows, err := solve.Flips(ctx, &memory{all, k}, lambda, v)
	if err != nil || flips != want || rows != n {
		t.Errorf("%d of %d rows, want %d of %d: %v", flips, rows, want, n, err)
	}
	if want < n/100 || want > n/2 {
		t.Errorf("%d rows change, which shows nothing", want)
	}
	exact := table{[]int64{0, 5}, slices.Repeat([]float32{-1, -2, -4.5, -1.25, float32(math.Inf(-1))}, 2*k/5)}
	if flips, rows, err := solve.Flips(ctx, &memory{exact, k}, lambda, v); err != nil || flips > 0 || rows != 2 {
		t.Errorf("%d of %d rows change that the form holds exactly: %v", flips, rows, err)
	}
	bad := table{[]int64{5}, slices.Repeat([]float32{float32(math.NaN())}, k)}
	_, _, err = solve.Flips(ctx, &memory{bad, k}, lambda, v)
	fails(t, err, pipeline.Data, "row 5")
	r := extracted(t, 100, nil, false, nil)
	sample, err := solve.OpenSample(ctx, r.Run, shards(t, r.Run), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer sample.Close()
	source, err := sample.Part(ctx, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := solve.Flips(cancelled, source, lambda, make([]float64, clusters[0])); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestStoredUint16: a run whose shards are compact is solved and labelled.
func TestStoredUint16(t *testing.T) {
	r := extracted(t, images, gaps, false, func(j *pipeline.Job) { j.Extract.Stored = "uint16" })
	r.Through(t, r.Run, label.Name)
	if got := potentials(t, r.Run); len(got) != len(clusters) {
		t.Errorf("%v", got)
	}
}
