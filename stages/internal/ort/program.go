package ort

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	binding "github.com/yalue/onnxruntime_go"
)

// Program is a session on a graph that this program made itself: the caller
// knows its inputs and outputs, which may be of types and shapes that a [Slot]
// does not carry, and it is loaded once, where [Runtime.NewSession] loads a
// model twice to inspect it. It is safe for concurrent use.
//
// On a GPU the initialisers are put into device memory of exactly their size,
// and the arena grows by what is asked, not by powers of two.
type Program struct {
	session *Session
}

// Array is an input or output of a [Program]: row-major Values of the given
// dimensions, all positive. The caller owns both.
type Array[E float32 | float64 | bool] struct {
	Dims   []int64
	Values []E
}

// Input is an [Array] of any element type.
type Input interface {
	tensor(*runtime.Pinner) (binding.Value, error)
}

// tensor wraps the values without copying; they stay pinned while ONNX Runtime
// knows their address.
func (a Array[E]) tensor(pinner *runtime.Pinner) (binding.Value, error) {
	if n, err := elements(a.Dims); err != nil || n != len(a.Values) {
		return nil, fmt.Errorf("%d values for shape %v", len(a.Values), a.Dims)
	}
	pinner.Pin(&a.Values[0])
	return binding.NewTensor(binding.Shape(a.Dims), a.Values)
}

// NewProgram loads the graph at path; external data is read from beside it.
// Once it returns, nothing reads the files by name any more: where the system
// lets go of names of files in use, they can be removed. Of opts, Inputs and
// Outputs must list all that [Program.Run] takes and returns, which is float64
// only. The errors are [ErrModel] or [ErrProvider].
func (rt *Runtime) NewProgram(path string, opts Options) (*Program, error) {
	if err := checkProviders(opts.Providers, opts.Precision); err != nil {
		return nil, err
	}
	if err := rt.hold(); err != nil {
		return nil, err
	}
	s := &Session{rt: rt, path: path}
	for _, name := range opts.Inputs {
		s.inputs = append(s.inputs, TensorInfo{Name: name})
	}
	for _, name := range opts.Outputs {
		s.outputs = append(s.outputs, TensorInfo{Name: name, Type: "double"})
	}
	for i, p := range opts.Providers {
		if p.Name == CUDA {
			exact := map[string]string{"arena_extend_strategy": "kSameAsRequested"}
			for k, v := range p.Options {
				exact[k] = v
			}
			opts.Providers = append([]Provider(nil), opts.Providers...)
			opts.Providers[i].Options = exact
		}
	}
	err := keepSignals(func() (err error) {
		s.dynamic, err = rt.createProgram(path, opts)
		return err
	})
	if err != nil {
		rt.release()
		return nil, err
	}
	return &Program{session: s}, nil
}

func (rt *Runtime) createProgram(path string, opts Options, more ...func(*binding.SessionOptions) error) (*binding.DynamicAdvancedSession, error) {
	o, err := binding.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
	}
	defer o.Destroy()
	err = errors.Join(
		o.SetGraphOptimizationLevel(optimizations[opts.Optimization]),
		o.SetExecutionMode(binding.ExecutionModeSequential),
		o.SetIntraOpNumThreads(max(opts.Threads, 1)), o.SetInterOpNumThreads(1),
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.use_device_allocator_for_initializers", "1"),
		o.SetCpuMemArena(opts.Arena), o.SetMemPattern(opts.Arena))
	for _, set := range more {
		err = errors.Join(err, set(o))
	}
	if err != nil {
		return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
	}
	if err := rt.configureProviders(o, opts.Providers, opts.Precision); err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	dynamic, err := binding.NewDynamicAdvancedSession(path, opts.Inputs, opts.Outputs, o)
	switch {
	case err == nil:
		return dynamic, nil
	case strings.Contains(err.Error(), "fallback to CPU EP"):
		return nil, fmt.Errorf("load model %s: %w %s: it cannot run every node (%w)", path, ErrProvider, providerNames(opts.Providers), err)
	}
	return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
}

// Run computes the outputs for the inputs, in the order of the names given to
// NewProgram. The inputs are only read, the caller owns the outputs. When ctx
// is cancelled it asks ONNX Runtime to stop between two nodes, waits until it
// has, and returns ctx's error. Other errors are [ErrRun].
func (p *Program) Run(ctx context.Context, inputs ...Input) ([]Array[float64], error) {
	s := p.session
	if len(inputs) != len(s.inputs) {
		return nil, fmt.Errorf("%w %s: %d inputs given, it has %d", ErrRun, s.path, len(inputs), len(s.inputs))
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	var values []binding.Value
	defer func() {
		for _, v := range values {
			_ = v.Destroy() // frees a handle; the memory is Go's
		}
	}()
	for i, in := range inputs {
		v, err := in.tensor(&pinner)
		if err != nil {
			return nil, fmt.Errorf("%w %s: input %s: %w", ErrRun, s.path, s.inputs[i].Name, err)
		}
		values = append(values, v)
	}
	options, err := binding.NewRunOptions()
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrRun, s.path, err)
	}
	defer options.Destroy()
	received := make([]binding.Value, len(s.outputs))
	err = s.run(ctx, values, received, options)
	outputs := make([]Array[float64], len(received))
	for i, v := range received {
		if v == nil {
			continue
		}
		t, ok := v.(*binding.Tensor[float64])
		if ok {
			outputs[i] = Array[float64]{Dims: t.GetShape(), Values: t.GetData()}
		} else if err == nil {
			err = fmt.Errorf("%w %s: output %s is not float64", ErrRun, s.path, s.outputs[i].Name)
		}
		_ = v.Destroy() // the values are Go's and outlive it
	}
	if err != nil {
		return nil, err
	}
	return outputs, nil
}

// Close waits for runs in flight and ends the session. Closing twice does
// nothing.
func (p *Program) Close() error { return p.session.Close() }
