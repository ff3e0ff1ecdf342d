package extract

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// needGPU skips where nobody asked for a GPU: `make gpu-check` does, on a
// machine that has one.
func needGPU(t testing.TB) {
	t.Helper()
	if os.Getenv("SELA_GPU") == "" {
		t.Skip("needs an NVIDIA GPU: run make gpu-check there")
	}
}

// openOn opens resnet-s with the given providers. Its features are its input.
func openOn(t testing.TB, batch int, normalise string, providers ...string) *Classifier {
	t.Helper()
	graph, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: 32, Heads: 10, Clusters: 128, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	job := pipeline.DefaultJob()
	job.Model.Path = filepath.Join(t.TempDir(), "model.onnx")
	job.Preprocess.Resize, job.Preprocess.Crop = nil, pipeline.Size{32}
	job.Preprocess.Normalise, job.Model.Features = normalise, "images"
	job.Runtime.Providers, job.Runtime.Batch = providers, batch
	design, err := NewDesign(job, graph)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := ort.Open(orttest.Library(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(context.Background(), rt, job, design, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// runNoise runs a batch of seeded noise and returns the slot with its outputs.
func runNoise(t testing.TB, c *Classifier) *ort.Slot {
	t.Helper()
	slot, err := c.NewSlot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slot.Close() })
	random := rand.New(rand.NewPCG(1, 2))
	for i := range slot.Inputs[0].Float32() {
		slot.Inputs[0].Float32()[i] = float32(random.NormFloat64())
	}
	for i := range slot.Inputs[0].Uint8() {
		slot.Inputs[0].Uint8()[i] = uint8(random.Uint32())
	}
	if err := c.session.Run(context.Background(), slot); err != nil {
		t.Fatal(err)
	}
	return slot
}

// Without TF32 the log-probabilities of both processors differ by rounding
// alone.
func TestGPUAgreesWithCPU(t *testing.T) {
	needGPU(t)
	cpu, gpu := runNoise(t, openOn(t, 64, "host", "cpu")), openOn(t, 64, "host", "cuda", "cpu")
	slot := runNoise(t, gpu)
	worst := 0.0
	for h := range gpu.Heads {
		for i, x := range cpu.Outputs[h].Float32() {
			worst = math.Max(worst, math.Abs(float64(x-slot.Outputs[h].Float32()[i])))
		}
	}
	t.Logf("largest difference of a log-probability: %.2g nats", worst)
	if !(worst < 1e-3) {
		t.Errorf("log-probabilities differ by up to %v nats", worst)
	}
	probe, err := gpu.session.CheckDeterminism(context.Background(), slot)
	t.Logf("determinism on the GPU: %+v, %v", probe, err)
}

// Images that are normalised on the GPU have the values that they have on the
// CPU, which are the host's.
func TestGPUNormalisesAsCPU(t *testing.T) {
	needGPU(t)
	cpu, gpu := openOn(t, 64, "device", "cpu"), openOn(t, 64, "device", "cuda", "cpu")
	want, got := runNoise(t, cpu).Outputs[len(cpu.Heads)].Float32(), runNoise(t, gpu).Outputs[len(gpu.Heads)].Float32()
	differ := 0
	for i, x := range want {
		if math.Float32bits(x) != math.Float32bits(got[i]) {
			differ++
		}
	}
	if differ > 0 || len(want) != 64*gpu.FeatureDim {
		t.Errorf("%d of %d values differ", differ, len(want))
	}
}

// The CUDA provider must leave Go's signal handling alone.
func TestGPUKeepsSignals(t *testing.T) {
	needGPU(t)
	runNoise(t, openOn(t, 8, "host", "cuda", "cpu"))
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

func BenchmarkGPU(b *testing.B) {
	needGPU(b)
	for _, on := range []struct {
		normalise string
		providers []string
	}{{"host", []string{"cpu"}}, {"host", []string{"cuda", "cpu"}}, {"device", []string{"cuda", "cpu"}}} {
		b.Run(on.providers[0]+"/normalised-on-"+on.normalise, func(b *testing.B) {
			const batch = 256
			c := openOn(b, batch, on.normalise, on.providers...)
			slot := runNoise(b, c)
			for b.Loop() {
				if err := c.session.Run(context.Background(), slot); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "images/s")
		})
	}
}
