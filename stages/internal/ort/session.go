package ort

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// ErrModel is in the chain of every error that the model or the names and
// shapes asked of it cause: unreadable, weights missing, no such output, an
// element type this package does not carry, a shape that does not fit.
var ErrModel = errors.New("model")

// ElementType is the type of a tensor's elements, as ONNX names it.
type ElementType string

// The element types that tensors carry; Int64 is for a [Stepper]'s feeds alone.
// [TensorInfo] may name others.
const (
	Float32 ElementType = "float32"
	Float16 ElementType = "float16"
	Uint8   ElementType = "uint8"
	Int64   ElementType = "int64"
)

// TensorInfo describes an input or output of a model.
type TensorInfo struct {
	Name string
	Type ElementType
	Dims []int64 // −1 where the model leaves the dimension free; for an output, as ONNX Runtime inferred it
}

// String returns, for example, "images float32 [?,3,224,224]".
func (t TensorInfo) String() string {
	dims := make([]string, len(t.Dims))
	for i, d := range t.Dims {
		dims[i] = fmt.Sprint(d)
		if d < 0 {
			dims[i] = "?"
		}
	}
	return fmt.Sprintf("%s %s [%s]", t.Name, t.Type, strings.Join(dims, ","))
}

// Optimization says how far ONNX Runtime may rewrite the graph.
type Optimization string

// Optimization levels. Each may change the last bits of the outputs.
const (
	OptimizeAll      Optimization = "all" // the default
	OptimizeExtended Optimization = "extended"
	OptimizeBasic    Optimization = "basic"
	OptimizeNone     Optimization = "none"
)

var optimizations = map[Optimization]binding.GraphOptimizationLevel{
	"":               binding.GraphOptimizationLevelEnableAll,
	OptimizeAll:      binding.GraphOptimizationLevelEnableAll,
	OptimizeExtended: binding.GraphOptimizationLevelEnableExtended,
	OptimizeBasic:    binding.GraphOptimizationLevelEnableBasic,
	OptimizeNone:     binding.GraphOptimizationLevelDisableAll,
}

// Options configure a session. The zero value is one CPU thread per run, full
// optimization, all inputs and all outputs.
type Options struct {
	Providers    []Provider   // in order of preference; empty means the CPU
	Precision    Precision    // empty means Float32Precision
	Optimization Optimization // empty means OptimizeAll
	Threads      int          // threads inside one run on the CPU; 0 means 1. More serve latency, not throughput

	// Arena keeps the memory of activations between runs, and plans it once
	// per shape. Without it each run allocates and frees them: slower where
	// they are large, but memory follows the runs in flight.
	Arena bool

	// Inputs and Outputs select and order the tensors of a slot; nil means all,
	// in the model's order. Inputs that are left out must have a default.
	Inputs, Outputs []string
}

// Session is a model ready to run. It is safe for concurrent use. Make one per
// model and process: ONNX Runtime does not give all memory back when a session
// ends.
type Session struct {
	rt              *Runtime
	path            string
	inputs, outputs []TensorInfo
	dynamic         *binding.DynamicAdvancedSession

	running sync.RWMutex // held shared by each run, so that Close waits
	closed  bool
}

// Inspect returns the inputs and outputs of the model at path. It loads the
// model, weights included, on the CPU and without optimization, and lets it go.
func (rt *Runtime) Inspect(path string) (inputs, outputs []TensorInfo, err error) {
	if err := rt.hold(); err != nil {
		return nil, nil, err
	}
	defer rt.release()
	o, err := binding.NewSessionOptions()
	if err != nil {
		return nil, nil, fmt.Errorf("inspect %w %s: %w", ErrModel, path, err)
	}
	defer o.Destroy()
	err = errors.Join(
		o.SetIntraOpNumThreads(1), o.SetCpuMemArena(false),
		o.SetGraphOptimizationLevel(binding.GraphOptimizationLevelDisableAll),
		o.AddSessionConfigEntry("session.disable_prepacking", "1"))
	if err != nil {
		return nil, nil, fmt.Errorf("inspect %w %s: %w", ErrModel, path, err)
	}
	in, out, err := binding.GetInputOutputInfoWithOptions(path, o)
	if err != nil {
		return nil, nil, fmt.Errorf("inspect %w %s: %w", ErrModel, path, err)
	}
	return tensorInfos(in), tensorInfos(out), nil
}

// NewSession loads the model at path; external weights are read from beside
// it. The errors are [ErrModel] or [ErrProvider].
func (rt *Runtime) NewSession(path string, opts Options) (*Session, error) {
	if err := checkProviders(opts.Providers, opts.Precision); err != nil {
		return nil, err
	}
	in, out, err := rt.Inspect(path)
	if err != nil {
		return nil, err
	}
	s := &Session{rt: rt, path: path}
	if s.inputs, err = choose(in, opts.Inputs, "input"); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrModel, path, err)
	}
	for _, t := range in {
		if !slices.ContainsFunc(s.inputs, func(c TensorInfo) bool { return c.Name == t.Name }) {
			return nil, fmt.Errorf("%w %s: input %q has no default and must be given", ErrModel, path, t.Name)
		}
	}
	if s.outputs, err = choose(out, opts.Outputs, "output"); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrModel, path, err)
	}
	if err := rt.hold(); err != nil {
		return nil, err
	}
	err = keepSignals(func() error {
		s.dynamic, err = rt.create(path, names(s.inputs), names(s.outputs), opts)
		return err
	})
	if err != nil {
		rt.release()
		return nil, err
	}
	return s, nil
}

func (rt *Runtime) create(path string, in, out []string, opts Options) (*binding.DynamicAdvancedSession, error) {
	level, known := optimizations[opts.Optimization]
	if !known {
		return nil, fmt.Errorf("%w %s: optimization %q: unknown; known are all, extended, basic and none", ErrModel, path, opts.Optimization)
	}
	o, err := binding.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
	}
	defer o.Destroy()
	err = errors.Join(
		o.SetGraphOptimizationLevel(level),
		o.SetExecutionMode(binding.ExecutionModeSequential),
		o.SetIntraOpNumThreads(max(opts.Threads, 1)), o.SetInterOpNumThreads(1),
		// A waiting thread that spins takes its core from image decoding.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.SetCpuMemArena(opts.Arena), o.SetMemPattern(opts.Arena))
	if err != nil {
		return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
	}
	if err := rt.configureProviders(o, opts.Providers, opts.Precision); err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	dynamic, err := binding.NewDynamicAdvancedSession(path, in, out, o)
	if err == nil {
		return dynamic, nil
	}
	if len(opts.Providers) > 0 && !hasProvider(opts.Providers, CPU) && strings.Contains(err.Error(), "fallback to CPU EP") {
		return nil, fmt.Errorf("load model %s: %w %s: it cannot run every node; add cpu at the end of the providers to let the CPU take those nodes (%w)",
			path, ErrProvider, providerNames(opts.Providers), err)
	}
	return nil, fmt.Errorf("load %w %s: %w", ErrModel, path, err)
}

// Inputs returns the inputs of a slot, in order. The caller must not change it.
func (s *Session) Inputs() []TensorInfo { return s.inputs }

// Outputs returns the outputs of a slot, in order. The caller must not change it.
func (s *Session) Outputs() []TensorInfo { return s.outputs }

// Close waits for runs in flight and ends the session. Slots of the session
// stay readable until they are closed themselves. Closing twice does nothing.
func (s *Session) Close() error {
	s.running.Lock()
	defer s.running.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	defer s.rt.release()
	if err := s.dynamic.Destroy(); err != nil {
		return fmt.Errorf("close %w %s: %w", ErrModel, s.path, err)
	}
	return nil
}

// refuse returns an [ErrModel] about this session's model.
func (s *Session) refuse(format string, args ...any) error {
	return fmt.Errorf("%w %s: %w", ErrModel, s.path, fmt.Errorf(format, args...))
}

// choose picks the wanted tensors in their order, or all.
func choose(all []TensorInfo, wanted []string, kind string) ([]TensorInfo, error) {
	chosen := all
	if wanted != nil {
		chosen = make([]TensorInfo, 0, len(wanted))
		for _, name := range wanted {
			i := slices.IndexFunc(all, func(t TensorInfo) bool { return t.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("has no %s %q; its %ss are %s", kind, name, kind, listInfos(all))
			}
			if slices.ContainsFunc(chosen, func(t TensorInfo) bool { return t.Name == name }) {
				return nil, fmt.Errorf("%s %q is named twice", kind, name)
			}
			chosen = append(chosen, all[i])
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("has no %ss", kind)
	}
	for _, t := range chosen {
		ok := t.Type == Float32 || t.Type == Float16 || t.Type == Uint8 && kind == "input"
		if !ok {
			return nil, fmt.Errorf("%s %q is %s; an input can be float32, float16 or uint8, an output float32 or float16: name only such %ss", kind, t.Name, t.Type, kind)
		}
	}
	return chosen, nil
}

func tensorInfos(list []binding.InputOutputInfo) []TensorInfo {
	infos := make([]TensorInfo, len(list))
	for i, t := range list {
		infos[i] = TensorInfo{Name: t.Name, Type: elementType(t), Dims: slices.Clone(t.Dimensions)}
		for j, d := range infos[i].Dims {
			if d <= 0 {
				infos[i].Dims[j] = -1
			}
		}
	}
	return infos
}

func elementType(t binding.InputOutputInfo) ElementType {
	if t.OrtValueType != binding.ONNXTypeTensor {
		return ElementType("no tensor (" + strings.ToLower(strings.TrimPrefix(t.OrtValueType.String(), "ONNX_TYPE_")) + ")")
	}
	switch t.DataType {
	case binding.TensorElementDataTypeFloat:
		return Float32
	case binding.TensorElementDataTypeFloat16:
		return Float16
	}
	return ElementType(strings.ToLower(strings.TrimPrefix(t.DataType.String(), "ONNX_TENSOR_ELEMENT_DATA_TYPE_")))
}

func names(list []TensorInfo) []string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = t.Name
	}
	return all
}

func listInfos(list []TensorInfo) string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = t.String()
	}
	return strings.Join(all, "; ")
}

func providerNames(list []Provider) string {
	all := make([]string, len(list))
	for i, p := range list {
		all[i] = p.Name
	}
	return strings.Join(all, ", ")
}
