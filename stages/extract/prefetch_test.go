package extract_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/filedriver"
	"sela/stages/extract"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/runtest"
	"sela/stages/list"
)

// gate is a store that answers no read before so many of them are under way at
// once, and then all.
type gate struct {
	driver.Bucket
	opens int // at so many
	fault error

	mu          sync.Mutex
	under, most int
	open        chan struct{}
}

func newGate(t testing.TB, r *runtest.Run, opens int) (*gate, *bucket.Bucket) {
	t.Helper()
	folder := filepath.Join(r.Dir, "mine")
	d, err := filedriver.New(folder, filedriver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Bucket: d, opens: opens, open: make(chan struct{})}
	b := bucket.New(blob.NewBucket(g), "file://"+folder, bucket.Options{Requests: 2000})
	t.Cleanup(func() { b.Close() })
	return g, b
}

func (g *gate) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	g.mu.Lock()
	g.under++
	g.most = max(g.most, g.under)
	if g.under == g.opens {
		close(g.open)
		g.opens = 0
	}
	g.mu.Unlock()
	leave := func() {
		g.mu.Lock()
		g.under--
		g.mu.Unlock()
	}
	select {
	case <-g.open:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	if g.fault != nil {
		leave()
		return nil, g.fault
	}
	r, err := g.Bucket.NewRangeReader(ctx, key, offset, length, opts)
	if err != nil {
		leave()
		return nil, err
	}
	return &gated{r, sync.OnceFunc(leave)}, nil
}

func (g *gate) ErrorCode(err error) gcerrors.ErrorCode {
	if g.fault != nil && errors.Is(err, g.fault) {
		return gcerrors.PermissionDenied
	}
	return g.Bucket.ErrorCode(err)
}

// seen returns how many reads are under way, and how many were at most.
func (g *gate) seen() (under, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.under, g.most
}

type gated struct {
	driver.Reader
	leave func()
}

func (r *gated) Close() error {
	r.leave()
	return r.Reader.Close()
}

// equals are so many images of equally many bytes, and that number.
func equals(t testing.TB, n int) (map[string][]byte, int64) {
	data := pngOf(t, 1)
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("%05d.png", i)] = data
	}
	return files, int64(len(data))
}

// TestRequestsUnderWay: as many requests as the job allows, or as its bytes of
// read-ahead hold, are under way at once and never one more, also where they
// are of two tasks.
func TestRequestsUnderWay(t *testing.T) {
	files, size := equals(t, 1300)
	r := world(t, files, onnxtest.Classifier{}, nil)
	r.Through(t, r.Run, extract.Name)
	want, images := digests(t, r.Run), r.Images
	for i, c := range []struct {
		name     string
		requests int
		ahead    pipeline.Bytes
		want     int
	}{
		{"one", 1, 64 << 20, 1},
		{"as the job says", 23, 64 << 20, 23},
		{"chosen", 0, 64 << 20, 256},
		{"as the bytes say", 0, pipeline.Bytes(17*size + 1), 17},
		{"of two tasks", 1200, 64 << 20, 1200},
		{"all there are", 2000, 64 << 20, 1300},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Images = images
			r.Job.Extract.Requests, r.Job.Extract.ReadAhead = c.requests, c.ahead
			run := r.Open(t, fmt.Sprintf("gate-%d", i))
			r.Through(t, run, list.Name)
			g, store := newGate(t, r, c.want)
			r.Images = store
			stage := r.Stages()[1].(*extract.Stage)
			defer stage.Close()
			runner := runtest.Runner()
			runner.Parallel = 2
			if _, err := runner.Run(context.Background(), run, stage); err != nil {
				t.Fatal(err)
			}
			if under, most := g.seen(); under != 0 || most != c.want {
				t.Errorf("at most %d requests were under way, want %d; %d still are", most, c.want, under)
			}
			allIdle(t, stage)
			same(t, digests(t, run), want)
		})
	}
}

// TestRequestsEnd: whether the run is stopped while all requests wait, or all
// of them fail, nothing of them is left and the failure keeps its class.
func TestRequestsEnd(t *testing.T) {
	files, _ := equals(t, 1300)
	r := world(t, files, onnxtest.Classifier{}, func(j *pipeline.Job) { j.Extract.Requests = 1100 })
	images := r.Images
	for _, class := range []pipeline.Class{pipeline.Interrupted, pipeline.Config} {
		t.Run(class.String(), func(t *testing.T) {
			r.Images = images
			run := r.Open(t, "end-"+class.String())
			r.Through(t, run, list.Name)
			g, store := newGate(t, r, 1100)
			r.Images = store
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stage := r.Stages()[1].(*extract.Stage)
			defer stage.Close()
			if _, err := stage.Preflight(ctx, nil); err == nil {
				t.Error("preflight without images")
			}
			before := runtime.NumGoroutine()
			if class == pipeline.Interrupted {
				g.opens = 0 // never
			} else {
				g.fault = errors.New("access denied")
			}
			ended := make(chan error, 1)
			runner := runtest.Runner()
			runner.Parallel = 2
			go func() { _, err := runner.Run(ctx, run, stage); ended <- err }()
			if class == pipeline.Interrupted {
				waitFor(t, "requests", func() bool { under, _ := g.seen(); return under == 1100 })
				cancel()
			}
			if err := <-ended; pipeline.ClassOf(err) != class {
				t.Errorf("class %s, want %s: %v", pipeline.ClassOf(err), class, err)
			}
			waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+extract.Workers(r.Job) })
			if under, _ := g.seen(); under != 0 {
				t.Errorf("%d requests are under way", under)
			}
			allIdle(t, stage)
		})
	}
}
