package ort

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	binding "github.com/yalue/onnxruntime_go"
)

// Slot is one batch in flight: the tensors of one run, made once for one shape
// and used for any number of runs. Fill Inputs, call [Session.Run], read
// Outputs. A slot belongs to one goroutine at a time. Close it when done.
type Slot struct {
	Inputs, Outputs []*Tensor // in the order of Session.Inputs and Session.Outputs

	session  *Session
	in, out  []binding.Value
	options  *binding.RunOptions
	busy     sync.Mutex
	released bool
}

// Tensor is a tensor of fixed shape on memory that lives as long as its slot.
type Tensor struct {
	Name string
	Type ElementType
	Dims []int64 // all positive

	f32    []float32 // a float32 tensor, or a float16 output widened
	f16    []uint16
	u8     []byte
	i64    []int64
	value  binding.Value
	pinned runtime.Pinner
}

// Float32 returns the elements in row-major order: of a float32 input, to be
// written; of any output, to be read (a float16 output is widened after each
// run). It is nil for other inputs. The slice is the tensor's memory: it must
// not be used after the slot is closed, nor during a run.
func (t *Tensor) Float32() []float32 { return t.f32 }

// Float16 returns the elements of a float16 tensor as IEEE 754 binary16 bits,
// and nil for other types; the terms are those of [Tensor.Float32].
func (t *Tensor) Float16() []uint16 { return t.f16 }

// Uint8 returns the elements of a uint8 tensor and nil for other types; the
// terms are those of [Tensor.Float32].
func (t *Tensor) Uint8() []byte { return t.u8 }

// Int64 returns the elements of an int64 tensor and nil for other types; the
// terms are those of [Tensor.Float32].
func (t *Tensor) Int64() []int64 { return t.i64 }

// NewSlot makes the tensors for inputs of the given shapes, one per input of
// the session, in order. The first dimension of the first input is the batch.
//
// An output's free first dimension is taken to be the batch. If other
// dimensions of an output are free, the model is run once on zeros to learn
// them, under ctx; a float16 output must declare them.
func (s *Session) NewSlot(ctx context.Context, inputs ...[]int64) (*Slot, error) {
	if len(inputs) != len(s.inputs) {
		return nil, s.refuse("%d input shapes given for %d inputs (%s)", len(inputs), len(s.inputs), listInfos(s.inputs))
	}
	if err := s.rt.hold(); err != nil {
		return nil, err
	}
	slot := &Slot{session: s}
	if err := slot.build(ctx, inputs); err != nil {
		return nil, errors.Join(err, slot.Close())
	}
	return slot, nil
}

func (slot *Slot) build(ctx context.Context, inputs [][]int64) error {
	s := slot.session
	for i, info := range s.inputs {
		if err := checkDims(info, inputs[i]); err != nil {
			return s.refuse("input %s: %w", info, err)
		}
		t, err := newTensor(info, inputs[i])
		if err != nil {
			return s.refuse("input %s: %w", info, err)
		}
		slot.Inputs, slot.in = append(slot.Inputs, t), append(slot.in, t.value)
	}
	var err error
	if slot.options, err = binding.NewRunOptions(); err != nil {
		return err
	}
	shapes, err := slot.outputShapes(ctx, inputs)
	if err != nil {
		return err
	}
	for i, info := range s.outputs {
		t, err := newTensor(info, shapes[i])
		if err != nil {
			return s.refuse("output %s: %w", info, err)
		}
		if t.Type == Float16 {
			t.f32 = make([]float32, len(t.f16))
		}
		slot.Outputs, slot.out = append(slot.Outputs, t), append(slot.out, t.value)
	}
	return nil
}

func checkDims(info TensorInfo, dims []int64) error {
	if len(dims) != len(info.Dims) {
		return fmt.Errorf("shape %v has %d dimensions", dims, len(dims))
	}
	for i, d := range dims {
		if d <= 0 || info.Dims[i] >= 0 && info.Dims[i] != d {
			return fmt.Errorf("shape %v does not fit in dimension %d", dims, i)
		}
	}
	return nil
}

// outputShapes resolves the free dimensions of the outputs.
func (slot *Slot) outputShapes(ctx context.Context, inputs [][]int64) ([][]int64, error) {
	s := slot.session
	known := true
	shapes := make([][]int64, len(s.outputs))
	for i, info := range s.outputs {
		shapes[i] = slices.Clone(info.Dims)
		if len(shapes[i]) > 0 && shapes[i][0] < 0 && len(inputs[0]) > 0 {
			shapes[i][0] = inputs[0][0]
		}
		known = known && len(shapes[i]) > 0 && !slices.Contains(shapes[i], -1)
	}
	if known {
		return shapes, nil
	}
	for _, info := range s.outputs {
		if info.Type != Float32 { // the binding cannot receive others unasked
			return nil, s.refuse("output %s: declare its dimensions, and those of the other outputs, in the model", info)
		}
	}
	received := make([]binding.Value, len(s.outputs))
	if err := s.run(ctx, slot.in, received, slot.options); err != nil {
		return nil, fmt.Errorf("learn the shapes of the outputs: %w", err)
	}
	for i, v := range received {
		shapes[i] = slices.Clone(v.GetShape())
		if err := v.Destroy(); err != nil {
			return nil, err
		}
	}
	return shapes, nil
}

func newTensor(info TensorInfo, dims []int64) (*Tensor, error) {
	n, err := elements(dims)
	if err != nil {
		return nil, err
	}
	t := &Tensor{Name: info.Name, Type: info.Type, Dims: slices.Clone(dims)}
	// ONNX Runtime keeps the address between runs: the cgo rules ask for a pin.
	switch info.Type {
	case Float32:
		t.f32 = make([]float32, n)
		t.pinned.Pin(&t.f32[0])
		t.value, err = binding.NewTensor(binding.Shape(t.Dims), t.f32)
	case Uint8:
		t.u8 = make([]byte, n)
		t.pinned.Pin(&t.u8[0])
		t.value, err = binding.NewTensor(binding.Shape(t.Dims), t.u8)
	case Int64:
		t.i64 = make([]int64, n)
		t.pinned.Pin(&t.i64[0])
		t.value, err = binding.NewTensor(binding.Shape(t.Dims), t.i64)
	case Float16:
		t.f16 = make([]uint16, n)
		t.pinned.Pin(&t.f16[0])
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&t.f16[0])), 2*n)
		t.value, err = binding.NewCustomDataTensor(binding.Shape(t.Dims), raw, binding.TensorElementDataTypeFloat16)
	}
	if err != nil {
		t.pinned.Unpin()
		return nil, err
	}
	return t, nil
}

// free ends the tensor. Its memory is Go's.
func (t *Tensor) free() error {
	err := t.value.Destroy()
	t.pinned.Unpin()
	t.f32, t.f16, t.u8, t.i64 = nil, nil, nil, nil
	return err
}

// elements returns the number of elements, at least 1.
func elements(dims []int64) (int, error) {
	n := int64(1)
	for _, d := range dims {
		if d <= 0 || n > math.MaxInt32*8/d {
			return 0, fmt.Errorf("shape %v is empty or too large", dims)
		}
		n *= d
	}
	if len(dims) == 0 {
		return 0, errors.New("is a scalar: a tensor of at least one dimension is needed")
	}
	return int(n), nil
}

// Close waits for a run in flight and frees the tensors. Closing twice does
// nothing.
func (slot *Slot) Close() error {
	slot.busy.Lock()
	defer slot.busy.Unlock()
	if slot.released {
		return nil
	}
	slot.released = true
	defer slot.session.rt.release()
	var errs []error
	for _, t := range slices.Concat(slot.Inputs, slot.Outputs) {
		errs = append(errs, t.free())
	}
	if slot.options != nil {
		errs = append(errs, slot.options.Destroy())
	}
	return errors.Join(errs...)
}
