package device

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

func TestBadRows(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name string
		set  func(x []float32)
		want string
	}{
		{"nan", func(x []float32) { x[3] = nan }, "log-probability of cluster 3 is NaN"},
		{"first nan", func(x []float32) { x[0] = nan }, "log-probability of cluster 0 is NaN"},
		{"all nan", func(x []float32) {
			for k := range x {
				x[k] = nan
			}
		}, "log-probability of cluster 0 is NaN"},
		{"infinite", func(x []float32) { x[6] = inf }, "log-probability of cluster 6 is +Inf"},
		{"impossible", func(x []float32) {
			for k := range x {
				x[k] = -inf
			}
		}, "every log-probability is -Inf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := problem(41, 1300, 7, 1, 0, 6)
			c.set(m.row(1111))
			c.set(m.row(1250))
			for _, memory := range []int64{0, -1} {
				e := open(t, m, Options{tileElements: 700, Memory: memory})
				for _, v := range [][]float64{nil, make([]float64, 7)} {
					_, err := e.Pass(context.Background(), sinkhorn.Request{Lambda: 25, V: v})
					var row *sinkhorn.RowError
					if !errors.As(err, &row) || row.Row != m.numbers[1111] || !strings.Contains(err.Error(), c.want) {
						t.Errorf("memory %d, v %v: error %v", memory, v, err)
					}
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	m := problem(51, 100, 4, 1, 0, 0)
	e := open(t, m, Options{})
	v := make([]float64, 4)
	for name, req := range map[string]sinkhorn.Request{
		"lists": {Lambda: 1, V: v, Lists: &sinkhorn.ListRequest{}}, "lambda": {V: v}, "infinite lambda": {Lambda: math.Inf(1), V: v},
		"short": {Lambda: 1, V: v[:3]}, "previous": {Lambda: 1, V: v, Change: true, Previous: v[:2]},
		"no potentials": {Lambda: 1, Certify: true}, "nan": {Lambda: 1, V: []float64{0, 0, math.NaN(), 0}},
	} {
		if _, err := e.Pass(context.Background(), req); !errors.Is(err, sinkhorn.ErrOptions) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	empty := &memory{clusters: 3, chunks: 2}
	if _, err := open(t, empty, Options{}).Pass(context.Background(), sinkhorn.Request{Lambda: 1}); !errors.Is(err, sinkhorn.ErrNoRows) {
		t.Errorf("no rows: %v", err)
	}
}

// lying is a source whose chunks hold more or fewer rows than it says.
type lying struct {
	*memory
	rows int64
}

func (l lying) Dims() (int64, int) { return l.rows, l.clusters }

func TestInconsistentSource(t *testing.T) {
	rt := orttest.Open(t)
	for _, rows := range []int64{99, 101} {
		src := lying{problem(61, 100, 4, 1, 0, 0), rows}
		if _, err := New(t.Context(), rt, src, Options{Provider: ort.CPU, Scratch: t.TempDir()}); !errors.Is(err, sinkhorn.ErrSource) {
			t.Errorf("%d rows: %v", rows, err)
		}
		e := open(t, src, Options{Memory: -1})
		if _, err := e.Pass(t.Context(), sinkhorn.Request{Lambda: 1}); !errors.Is(err, sinkhorn.ErrSource) {
			t.Errorf("%d rows streamed: %v", rows, err)
		}
	}
}

// failing is a source whose chunk 1 cannot be read.
type failing struct{ *memory }

var errFailing = errors.New("disk on fire")

func (f failing) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	if i == 1 {
		return errFailing
	}
	return f.memory.ReadChunk(ctx, i, buf, yield)
}

func TestFailingSource(t *testing.T) {
	src := failing{problem(62, 2500, 4, 1, 0, 0)}
	dir := t.TempDir()
	_, err := New(t.Context(), orttest.Open(t), src, Options{Provider: ort.CPU, Scratch: dir})
	if left, _ := os.ReadDir(dir); !errors.Is(err, errFailing) || len(left) > 0 {
		t.Errorf("error %v, left %v", err, left)
	}
	e := open(t, src, Options{Memory: -1})
	if _, err := e.Pass(t.Context(), sinkhorn.Request{Lambda: 1}); !errors.Is(err, errFailing) {
		t.Errorf("streamed: %v", err)
	}
}

func TestProviders(t *testing.T) {
	m := problem(71, 10, 4, 1, 0, 0)
	rt := orttest.Open(t)
	if _, err := New(t.Context(), rt, m, Options{Provider: "tensorrt", Scratch: t.TempDir()}); !errors.Is(err, ort.ErrProvider) {
		t.Errorf("tensorrt: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(rt.Library().Path), "libonnxruntime_providers_cuda.so")); err == nil {
		t.Skip("this ONNX Runtime has CUDA")
	}
	_, err := New(t.Context(), rt, m, Options{Provider: ort.CUDA, Scratch: t.TempDir()})
	if !errors.Is(err, ort.ErrProvider) || !strings.Contains(err.Error(), "libonnxruntime_providers") {
		t.Errorf("cuda: %v", err)
	}
}

func TestScratch(t *testing.T) {
	m := problem(72, 10, 4, 1, 0, 0)
	_, err := New(t.Context(), orttest.Open(t), m, Options{Provider: ort.CPU, Scratch: filepath.Join(t.TempDir(), "absent")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// cancelling ends the context at its n-th chunk.
type cancelling struct {
	*memory
	cancel func()
	left   int
}

func (c *cancelling) ReadChunk(ctx context.Context, i int, buf *sinkhorn.Block, yield func(*sinkhorn.Block) error) error {
	if c.left--; c.left == 0 {
		c.cancel()
	}
	return c.memory.ReadChunk(ctx, i, buf, yield)
}

func TestCancelled(t *testing.T) {
	req := sinkhorn.Request{Lambda: 25, V: make([]float64, 16)}
	m := problem(81, 5000, 16, 1, 0, 0)
	t.Run("New", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dir := t.TempDir()
		_, err := New(ctx, orttest.Open(t), &cancelling{m, cancel, 3}, Options{Provider: ort.CPU, Scratch: dir})
		if left, _ := os.ReadDir(dir); !errors.Is(err, context.Canceled) || len(left) > 0 {
			t.Errorf("error %v, left %v", err, left)
		}
	})
	t.Run("stream", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		src := &cancelling{m, cancel, 3}
		e := open(t, src, Options{Memory: -1})
		if _, err := e.Pass(ctx, req); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		compare(t, pass(t, e, req), pass(t, sinkhorn.NewCPU(m, 1), req), false)
	})
	t.Run("run", func(t *testing.T) {
		// Tiles of a row: the run takes tens of thousands of nodes.
		e := open(t, m, Options{tileElements: 1})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		for {
			if _, err := e.Pass(ctx, req); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				break
			}
		}
		compare(t, pass(t, e, req), pass(t, sinkhorn.NewCPU(m, 1), req), false)
	})
}
