package extract_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
	"sela/pipeline/bucket/filedriver"
	"sela/stages/extract"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// mixed are 1,300 images, loose and in tars, some of which cannot be used: two
// shards of 1,024 rows.
func mixed(t testing.TB) map[string][]byte {
	t.Helper()
	var distinct [][]byte
	for i := range 97 {
		format := "png"
		if i%3 == 0 {
			format = "jpg"
		}
		distinct = append(distinct, encode(t, format, picture(uint64(i), runtest.Size)))
	}
	one := func(i int) []byte {
		if i%77 == 5 {
			return []byte("not an image")
		}
		return distinct[i*i%97]
	}
	files := map[string][]byte{}
	for i := range 300 {
		files[fmt.Sprintf("loose/%04d.png", i)] = one(i)
	}
	for s := range 4 {
		var members []member
		for i := range 250 {
			members = append(members, member{fmt.Sprintf("%03d.jpg", i), one(250*s + i)}, member{fmt.Sprintf("%03d.txt", i), []byte("a caption")})
		}
		files[fmt.Sprintf("shards/%d.tar", s)] = tarOf(t, members...)
	}
	return files
}

// classifierOfTwo has features and heads of different size.
var classifierOfTwo = onnxtest.Classifier{Hidden: 6, Clusters: []int{5, 33}}

func withFeatures(j *pipeline.Job) { j.Model.Features = "hidden" }

// TestSameBytes: shards and quarantine do not depend on how many goroutines
// work, on how far is read ahead, on the store's speed, or on what the store's
// answers arrive after.
func TestSameBytes(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	folder := filepath.Join(r.Dir, "mine")
	plain := r.Images
	r.Job.Extract.Decoders, r.Job.Runtime.Threads = 1, 1
	r.Through(t, r.Run, extract.Name)
	want := digests(t, r.Run)
	// Two shards of two heads, their samples and features; one quarantine each.
	if len(want) != 2*(2+2+1)+2 {
		t.Fatalf("%d files: %v", len(want), slices.Sorted(maps.Keys(want)))
	}
	faulty := func(f *buckettest.Faults) *bucket.Bucket {
		return over(t, folder, func(b *blob.Bucket) *blob.Bucket { return buckettest.Faulty(b, f) })
	}
	for i, c := range []struct {
		name   string
		images *bucket.Bucket
		change func(*pipeline.Job)
	}{
		{"again", plain, func(*pipeline.Job) {}},
		{"2 of each", plain, func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 2, 2 }},
		{"4 of each", plain, func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 4, 4 }},
		{"4 decoders, 1 thread", plain, func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 4, 1 }},
		{"1 decoder, 4 threads", plain, func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 1, 4 }},
		{"hardly any read-ahead", plain, func(j *pipeline.Job) { j.Extract.ReadAhead, j.Extract.Decoders, j.Runtime.Threads = 100, 4, 2 }},
		{"slow store", faulty(&buckettest.Faults{Latency: time.Millisecond}), func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 2, 2 }},
		{"answers out of order", over(t, folder, nil), func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 4, 2 }},
		{"failing store", faulty(&buckettest.Faults{Refuse: 7, Break: 5, BreakAfter: 40}), func(j *pipeline.Job) { j.Extract.Decoders, j.Runtime.Threads = 2, 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Images = c.images
			r.Job.Extract.ReadAhead = 64 << 20
			c.change(r.Job)
			run := r.Open(t, fmt.Sprintf("variant-%d", i))
			r.Through(t, run, extract.Name)
			same(t, digests(t, run), want)
		})
	}
}

// over opens the bucket of a folder through wrap, or, without one, through a
// driver whose readers take their time in no order.
func over(t testing.TB, folder string, wrap func(*blob.Bucket) *blob.Bucket) *bucket.Bucket {
	t.Helper()
	d, err := filedriver.New(folder, filedriver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	inner := blob.NewBucket(&jittery{Bucket: d})
	if wrap != nil {
		inner = wrap(blob.NewBucket(d))
	}
	b := bucket.New(inner, "file://"+folder, bucket.Options{Backoff: time.Microsecond, Attempts: 6})
	t.Cleanup(func() { b.Close() })
	return b
}

type jittery struct {
	driver.Bucket
	calls atomic.Int64
}

func (j *jittery) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	time.Sleep(time.Duration(j.calls.Add(1)*7919%11) * 200 * time.Microsecond)
	return j.Bucket.NewRangeReader(ctx, key, offset, length, opts)
}

// TestReshardedRowsAreEqual: other shards hold other rows, and all of them
// together the same, to the bit.
func TestReshardedRowsAreEqual(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Through(t, r.Run, extract.Name)
	want := map[string]rows{}
	for _, folder := range []string{"logprobs/head-0", "logprobs/head-1", "sample/head-0", "sample/head-1", "features"} {
		want[folder] = read(t, r.Run, folder)
	}
	r.Job.Extract.ShardRows = 2048
	run := r.Open(t, "resharded")
	r.Through(t, run, extract.Name)
	if len(outputs(t, run)) >= len(outputs(t, r.Run)) {
		t.Error("there are no fewer files")
	}
	for folder, w := range want {
		got := read(t, run, folder)
		if len(w.numbers) == 0 || !slices.Equal(got.numbers, w.numbers) || !slices.Equal(got.values, w.values) || !maps.Equal(got.sums, w.sums) {
			t.Errorf("%s differs: %d rows, want %d", folder, len(got.numbers), len(w.numbers))
		}
	}
}

// TestKilledAndRepeated: a task that was stopped in the middle leaves nothing
// that counts, neither in the store nor in the stage, and is repeated to the
// same bytes by the same process or another.
func TestKilledAndRepeated(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Job.Extract.Decoders, r.Job.Runtime.Threads = 2, 2
	r.Through(t, r.Run, extract.Name)
	want := digests(t, r.Run)

	killed := r.Open(t, "killed")
	r.Through(t, killed, list.Name)
	stage := r.Stages()[1].(*extract.Stage)
	defer stage.Close()
	for _, after := range []int64{1, 500, 1100, 20} {
		ctx, cancel := context.WithCancel(context.Background())
		var rows atomic.Int64
		run, err := pipeline.Open(ctx, r.Work, pipeline.Options{Job: r.Job, Provenance: r.Provenance, RunID: "killed",
			Observer: pipeline.ObserverFunc(func(e pipeline.Event) {
				if e.Kind == pipeline.RowsDone && rows.Add(e.Rows) >= after {
					cancel()
				}
			})})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := runtest.Runner().Run(ctx, run, stage); !errors.Is(err, context.Canceled) || pipeline.ClassOf(err) != pipeline.Interrupted {
			t.Errorf("after %d rows: %v", after, err)
		}
	}
	if len(digests(t, killed)) == len(want) {
		t.Error("nothing was left to repeat")
	}
	if _, err := runtest.Runner().Run(context.Background(), killed, stage); err != nil {
		t.Fatal(err)
	}
	same(t, digests(t, killed), want)
}

// TestTasksSideBySide: several tasks at a time, as a runner may do them, take
// turns at the model.
func TestTasksSideBySide(t *testing.T) {
	r := world(t, mixed(t), classifierOfTwo, withFeatures)
	r.Through(t, r.Run, extract.Name)
	run := r.Open(t, "side-by-side")
	r.Through(t, run, list.Name)
	stage := r.Stages()[1].(*extract.Stage)
	defer stage.Close()
	runner := runtest.Runner()
	runner.Parallel = 3
	if _, err := runner.Run(context.Background(), run, stage); err != nil {
		t.Fatal(err)
	}
	same(t, digests(t, run), digests(t, r.Run))
}

// TestBatchSizeDoesNotShow: a batch size that does not divide the
// shards' still gives equal rows, where the model is deterministic.
func TestBatchSizeDoesNotShow(t *testing.T) {
	files := pictures(t, 150)
	files["007.png"] = []byte("not an image")
	r := world(t, files, onnxtest.Classifier{}, nil)
	r.Through(t, r.Run, extract.Name)
	want := read(t, r.Run, "logprobs/head-0")
	for _, n := range []int{1, 13, 1000} {
		other := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Runtime.Batch = n })
		other.Through(t, other.Run, extract.Name)
		got := read(t, other.Run, "logprobs/head-0")
		if !slices.Equal(got.numbers, want.numbers) || !slices.Equal(got.values, want.values) {
			t.Errorf("batches of %d give other rows", n)
		}
	}
}

// TestCompanyFollowsFromTheListing: even the outputs of a model in which the
// images of a batch see each other do not depend on the workers. The places of
// images that cannot be used, and those behind the last one, are blank.
func TestCompanyFollowsFromTheListing(t *testing.T) {
	m, _ := onnxtest.Classifier{}.Build()
	b := onnx.Edit(m)
	mean := b.Node("ReduceMean", "mean", []string{"head_0"}, onnx.Ints("axes", 0), onnx.Int("keepdims", 1))
	b.Output(onnx.Value{Name: b.Node("Add", "coupled", []string{"head_0", mean}), DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 4}}})
	path := filepath.Join(t.TempDir(), "coupled.onnx")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	files := pictures(t, 300)
	for i := range 300 {
		if i%7 == 3 {
			files[fmt.Sprintf("%03d.png", i)] = []byte("not an image")
		}
	}
	r := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Model.Path, j.Model.Outputs = path, []string{"coupled"} })
	extracted := func(id string) map[string]string {
		run := r.Open(t, id)
		r.Through(t, run, list.Name)
		for i := range 300 {
			if i%5 == 2 {
				if err := os.Remove(filepath.Join(r.Dir, "mine", fmt.Sprintf("%03d.png", i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.Through(t, run, extract.Name)
		put(t, filepath.Join(r.Dir, "mine"), files)
		return digests(t, run)
	}
	want := extracted("one-of-each")
	for i, n := range []int{1, 2, 4} {
		r.Job.Extract.Decoders, r.Job.Runtime.Threads = n, n
		same(t, extracted(fmt.Sprintf("of-each-%d", i)), want)
	}
}
