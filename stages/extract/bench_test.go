package extract_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gocloud.dev/blob"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/schemas"
	"sela/stages/extract"
	"sela/stages/internal/imageio"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// data returns a folder of images, which lie beside the repository.
func data(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		found := filepath.Join(dir, "shared", "data", name)
		if _, err := os.Stat(found); err == nil {
			return found
		}
	}
	t.Skipf("skipped: shared/data/%s is not above this folder", name)
	return ""
}

// benchRun is a listed run over images with a network of 10 heads of 128.
func benchRun(t testing.TB, network, images, glob string, change func(*pipeline.Job)) (*runtest.Run, *extract.Stage) {
	t.Helper()
	dir := t.TempDir()
	model, err := onnx.NewNetwork(network, onnx.NetworkOptions{Heads: 10, Clusters: 128, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, network+".onnx")
	if err := model.Save(path); err != nil {
		t.Fatal(err)
	}
	r := runtest.New(t, runtest.Options{Images: 1, Dir: dir, Job: func(j *pipeline.Job) {
		d := pipeline.DefaultJob()
		j.Runtime, j.Extract, j.Local.Bytes, j.Preprocess = d.Runtime, d.Extract, d.Local.Bytes, d.Preprocess
		j.Images.Bucket, j.Images.Glob, j.Model.Path = "file://"+images, glob, path
		if network == "resnet-s" {
			j.Preprocess.Resize, j.Preprocess.Crop = nil, pipeline.Size{32}
		}
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

func (r rate) plus(s rate) rate { return rate{r.wall + s.wall, r.cpu + s.cpu} }

// clock measures f, which does n images.
func clock(b *testing.B, n int, f func()) rate {
	begin, cpu := time.Now(), cpuSeconds(b)
	f()
	return rate{time.Since(begin).Seconds() / float64(n), (cpuSeconds(b) - cpu) / float64(n)}
}

// spread runs f for each batch of the images, on one goroutine per core.
func spread(b *testing.B, size int, images [][]byte, f func(worker int, batch [][]byte) error) {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				i := int(next.Add(1)-1) * size
				if i >= len(images) {
					return
				}
				if err := f(w, images[i:min(i+size, len(images))]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[len(values)/2] + values[(len(values)-1)/2]) / 2
}

// rounds is how often what is compared is measured, in turns: the machine's
// speed drifts. The figures are medians over the rounds.
const rounds = 5

// BenchmarkExtract compares the stage with what bounds it, decoding and then
// inference on the same cores, and says where the rest of the processor time
// goes.
func BenchmarkExtract(b *testing.B) {
	for _, c := range []struct{ network, images, glob string }{
		{"resnet-s", "cifar10", "cifar10-test-*.tar"},
		{"resnet-18", "imagenet-samples", "*.tar"},
	} {
		b.Run(c.network, func(b *testing.B) { benchmarkExtract(b, c.network, data(b, c.images), c.glob) })
	}
}

func benchmarkExtract(b *testing.B, network, folder, glob string) {
	ctx := context.Background()
	r, stage := benchRun(b, network, folder, glob, nil)
	defer stage.Close()
	if _, err := stage.Preflight(ctx, first(b, r, 128)); err != nil {
		b.Fatal(err)
	}
	c, images := stage.Classifier(), load(b, r)
	cores := float64(runtime.GOMAXPROCS(0))
	var slots []slotWorker
	for range runtime.GOMAXPROCS(0) {
		s, err := c.NewSlot(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		slots = append(slots, slotWorker{s, c.NewWorker()})
	}
	decode := func() {
		spread(b, c.Batch, images, func(w int, batch [][]byte) error {
			for i, data := range batch {
				if err := c.Preprocess(slots[w].worker, data, slots[w].slot, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	infer := func() {
		spread(b, c.Batch, images, func(w int, _ [][]byte) error { return c.RunSlot(ctx, slots[w].slot) })
	}
	figures := map[string][]float64{}
	add := func(name string, value float64) { figures[name] = append(figures[name], value) }
	for b.Loop() {
		for range rounds {
			half := func() (decoding, inference rate) {
				return clock(b, 2*len(images), decode), clock(b, 2*len(images), infer)
			}
			d1, i1 := half()
			r.Forget(b, extract.Name)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			whole := clock(b, len(images), func() {
				if _, err := runner().Run(ctx, r.Run, stage); err != nil {
					b.Fatal(err)
				}
			})
			runtime.ReadMemStats(&after)
			d2, i2 := half()
			decoding, inference, timing := d1.plus(d2), i1.plus(i2), timings(b, r)
			bound := decoding.plus(inference)
			add("images/s", 1/whole.wall)
			add("of-ceiling", bound.wall/whole.wall)
			// Where other programs want the cores, too, processor time tells
			// more than wall time.
			add("cpu-of-ceiling", bound.cpu/whole.cpu)
			add("cores-used", whole.cpu/whole.wall)
			perImage := func(n int64) float64 { return float64(n) / 1e3 / float64(len(images)) }
			add("decode-µs/image", 1e6*decoding.cpu)
			add("session-µs/image", 1e6*inference.cpu)
			add("rest-µs/image", 1e6*(whole.cpu-bound.cpu))
			add("tables-µs/image", perImage(timing.Write.Load()+timing.Finish.Load()))
			add("idle-µs/image", 1e6*(cores*whole.wall-whole.cpu))
			add("feeder-waits-for-store", perImage(timing.Fetch.Load())/1e6/whole.wall)
			add("B/image", float64(after.TotalAlloc-before.TotalAlloc)/float64(len(images)))
			add("allocs/image", float64(after.Mallocs-before.Mallocs)/float64(len(images)))
		}
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range figures {
		b.ReportMetric(median(values), name)
	}
}

// BenchmarkPrefetch compares the stage on a store that takes 50 ms before each
// answer with the same on local files.
func BenchmarkPrefetch(b *testing.B) {
	for _, c := range []struct{ name, glob string }{{"tar", "cifar10-test-*.tar"}, {"loose", "*.jpg"}} {
		b.Run(c.name, func(b *testing.B) {
			folder := data(b, "cifar10")
			if c.name == "loose" {
				folder = loose(b, folder)
			}
			benchmarkPrefetch(b, folder, c.glob)
		})
	}
}

func benchmarkPrefetch(b *testing.B, folder, glob string) {
	const latency = 50 * time.Millisecond
	ctx := context.Background()
	r, stage := benchRun(b, "resnet-s", folder, glob, nil)
	defer stage.Close()
	slow := over(b, folder, func(b *blob.Bucket) *blob.Bucket { return buckettest.Faulty(b, &buckettest.Faults{Latency: latency}) })
	n := len(listed(b, r.Run))
	pass := func(store *bucket.Bucket) rate {
		r.Forget(b, extract.Name)
		stage.Images = store
		return clock(b, n, func() {
			if _, err := runner().Run(ctx, r.Run, stage); err != nil {
				b.Fatal(err)
			}
		})
	}
	var of, waits, local, slowed []float64
	pass(r.Images) // warm
	for b.Loop() {
		for range rounds {
			before := pass(r.Images)
			s := pass(slow)
			waits = append(waits, float64(timings(b, r).Fetch.Load())/1e9/s.wall/float64(n))
			after := pass(r.Images)
			mean := (before.wall + after.wall) / 2
			of, local, slowed = append(of, mean/s.wall), append(local, 1/mean), append(slowed, 1/s.wall)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(of), "of-local")
	b.ReportMetric(median(local), "local-images/s")
	b.ReportMetric(median(slowed), "slowed-images/s")
	b.ReportMetric(median(waits), "feeder-waits-for-store")
	b.ReportMetric(float64(r.Job.Extract.ReadAhead)/(1<<20), "read-ahead-MiB")
}

// loose unpacks the tars of CIFAR-10's test images.
func loose(t testing.TB, folder string) string {
	t.Helper()
	dir := t.TempDir()
	tars, err := filepath.Glob(filepath.Join(folder, "cifar10-test-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tars {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for members := tar.NewReader(f); ; {
			h, err := members.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(h.Name) != ".jpg" {
				continue
			}
			raw, err := io.ReadAll(members)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(h.Name, "/", "-")), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
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

// timings adds the times of a run's extract tasks.
func timings(t testing.TB, r *runtest.Run) *extract.Timing {
	t.Helper()
	commits, err := r.AllCommits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sum := &extract.Timing{}
	for _, c := range commits {
		if c.Stage != extract.Name {
			continue
		}
		var result extract.Result
		if err := json.Unmarshal(c.Result, &result); err != nil {
			t.Fatal(err)
		}
		sum.Fetch.Add(result.Timing.Fetch.Load())
		sum.Write.Add(result.Timing.Write.Load())
		sum.Finish.Add(result.Timing.Finish.Load())
	}
	return sum
}

// memoryVariable makes this test binary a child that extracts the tars it names.
const memoryVariable = "SELA_TEST_EXTRACT_TARS"

// BenchmarkExtractMemory measures the peak resident memory of a process that
// extracts 10,000 images, and of one that extracts 50,000.
func BenchmarkExtractMemory(b *testing.B) {
	data(b, "cifar10")
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
	r, stage := benchRun(t, "resnet-s", data(t, "cifar10"), glob, nil)
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
