package extract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sela/pipeline"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// cifar10 returns the folder of the CIFAR-10 tars, which lie beside the
// repository.
func cifar10(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		found := filepath.Join(dir, "shared", "data", "cifar10")
		if _, err := os.Stat(found); err == nil {
			return found
		}
	}
	t.Skip("skipped: CIFAR-10 (shared/data/cifar10) is not above this folder")
	return ""
}

// cifarRun is a listed run over CIFAR-10 with resnet-s and 10 heads of 128.
func cifarRun(t testing.TB, glob string, change func(*pipeline.Job)) (*runtest.Run, *extract.Stage) {
	t.Helper()
	folder, dir := cifar10(t), t.TempDir()
	model, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{Heads: 10, Clusters: 128, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Save(filepath.Join(dir, "resnet-s.onnx")); err != nil {
		t.Fatal(err)
	}
	r := runtest.New(t, runtest.Options{Images: 1, Dir: dir, Job: func(j *pipeline.Job) {
		d := pipeline.DefaultJob()
		j.Runtime, j.Extract, j.Local.Bytes = d.Runtime, d.Extract, d.Local.Bytes
		j.Images.Bucket, j.Images.Glob = "file://"+folder, glob
		j.Model.Path, j.Preprocess.Crop = filepath.Join(dir, "resnet-s.onnx"), pipeline.Size{32}
		if change != nil {
			change(j)
		}
	}})
	r.Through(t, r.Run, list.Name)
	return r, r.Stages()[1].(*extract.Stage)
}

// cpuSeconds is the processor time of this process.
func cpuSeconds(t testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// load reads the images of a listing into memory.
func load(t testing.TB, r *runtest.Run) [][]byte {
	t.Helper()
	ctx := context.Background()
	listing, err := list.Open(ctx, r.Run)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	tars := map[string][]byte{}
	err = listing.Read(ctx, 0, listing.Images, func(img schemas.Image) error {
		if tars[img.Key] == nil {
			raw, err := r.Images.Get(ctx, img.Key)
			if err != nil {
				return err
			}
			tars[img.Key] = raw
		}
		all = append(all, tars[img.Key][img.Offset:img.Offset+img.Size])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rate is what a loop over all images took.
type rate struct{ wall, cpu float64 } // seconds per image

func (r *rate) add(s rate, weight float64) { r.wall, r.cpu = r.wall+weight*s.wall, r.cpu+weight*s.cpu }

// measure runs f, for each of n batches, on one goroutine per core.
func measure(b *testing.B, c *extract.Classifier, images [][]byte, f func(worker int, batch [][]byte) error) rate {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	begin, cpu := time.Now(), cpuSeconds(b)
	for w := range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				i := int(next.Add(1)-1) * c.Batch
				if i >= len(images) {
					return
				}
				if err := f(w, images[i:min(i+c.Batch, len(images))]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	n := float64(len(images))
	return rate{time.Since(begin).Seconds() / n, (cpuSeconds(b) - cpu) / n}
}

// BenchmarkExtract compares the stage with what bounds it: the model's session
// run on ready batches, and decoding and inference one after the other on the
// same cores.
func BenchmarkExtract(b *testing.B) {
	ctx := context.Background()
	r, stage := cifarRun(b, "cifar10-test-*.tar", nil)
	defer stage.Close()
	if _, err := stage.Preflight(ctx, first(b, r, 128)); err != nil {
		b.Fatal(err)
	}
	c, images := stage.Classifier(), load(b, r)
	cores := runtime.GOMAXPROCS(0)
	var slots []slotWorker
	for range cores {
		s, err := c.NewSlot(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		slots = append(slots, slotWorker{s, c.NewWorker()})
	}
	inSession := func() rate {
		return measure(b, c, images, func(w int, _ [][]byte) error { return c.RunSlot(ctx, slots[w].slot) })
	}
	decoding := func() rate {
		return measure(b, c, images, func(w int, batch [][]byte) error {
			for i, data := range batch {
				if err := c.Preprocess(slots[w].worker, data, slots[w].slot, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var whole, run, decode rate
	timing := &extract.Timing{}
	n := float64(len(images))
	const rounds = 3
	for b.Loop() {
		// The machine's speed drifts: what is compared is measured in turns.
		for range rounds {
			run.add(inSession(), 0.5/rounds)
			decode.add(decoding(), 0.5/rounds)
			r.Forget(b, extract.Name)
			begin, cpu := time.Now(), cpuSeconds(b)
			if _, err := runner().Run(ctx, r.Run, stage); err != nil {
				b.Fatal(err)
			}
			whole.add(rate{time.Since(begin).Seconds() / n, (cpuSeconds(b) - cpu) / n}, 1.0/rounds)
			timings(b, r, timing)
			decode.add(decoding(), 0.5/rounds)
			run.add(inSession(), 0.5/rounds)
		}
	}
	ceiling := 1 / (decode.wall + run.wall)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1/whole.wall, "images/s")
	b.ReportMetric(1/run.wall, "session-images/s")
	b.ReportMetric(1/decode.wall, "decode-images/s")
	b.ReportMetric(run.wall/whole.wall, "of-session")
	b.ReportMetric(1/whole.wall/ceiling, "of-ceiling")
	b.ReportMetric((decode.cpu+run.cpu)/whole.cpu, "cpu-of-ceiling")
	wall := whole.wall * n * rounds * 1e9
	b.ReportMetric(float64(timing.Fetch.Load())/wall, "feeder-waits-for-store")
	b.ReportMetric(float64(timing.Slot.Load())/wall, "feeder-waits-for-batch")
	b.ReportMetric(1-float64(timing.Decode.Load())/wall/float64(cores), "decoders-wait")
	b.ReportMetric(1-float64(timing.Inference.Load())/wall/float64(cores), "runners-wait")
	b.ReportMetric(1-float64(timing.Write.Load())/wall, "writer-waits")
}

// runner does two tasks at a time, as the stage's documentation says.
func runner() *pipeline.Runner {
	r := runtest.Runner()
	r.Parallel = 2
	return r
}

type slotWorker struct {
	slot   *ort.Slot
	worker *imageio.Worker
}

// first returns the first n images of a listing.
func first(t testing.TB, r *runtest.Run, n int64) (images []schemas.Image) {
	t.Helper()
	listing, err := list.Open(context.Background(), r.Run)
	if err == nil {
		err = listing.Read(context.Background(), 0, n, func(img schemas.Image) error {
			images = append(images, img)
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// timings adds the times of a run's extract tasks to sum.
func timings(t testing.TB, r *runtest.Run, sum *extract.Timing) {
	t.Helper()
	commits, err := r.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		if c.Stage != extract.Name {
			continue
		}
		var result extract.Result
		if err := json.Unmarshal(c.Result, &result); err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]*extract.Nanos{{&sum.Fetch, &result.Timing.Fetch}, {&sum.Slot, &result.Timing.Slot},
			{&sum.Decode, &result.Timing.Decode}, {&sum.Inference, &result.Timing.Inference}, {&sum.Write, &result.Timing.Write}} {
			pair[0].Add(pair[1].Load())
		}
	}
}

// memoryVariable makes this test binary a child that extracts the tars it names.
const memoryVariable = "SELA_TEST_EXTRACT_TARS"

// BenchmarkExtractMemory measures the peak resident memory of a process that
// extracts 10,000 images, and of one that extracts 50,000.
func BenchmarkExtractMemory(b *testing.B) {
	cifar10(b)
	for name, glob := range map[string]string{"10k": "cifar10-test-*.tar", "50k": "cifar10-train-*.tar"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(os.Args[0], "-test.run", "^TestExtractChild$", "-test.v")
				cmd.Env = append(os.Environ(), memoryVariable+"="+glob)
				out, err := cmd.CombinedOutput()
				if err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
				_, peak, ok := strings.Cut(string(out), "peak KiB: ")
				if !ok {
					b.Fatalf("no peak in %s", out)
				}
				kib, err := strconv.ParseFloat(strings.Fields(peak)[0], 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(kib/1024, "peak-MiB")
				b.ReportMetric(kib/1024/1024, "of-1GiB")
			}
		})
	}
}

// TestExtractChild is the child of BenchmarkExtractMemory.
func TestExtractChild(t *testing.T) {
	glob := os.Getenv(memoryVariable)
	if glob == "" {
		t.Skip("skipped: it is started by BenchmarkExtractMemory")
	}
	r, stage := cifarRun(t, glob, nil)
	defer stage.Close()
	if _, err := runner().Run(context.Background(), r.Run, stage); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Printf("peak KiB: %s\n", strings.Fields(peak)[0])
}
