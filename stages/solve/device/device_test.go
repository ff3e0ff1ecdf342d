package device

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
)

// tolerance is how far sums may be from the CPU kernels', relative.
const tolerance = 1e-9

func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b), 1e-3)
}

// compare checks a pass on the device against one of the CPU kernels.
func compare(t *testing.T, got, want *sinkhorn.PassResult, all bool) {
	t.Helper()
	if got.Rows != want.Rows || !near(got.MeanLSE, want.MeanLSE) || !near(got.Change, want.Change) ||
		!near(got.MinLSE, want.MinLSE) || !near(got.MaxLSE, want.MaxLSE) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if !slices.Equal(got.Counts, want.Counts) || got.Changed != want.Changed || got.TiedRows != want.TiedRows || got.MinMargin != want.MinMargin || got.MaxRange != want.MaxRange {
		t.Errorf("labels: counts %v changed %d ties %d margin %v range %v\nwant %v, %d, %d, %v, %v",
			got.Counts, got.Changed, got.TiedRows, got.MinMargin, got.MaxRange, want.Counts, want.Changed, want.TiedRows, want.MinMargin, want.MaxRange)
	}
	if len(got.LogMass) != len(want.LogMass) {
		t.Fatalf("%d masses, want %d", len(got.LogMass), len(want.LogMass))
	}
	for k, a := range got.LogMass {
		b := want.LogMass[k]
		if !all && b < math.Log(sinkhorn.StarvedShare) {
			if a > b+1e-3 && a > math.Log(sinkhorn.StarvedShare) {
				t.Errorf("log mass of %d is %v, the CPU's %v", k, a, b)
			}
			continue
		}
		// log m within the tolerance: m within it in relative terms
		if a != b && !(math.Abs(a-b) <= tolerance*max(1, math.Abs(b))) {
			t.Errorf("log mass of %d is %v, want %v", k, a, b)
		}
	}
}

func TestAgainstCPU(t *testing.T) {
	flat := problem(1, 2500, 37, 0.3, 0, 0)
	peaked := problem(2, 2500, 37, 4, 0.5, 7)
	peaked.blockRows = 1
	zeros := problem(3, 1100, 20, 2, 0.5, 0)
	for i := range zeros.x {
		if i%3 == 1 {
			zeros.x[i] = float32(math.Inf(-1))
		}
	}
	dead := problem(4, 700, 9, 1, 0, 3)
	for i := range 700 {
		dead.row(i)[4] = float32(math.Inf(-1))
		dead.row(i)[6] -= 120 // below the smallest float64 at λ = 10 and more
	}
	tied := problem(5, 300, 6, 1, 0, 0)
	for i := range 300 {
		tied.row(i)[5] = tied.row(i)[2]
		if i%2 == 0 {
			tied.row(i)[1], tied.row(i)[5], tied.row(i)[2] = 0, 0, 0
		}
	}
	late := problem(6, 50, 5, 1, 0, 0) // chunks without rows before and behind
	for i := range late.numbers {
		late.numbers[i] += 3 * sinkhorn.ChunkRows
	}
	late.chunks = 6
	far := problem(10, 40, 2, 0.1, 0, 0) // margins beyond those reported at the largest λ
	for i := range far.numbers {
		far.row(i)[i%2] -= 5
	}
	for name, m := range map[string]*memory{
		"flat": flat, "peaked": peaked, "zeros": zeros, "dead": dead, "tied": tied, "late": late, "far": far,
		"one-cluster": problem(7, 90, 1, 1, 0, 0), "one-row": problem(8, 1, 12, 1, 0, 0), "wide": problem(9, 30, 3000, 2, 1, 0),
	} {
		for _, provider := range providers() {
			t.Run(name+"/"+provider, func(t *testing.T) {
				t.Parallel()
				cpu := sinkhorn.NewCPU(m, 1)
				e := open(t, m, Options{Provider: provider, tileElements: 4000})
				r := rand.New(rand.NewPCG(9, 9))
				for _, lambda := range []float64{1, 10, 25} {
					ask := func(req sinkhorn.Request) {
						t.Helper()
						compare(t, pass(t, e, req), pass(t, cpu, req), req.LogMass || req.V == nil)
					}
					v, before := make([]float64, m.clusters), make([]float64, m.clusters)
					for k := range v {
						v[k], before[k] = r.NormFloat64(), 0.1*r.NormFloat64()
					}
					if name != "tied" {
						v[0] += 5
					} else {
						clear(v)
					}
					ask(sinkhorn.Request{Lambda: lambda})
					ask(sinkhorn.Request{Lambda: lambda, V: v})
					ask(sinkhorn.Request{Lambda: lambda, V: v, LogMass: true})
					ask(sinkhorn.Request{Lambda: lambda, V: v, Change: true})
					ask(sinkhorn.Request{Lambda: lambda, V: v, Previous: before, Certify: true})
					ask(sinkhorn.Request{Lambda: lambda, V: v, Previous: before, Change: true})
					ask(sinkhorn.Request{Lambda: lambda, V: v, Change: true, Previous: before, Certify: true, LogMass: true})
				}
			})
		}
	}
}

// TestPlacement asks for the same bits wherever tiles lie and however the
// source cuts its blocks.
func TestPlacement(t *testing.T) {
	m := problem(21, 3000, 24, 2, 0.5, 5)
	v := make([]float64, 24)
	for k := range v {
		v[k] = float64(k%5) - 2
	}
	for i := range m.numbers {
		m.row(i)[7] -= 120 // summed in log domain
	}
	requests := []sinkhorn.Request{
		{Lambda: 25}, {Lambda: 25, V: v, Change: true, Previous: make([]float64, 24), Certify: true, LogMass: true},
	}
	const elements = 24 * 70
	tile := int64(4 * elements)
	var want []*sinkhorn.PassResult
	for _, c := range []struct {
		name      string
		o         Options
		blockRows int
		sessions  int
		stream    bool
	}{
		{"one session", Options{}, 100, 1, false},
		{"small blocks", Options{}, 7, 1, false},
		{"sessions", Options{sessionBytes: 10*tile + 5}, 1024, 5, false},
		{"some streamed", Options{sessionBytes: 10 * tile, Memory: 15*tile + tile/2}, 100, 2, true},
		{"all streamed", Options{Memory: -1}, 100, 0, true},
		{"exact", Options{Memory: 43 * tile}, 100, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.tileElements = elements
			m.blockRows = c.blockRows
			e := open(t, m, c.o)
			if len(e.kept) != c.sessions || (e.stream != nil) != c.stream {
				t.Errorf("%d sessions, stream %v", len(e.kept), e.stream != nil)
			}
			m.reads = 0
			var got []*sinkhorn.PassResult
			for range 2 {
				got = got[:0]
				for _, req := range requests {
					got = append(got, pass(t, e, req))
				}
				if want == nil {
					want = slices.Clone(got)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v\nwant %+v", got, want)
				}
			}
			if !c.stream && m.reads > 0 {
				t.Errorf("%d chunks read though all rows are kept", m.reads)
			}
		})
	}
}

// TestStreamManyBatches streams more batches than there are buffers.
func TestStreamManyBatches(t *testing.T) {
	m := problem(22, 1500, 10, 1, 0, 4)
	e := open(t, m, Options{Memory: -1, tileElements: 500, streamBytes: 3 * 4 * 500})
	v := make([]float64, 10)
	req := sinkhorn.Request{Lambda: 5, V: v, Certify: true}
	compare(t, pass(t, e, req), pass(t, sinkhorn.NewCPU(m, 1), req), false)
	compare(t, pass(t, e, sinkhorn.Request{Lambda: 5}), pass(t, sinkhorn.NewCPU(m, 1), sinkhorn.Request{Lambda: 5}), true)
}

// TestSolve makes whole solves on both. The stop rule of MethodSinkhorn sees
// the same at every iteration; L-BFGS amplifies the last bits on its way and
// ends, within its tolerance, at other potentials.
func TestSolve(t *testing.T) {
	for _, c := range []struct {
		method        sinkhorn.Method
		scale, lambda float64
		within        float64 // of each other are the potentials, nats
	}{
		{sinkhorn.MethodSinkhorn, 0.3, 25, 1e-9}, {sinkhorn.MethodSinkhorn, 1, 10, 1e-9}, {sinkhorn.MethodSinkhorn, 2, 25, 1e-9},
		{sinkhorn.MethodLBFGS, 0.3, 25, 1e-4}, {sinkhorn.MethodLBFGS, 1, 10, 1e-4},
	} {
		m := problem(31, 1500, 16, c.scale, 0.4, 9)
		o := sinkhorn.Options{Method: c.method, Lambda: c.lambda}
		want, err := sinkhorn.Solve(context.Background(), sinkhorn.NewCPU(m, 1), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, provider := range providers() {
			t.Run(fmt.Sprintf("%s/scale=%v/%s", c.method, c.scale, provider), func(t *testing.T) {
				got, err := sinkhorn.Solve(context.Background(), open(t, m, Options{Provider: provider}), o)
				if err != nil {
					t.Fatal(err)
				}
				if got.Status != sinkhorn.Converged || want.Status != got.Status {
					t.Fatalf("%v, on the CPU %v", got.Status, want.Status)
				}
				if c.method == sinkhorn.MethodSinkhorn && got.Iterations != want.Iterations {
					t.Errorf("%d iterations, want %d", got.Iterations, want.Iterations)
				}
				for k := range want.V {
					if math.Abs(got.V[k]-want.V[k]) > c.within {
						t.Errorf("potential %d is %v, want %v", k, got.V[k], want.V[k])
					}
				}
				for i := range m.numbers {
					a, _ := sinkhorn.Assign(m.row(i), c.lambda, got.V)
					b, _ := sinkhorn.Assign(m.row(i), c.lambda, want.V)
					if a != b {
						t.Errorf("row %d has label %d, want %d", i, a, b)
					}
				}
			})
		}
	}
}

func TestConcurrentPasses(t *testing.T) {
	m := problem(63, 2500, 8, 1, 0, 0)
	e := open(t, m, Options{tileElements: 400, Memory: 4 * 4000})
	req := sinkhorn.Request{Lambda: 25, V: make([]float64, 8), Certify: true}
	want := pass(t, e, req)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got, err := e.Pass(context.Background(), req); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	all.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Pass(context.Background(), req); !errors.Is(err, ort.ErrRun) {
		t.Errorf("a pass after Close: %v", err)
	}
}
