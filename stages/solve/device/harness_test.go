package device

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// memory is a Source over a matrix whose row i has number numbers[i].
type memory struct {
	numbers   []int64
	x         []float32
	clusters  int
	blockRows int // rows of a block
	chunks    int
	reads     int
}

func (m *memory) Dims() (int64, int) { return int64(len(m.numbers)), m.clusters }

func (m *memory) Chunks() int { return m.chunks }

func (m *memory) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	m.reads++
	low, high := 0, 0
	for low < len(m.numbers) && m.numbers[low] < int64(i)*sinkhorn.ChunkRows {
		low++
	}
	for high = low; high < len(m.numbers) && m.numbers[high] < int64(i+1)*sinkhorn.ChunkRows; high++ {
	}
	for ; low < high; low += m.blockRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(m.blockRows, high-low)
		buf.Rows = append(buf.Rows[:0], m.numbers[low:low+n]...)
		buf.X = append(buf.X[:0], m.x[low*m.clusters:(low+n)*m.clusters]...)
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// row returns the log-probabilities of a row.
func (m *memory) row(i int) []float32 { return m.x[i*m.clusters : (i+1)*m.clusters] }

// problem returns log-softmax rows of normal logits with a bias by cluster. A
// row is left out of every gap row numbers, none for 0.
func problem(seed uint64, rows, clusters int, scale, bias float64, gap int64) *memory {
	r := rand.New(rand.NewPCG(seed, 5))
	shift := make([]float64, clusters)
	for k := range shift {
		shift[k] = bias * r.NormFloat64()
	}
	m := &memory{x: make([]float32, rows*clusters), clusters: clusters, blockRows: 100}
	logits := make([]float64, clusters)
	for i, number := 0, int64(0); i < rows; i, number = i+1, number+1 {
		if gap > 0 && number%gap == gap-1 {
			number++
		}
		m.numbers = append(m.numbers, number)
		m.chunks = int(number/sinkhorn.ChunkRows) + 1
		sum := 0.0
		for k := range logits {
			logits[k] = scale*r.NormFloat64() + shift[k]
			sum += math.Exp(logits[k])
		}
		for k, l := range logits {
			m.row(i)[k] = float32(l - math.Log(sum))
		}
	}
	return m
}

// needGPU skips where nobody asked for a GPU: `make gpu-check` does, on a
// machine that has one.
func needGPU(t testing.TB) {
	t.Helper()
	if os.Getenv("SELA_GPU") == "" {
		t.Skip("needs an NVIDIA GPU: run make gpu-check there")
	}
}

// providers are those that the tests can run on.
func providers() []string {
	if os.Getenv("SELA_GPU") == "" {
		return []string{ort.CPU}
	}
	return []string{ort.CPU, ort.CUDA}
}

// open returns an evaluator that the test closes.
func open(t testing.TB, src sinkhorn.Source, o Options) *Evaluator {
	t.Helper()
	if o.Provider == "" {
		o.Provider = ort.CPU
	}
	o.Scratch = t.TempDir()
	e, err := New(context.Background(), orttest.Open(t), src, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	left, err := os.ReadDir(o.Scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("scratch holds %v, %v", left, err)
	}
	return e
}

func pass(t testing.TB, e sinkhorn.Evaluator, req sinkhorn.Request) *sinkhorn.PassResult {
	t.Helper()
	r, err := e.Pass(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
