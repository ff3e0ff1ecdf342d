package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"sela/sinkhorn"
	"sela/stages/internal/ort"
)

// Options say where rows are kept and evaluated.
type Options struct {
	// Provider is the execution provider, ort.CUDA or ort.CPU; with CUDA no
	// node may run elsewhere. DeviceID says which GPU.
	Provider string
	DeviceID int

	// Memory bounds the rows kept on the device, in bytes of float32; 0 keeps
	// all, a negative number none. What a pass computes takes more: on a GPU
	// some tiles of 32 MiB in each session, of which there is one for 2 GiB.
	Memory int64

	// Scratch is the folder for a session's rows on their way to the device:
	// at most 2 GiB at a time on a GPU, all kept rows on the CPU. A folder in
	// memory spares a disk the writing.
	Scratch string

	// Fixed but in tests; 0 is the default.
	tileElements, sessionBytes, streamBytes int64
}

// Entries of a tile. A GPU needs large ones, since each node is a launch of
// some microseconds; on a CPU what is computed should stay in the cache.
const (
	gpuTileElements = 1 << 22
	cpuTileElements = 1 << 16
)

// sessionBytes bounds a session's tiles, and with it the scratch file; fewer,
// larger sessions have fewer arenas and streams of their own.
const sessionBytes = 2 << 30

// streamBytes is the advised size of a batch of streamed tiles.
const streamBytes = 64 << 20

// Evaluator is a [sinkhorn.Evaluator] on a device. One pass runs at a time:
// concurrent calls of Pass wait for each other. Close it after use.
type Evaluator struct {
	src     sinkhorn.Source
	rt      *ort.Runtime
	options Options
	shape   shape
	rows    int64 // N
	kept    []session
	next    cursor       // first row that is not kept
	stream  *ort.Program // for the tiles that are not kept; nil where all are
	buffers [2][]float32 // of stream

	mu sync.Mutex // held during a pass
}

// session is a graph that holds tiles.
type session struct {
	program *ort.Program
	tiles   int64
}

// New reads src once and puts its rows on the device. The source must stay
// usable as long as the evaluator is. A provider that cannot be had is an
// error of package ort that names what is missing; nothing falls back.
func New(ctx context.Context, rt *ort.Runtime, src sinkhorn.Source, o Options) (*Evaluator, error) {
	rows, clusters := src.Dims()
	if clusters < 1 {
		return nil, fmt.Errorf("%w: %d clusters", sinkhorn.ErrSource, clusters)
	}
	if o.Provider != ort.CPU && o.Provider != ort.CUDA {
		return nil, fmt.Errorf("%w %q: passes run on %s or %s", ort.ErrProvider, o.Provider, ort.CUDA, ort.CPU)
	}
	if o.tileElements == 0 {
		o.tileElements = gpuTileElements
		if o.Provider == ort.CPU {
			o.tileElements = cpuTileElements
		}
	}
	o.sessionBytes = cmp.Or(o.sessionBytes, sessionBytes)
	o.streamBytes = cmp.Or(o.streamBytes, streamBytes)
	k := int64(clusters)
	e := &Evaluator{src: src, rt: rt, options: o, rows: rows, shape: shape{rows: max(1, min(o.tileElements/k, rows)), clusters: k}}
	if err := e.place(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("put rows on %s: %w", o.Provider, err), e.Close())
	}
	return e, nil
}

// place loads the sessions.
func (e *Evaluator) place(ctx context.Context) error {
	tiles := (e.rows + e.shape.rows - 1) / e.shape.rows
	keep := tiles
	if e.options.Memory != 0 {
		keep = min(tiles, max(e.options.Memory, 0)/e.shape.bytes())
	}
	most := max(1, e.options.sessionBytes/e.shape.bytes())
	for done := int64(0); done < keep; {
		n := min(most, keep-done)
		s, err := e.load(ctx, n)
		if err != nil {
			return err
		}
		e.kept = append(e.kept, s)
		done += n
	}
	if keep == tiles {
		return e.next.end(ctx, e.src, e.rows)
	}
	for i := range e.buffers {
		e.buffers[i] = make([]float32, e.batch()*e.shape.rows*e.shape.clusters)
	}
	var err error
	e.stream, err = e.program(0, nil)
	return err
}

// batch is the number of tiles streamed at a time.
func (e *Evaluator) batch() int64 { return max(1, e.options.streamBytes/e.shape.bytes()) }

func (e *Evaluator) sessionOptions() ort.Options {
	return ort.Options{
		Providers: []ort.Provider{{Name: e.options.Provider, DeviceID: e.options.DeviceID}},
		Threads:   runtime.GOMAXPROCS(0), Arena: true, Outputs: outputNames,
		Inputs: []string{inputParams, inputCount, inputShift, inputRows, inputLabels, inputCols},
	}
}

// Dims implements [sinkhorn.Evaluator].
func (e *Evaluator) Dims() (rows int64, clusters int) { return e.rows, int(e.shape.clusters) }

// Close waits for a pass under way and frees the device's memory; a pass that
// follows fails. Closing twice does nothing.
func (e *Evaluator) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, s := range e.kept {
		errs = append(errs, s.program.Close())
	}
	if e.stream != nil {
		errs = append(errs, e.stream.Close())
	}
	return errors.Join(errs...)
}
