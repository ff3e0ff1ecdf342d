package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// slowest yields at random, so that chunks finish out of order.
type slowest struct {
	*memory
	calls atomic.Uint64
}

func (s *slowest) ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error {
	for range rand.New(rand.NewPCG(s.calls.Add(1), uint64(i))).IntN(50) {
		runtime.Gosched()
	}
	return s.memory.ReadChunk(ctx, i, buf, yield)
}

func TestSameBitsForAnyWorkers(t *testing.T) {
	m := problem(31, 9000, 5, 1.5, 0.5)
	var want *Result
	for _, workers := range []int{1, 2, 3, 16, 0} {
		res, err := Solve(context.Background(), NewCPU(&slowest{memory: m}, workers), Options{Method: MethodSinkhorn, Lambda: 15, MaxIterations: 41})
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = res
		}
		if !reflect.DeepEqual(res, want) {
			t.Fatalf("%d workers: %+v\none worker: %+v", workers, res, want)
		}
	}
}

// TestGapsInRows drops rows, whole chunks among them: the solution is that of
// the rows present.
func TestGapsInRows(t *testing.T) {
	full := problem(32, 9000, 6, 1, 0.5)
	gaps := &memory{clusters: 6}
	for i := range 9000 {
		if i/ChunkRows == 2 || i/ChunkRows == 3 || i%7 == 3 || i < 1500 {
			continue
		}
		gaps.rows = append(gaps.rows, int64(i)+4*ChunkRows)
		gaps.x = append(gaps.x, full.x[i*6:(i+1)*6]...)
	}
	res, want := solve(t, gaps, Options{Method: MethodSinkhorn, Lambda: 12}), solveTextbook(gaps, 12, 0.1, nil)
	if res.Certificate.Rows != int64(len(gaps.rows)) || res.Iterations != want.iterations {
		t.Errorf("%d rows, %d iterations, want %d, %d", res.Certificate.Rows, res.Iterations, len(gaps.rows), want.iterations)
	}
	for k, v := range want.v {
		if !(math.Abs(res.V[k]-v) <= 1e-10) {
			t.Errorf("log r of cluster %d is %v, want %v", k, res.V[k], v)
		}
	}
	for _, workers := range []int{1, 16} {
		other, err := Solve(context.Background(), NewCPU(gaps, workers), Options{Method: MethodSinkhorn, Lambda: 12})
		if err != nil || !reflect.DeepEqual(other, res) {
			t.Errorf("%d workers: other bits, %v", workers, err)
		}
	}
}

// broken is a Source whose ReadChunk does what after does to a good block.
type broken struct {
	*memory
	after func(ctx context.Context, i int, b *Block) error
}

func (s *broken) ReadChunk(ctx context.Context, i int, buf *Block, yield func(*Block) error) error {
	s.memory.chunk(i, buf)
	if err := s.after(ctx, i, buf); err != nil {
		return err
	}
	return yield(buf)
}

func TestInconsistentSource(t *testing.T) {
	m := problem(33, 5000, 3, 1, 0)
	for name, after := range map[string]func(i int, b *Block){
		"short":      func(i int, b *Block) { b.X = b.X[1:] },
		"outside":    func(i int, b *Block) { b.Rows[5] += ChunkRows },
		"unordered":  func(i int, b *Block) { b.Rows[5] = b.Rows[6] },
		"lost row":   func(i int, b *Block) { b.Rows, b.X = b.Rows[1:], b.X[3:] },
		"other rows": func(i int, b *Block) { b.Rows[0] = -1 },
	} {
		src := &broken{m, func(_ context.Context, i int, b *Block) error {
			if i == 3 {
				after(i, b)
			}
			return nil
		}}
		if _, err := NewCPU(src, 2).Pass(context.Background(), Request{Lambda: 1}); !errors.Is(err, ErrSource) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFirstFault reads chunks of which several fail, in any order of time: the
// first of them is reported.
func TestFirstFault(t *testing.T) {
	m := problem(34, 20*ChunkRows, 2, 1, 0)
	for seed := range uint64(20) {
		src := &broken{m, func(_ context.Context, i int, b *Block) error {
			for range rand.New(rand.NewPCG(seed, uint64(i))).IntN(100) {
				runtime.Gosched()
			}
			if i >= 5 {
				return fmt.Errorf("chunk %d is lost", i)
			}
			return nil
		}}
		_, err := NewCPU(src, 8).Pass(context.Background(), Request{Lambda: 1})
		if err == nil || err.Error() != "sinkhorn: read chunk 5: chunk 5 is lost" {
			t.Fatal(err)
		}
	}
}

// TestCancel cancels in the middle of a pass, once with a source that only
// returns when its context ends.
func TestCancel(t *testing.T) {
	m := problem(35, 30*ChunkRows, 4, 1, 0)
	for _, workers := range []int{1, 4} {
		for _, blocks := range []bool{false, true} {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(context.Background())
			var after atomic.Int64
			src := &broken{m, func(ctx context.Context, i int, b *Block) error {
				if i < 7 {
					return nil
				}
				cancel()
				after.Add(1)
				if blocks {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}}
			_, err := Solve(ctx, NewCPU(src, workers), Options{Method: MethodSinkhorn})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%d workers: %v", workers, err)
			}
			if n := after.Load(); n > int64(workers) {
				t.Errorf("%d workers: %d chunks read after cancellation", workers, n)
			}
			// Pass waits for its goroutines, so only ones about to exit are left.
			for n := 0; runtime.NumGoroutine() > before && n < 5000; n++ {
				time.Sleep(time.Millisecond)
			}
			if now := runtime.NumGoroutine(); now > before {
				t.Errorf("%d workers: %d goroutines, %d before", workers, now, before)
			}
		}
	}
}

func TestRequestValidation(t *testing.T) {
	cpu := NewCPU(problem(36, 100, 3, 1, 0), 1)
	v := []float64{0, 0, 0}
	for _, req := range []Request{
		{V: v}, {Lambda: -1, V: v}, {Lambda: math.NaN(), V: v}, {Lambda: 1, V: v[:2]}, {Lambda: 1, V: []float64{0, 0, math.Inf(-1)}},
		{Lambda: 1, V: v, Change: true, Previous: v[:1]}, {Lambda: 1, Certify: true}, {Lambda: 1, Change: true}, {Lambda: 1, Previous: v},
	} {
		if _, err := cpu.Pass(context.Background(), req); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

// TestAllocations compares passes over few and over many chunks: the number of
// allocations is the same, but for what waiting goroutines may take.
func TestAllocations(t *testing.T) {
	count := func(chunks int) float64 {
		cpu := NewCPU(problem(37, chunks*ChunkRows, 4, 1, 0), 2)
		v := make([]float64, 4)
		return testing.AllocsPerRun(5, func() {
			if _, err := cpu.Pass(context.Background(), Request{Lambda: 1, V: v, Change: true, Certify: true}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := count(3), count(40); many > few+12 {
		t.Errorf("%v allocations for 40 chunks, %v for 3", many, few)
	}
}
