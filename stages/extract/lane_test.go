package extract

import (
	"runtime"
	"testing"

	"sela/pipeline"
)

// TestWorkers: on a CPU there are no more workers than cores, and all do both.
func TestWorkers(t *testing.T) {
	cores := runtime.GOMAXPROCS(0)
	for _, c := range []struct {
		provider                        string
		threads, decoders               int
		workers, runners, both, batches int
	}{
		{"cpu", 0, 0, cores, cores, cores, cores + 3},
		{"cpu", 1, 4, 4, 1, 1, 4},
		{"cpu", 4, 1, 4, 4, 1, 7},
		{"cuda", 0, 0, cores + gpuRunners, gpuRunners, 0, gpuRunners + 3},
		{"tensorrt", 2, 5, 7, 2, 0, 5},
	} {
		job := pipeline.DefaultJob()
		job.Runtime.Providers, job.Runtime.Threads, job.Extract.Decoders = []string{c.provider}, c.threads, c.decoders
		workers := workersOf(job)
		runners, both := 0, 0
		for _, w := range workers {
			if w.infer {
				runners++
			}
			if w.infer && w.decode {
				both++
			}
		}
		if len(workers) != c.workers || runners != c.runners || both != c.both || batches(workers) != c.batches {
			t.Errorf("%+v: %d workers, of which %d run batches and %d do both; %d batches", c, len(workers), runners, both, batches(workers))
		}
		if want := c.decoders; want != 0 && decoders(workers) != want || want == 0 && decoders(workers) != cores {
			t.Errorf("%+v: %d decoders", c, decoders(workers))
		}
	}
}
