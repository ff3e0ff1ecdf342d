package device

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"sela/sinkhorn"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// repeated rows: chunk i holds the rows of chunk i mod the chunks of few.
type repeatedRows struct {
	few  *memory
	rows int64 // a multiple of few's
}

func (s repeatedRows) Dims() (int64, int) { return s.rows, s.few.clusters }

func (s repeatedRows) Chunks() int { return int(s.rows / sinkhorn.ChunkRows) }

func (s repeatedRows) ReadChunk(ctx context.Context, i int, _ *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	first := int64(i%s.few.chunks) * sinkhorn.ChunkRows
	b := &sinkhorn.Block{X: s.few.x[first*int64(s.few.clusters) : (first+sinkhorn.ChunkRows)*int64(s.few.clusters)]}
	for r := range int64(sinkhorn.ChunkRows) {
		b.Rows = append(b.Rows, int64(i)*sinkhorn.ChunkRows+r)
	}
	return yield(b)
}

// TestGPUAgreesWithCPU compares passes over 262,144 x 1,000 entries, as kept
// and as streamed tiles.
func TestGPUAgreesWithCPU(t *testing.T) {
	needGPU(t)
	src := repeatedRows{problem(101, 4*sinkhorn.ChunkRows, 1000, 3, 0.5, 0), 256 * sinkhorn.ChunkRows}
	v, before := make([]float64, 1000), make([]float64, 1000)
	for k := range v {
		v[k] = math.Sin(float64(k))
	}
	req := sinkhorn.Request{Lambda: 25, V: v, Change: true, Previous: before, Certify: true, LogMass: true}
	want := pass(t, sinkhorn.NewCPU(src, 8), req)
	for _, memory := range []int64{0, 512 << 20} {
		e := open(t, src, Options{Provider: ort.CUDA, Memory: memory})
		got := pass(t, e, req)
		compare(t, got, want, true)
		worst := math.Abs(got.MeanLSE - want.MeanLSE)
		for k := range got.LogMass {
			worst = max(worst, math.Abs(got.LogMass[k]-want.LogMass[k]))
		}
		t.Logf("memory %d: largest difference of the mean log-sum-exp and the log masses: %.2g nats", memory, worst)
		if !(worst < 1e-6) {
			t.Errorf("they differ by %v", worst)
		}
	}
}

// The CUDA provider must leave Go's signal handling alone.
func TestGPUKeepsSignals(t *testing.T) {
	needGPU(t)
	m := problem(102, 100, 10, 1, 0, 0)
	pass(t, open(t, m, Options{Provider: ort.CUDA}), sinkhorn.Request{Lambda: 1})
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGTERM)
	defer signal.Stop(received)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-received:
	case <-time.After(10 * time.Second):
		t.Fatal("SIGTERM did not arrive")
	}
}

// bandwidth returns the bytes per second that a chain of products with a
// scalar moves in the provider's memory: each reads and writes every value.
func bandwidth(b *testing.B, provider string, values int64) float64 {
	b.Helper()
	const products = 64
	dir := b.TempDir()
	data, err := os.Create(filepath.Join(dir, "x.f32"))
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(data.Truncate(4*values), data.Close()); err != nil {
		b.Fatal(err)
	}
	g := onnx.NewBuilder("bandwidth")
	x := g.Const("x", onnx.ExternalFloats("x.f32", values))
	factor := g.Input(onnx.Value{Name: "factor", DType: onnx.Float32, Shape: sizes(1)})
	for range products {
		x = g.Node("Mul", "", []string{x, factor})
	}
	x = g.Node("ReduceMax", "", []string{x}, onnx.Int("keepdims", 1))
	y := g.Node("Cast", "y", []string{x}, onnx.Int("to", int64(onnx.Float64)))
	g.Output(onnx.Value{Name: y, DType: onnx.Float64})
	path := filepath.Join(dir, "bandwidth.onnx")
	if err := g.Model().Save(path); err != nil {
		b.Fatal(err)
	}
	p, err := orttest.Open(b).NewProgram(path, ort.Options{Arena: true, Threads: runtime.GOMAXPROCS(0),
		Providers: []ort.Provider{{Name: provider}}, Inputs: []string{"factor"}, Outputs: []string{y}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	best := time.Duration(math.MaxInt64)
	for range 10 {
		start := time.Now()
		if _, err := p.Run(context.Background(), ort.Array[float32]{Dims: []int64{1}, Values: []float32{1}}); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	return 8 * products * float64(values) / best.Seconds()
}

// benchmarkPasses measures each kind of pass: entries per second, and the
// bytes of float32 that they are as a share of the bandwidth of the device's
// memory.
func benchmarkPasses(b *testing.B, provider string, src sinkhorn.Source, bytesPerSecond float64) {
	rows, clusters := src.Dims()
	v := make([]float64, clusters)
	for _, kept := range []bool{true, false} {
		o := Options{Provider: provider}
		if !kept {
			o.Memory = -1
		}
		e := open(b, src, o)
		for _, c := range []struct {
			name string
			req  sinkhorn.Request
		}{
			{"first", sinkhorn.Request{Lambda: 25}}, {"iteration", sinkhorn.Request{Lambda: 25, V: v}},
			{"check", sinkhorn.Request{Lambda: 25, V: v, Change: true, Previous: v, Certify: true}},
		} {
			b.Run(fmt.Sprintf("%dx%d/kept=%v/%s", rows, clusters, kept, c.name), func(b *testing.B) {
				for b.Loop() {
					pass(b, e, c.req)
				}
				rate := float64(rows) * float64(clusters) * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate/1e9, "Gelem/s")
				b.ReportMetric(100*4*rate/bytesPerSecond, "%bandwidth")
			})
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGPU measures passes over 4.6 GiB of ImageNet's width, and over
// narrow rows, on the GPU.
func BenchmarkGPU(b *testing.B) {
	needGPU(b)
	moved := bandwidth(b, ort.CUDA, 256<<20)
	b.Logf("device memory: %.0f GB/s read and written by products", moved/1e9)
	for _, clusters := range []int{3000, 128} {
		few := problem(111, 2*sinkhorn.ChunkRows, clusters, 3, 0.5, 0)
		benchmarkPasses(b, ort.CUDA, repeatedRows{few, int64(1200000/clusters) * sinkhorn.ChunkRows}, moved)
	}
}

// BenchmarkCPU measures passes over 23 MiB and 1 MiB on the CPU provider.
func BenchmarkCPU(b *testing.B) {
	moved := bandwidth(b, ort.CPU, 8<<20)
	b.Logf("memory: %.1f GB/s read and written by products", moved/1e9)
	for _, clusters := range []int{3000, 128} {
		few := problem(111, 2*sinkhorn.ChunkRows, clusters, 3, 0.5, 0)
		benchmarkPasses(b, ort.CPU, few, moved)
	}
}
