package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

// DType is an element type, numbered as in the format.
type DType int32

// The element types that have a name here; others print as a number.
const (
	Float32  = DType(onnxpb.TensorProto_FLOAT)
	Uint8    = DType(onnxpb.TensorProto_UINT8)
	Int8     = DType(onnxpb.TensorProto_INT8)
	Int32    = DType(onnxpb.TensorProto_INT32)
	Int64    = DType(onnxpb.TensorProto_INT64)
	Bool     = DType(onnxpb.TensorProto_BOOL)
	Float16  = DType(onnxpb.TensorProto_FLOAT16)
	Float64  = DType(onnxpb.TensorProto_DOUBLE)
	BFloat16 = DType(onnxpb.TensorProto_BFLOAT16)
)

// String returns the type's name as NumPy and the job spec write it.
func (d DType) String() string {
	switch d {
	case Float32:
		return "float32"
	case Uint8:
		return "uint8"
	case Int8:
		return "int8"
	case Int32:
		return "int32"
	case Int64:
		return "int64"
	case Bool:
		return "bool"
	case Float16:
		return "float16"
	case Float64:
		return "float64"
	case BFloat16:
		return "bfloat16"
	}
	return fmt.Sprintf("type %d", int32(d))
}

// isFloat reports whether d is one of the floating-point types of a network's
// outputs.
func (d DType) isFloat() bool {
	return d == Float32 || d == Float16 || d == Float64 || d == BFloat16
}

// NewTensor returns a float32 constant. Its length must be the product of dims;
// no dims make a scalar.
func NewTensor(values []float32, dims ...int64) *onnxpb.TensorProto {
	raw := make([]byte, 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
	}
	return rawTensor(Float32, raw, dims)
}

// NewInts returns an int64 constant. Its length must be the product of dims; no
// dims make a scalar.
func NewInts(values []int64, dims ...int64) *onnxpb.TensorProto {
	raw := make([]byte, 8*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint64(raw[8*i:], uint64(v))
	}
	return rawTensor(Int64, raw, dims)
}

func rawTensor(d DType, raw []byte, dims []int64) *onnxpb.TensorProto {
	return &onnxpb.TensorProto{
		Dims:     slices.Clone(dims),
		DataType: proto.Int32(int32(d)),
		RawData:  raw,
	}
}

// elements returns the number of elements of a shape, false where it is
// negative or beyond int64.
func elements(dims []int64) (int64, bool) {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Floats returns the values of a float32 or float64 initialiser of the model's
// graph as float32, read from the model or from its external data.
func (m *Model) Floats(name string) ([]float32, error) {
	t := m.initializer(name)
	if t == nil {
		return nil, fmt.Errorf("initialiser %q: not in the graph", name)
	}
	v, err := m.tensorFloats(t)
	if err != nil {
		return nil, fmt.Errorf("initialiser %q: %w", name, err)
	}
	return v, nil
}

func (m *Model) initializer(name string) *onnxpb.TensorProto {
	for _, t := range m.Proto.GetGraph().GetInitializer() {
		if t.GetName() == name {
			return t
		}
	}
	return nil
}

func (m *Model) tensorFloats(t *onnxpb.TensorProto) ([]float32, error) {
	n, ok := elements(t.Dims)
	if !ok {
		return nil, fmt.Errorf("%w: shape %v", ErrUnsupported, t.Dims)
	}
	d := DType(t.GetDataType())
	width := int64(4)
	switch d {
	case Float32:
	case Float64:
		width = 8
	default:
		return nil, fmt.Errorf("%w: %v values where float32 or float64 is needed", ErrUnsupported, d)
	}
	raw := t.RawData
	switch {
	case t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL:
		var err error
		if raw, err = m.readExternal(t); err != nil {
			return nil, err
		}
	case len(t.FloatData) > 0 && d == Float32:
		if int64(len(t.FloatData)) != n {
			return nil, fmt.Errorf("%d values for shape %v", len(t.FloatData), t.Dims)
		}
		return slices.Clone(t.FloatData), nil
	case len(t.DoubleData) > 0 && d == Float64:
		if int64(len(t.DoubleData)) != n {
			return nil, fmt.Errorf("%d values for shape %v", len(t.DoubleData), t.Dims)
		}
		v := make([]float32, n)
		for i, x := range t.DoubleData {
			v[i] = float32(x)
		}
		return v, nil
	}
	if int64(len(raw))/width != n || int64(len(raw))%width != 0 {
		return nil, fmt.Errorf("%d bytes for shape %v of %v", len(raw), t.Dims, d)
	}
	v := make([]float32, n)
	for i := range v {
		if d == Float64 {
			v[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
		} else {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return v, nil
}

func (m *Model) readExternal(t *onnxpb.TensorProto) ([]byte, error) {
	ref, err := parseExternal(t)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(m.externalPath(ref.location))
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	length := ref.length
	if length < 0 {
		length = info.Size() - ref.offset
	}
	if length < 0 || ref.offset > info.Size()-length {
		return nil, fmt.Errorf("external data: %s has only %d bytes", ref.location, info.Size())
	}
	raw := make([]byte, length)
	if _, err := f.ReadAt(raw, ref.offset); err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	return raw, nil
}

// setFloats replaces an initialiser's values, keeping its shape and type. It
// must be float32 or float64, with as many elements as there are values.
func setFloats(t *onnxpb.TensorProto, values []float32) error {
	if n, ok := elements(t.Dims); !ok || n != int64(len(values)) {
		return fmt.Errorf("initialiser %q: %d values for shape %v", t.GetName(), len(values), t.Dims)
	}
	var raw []byte
	switch DType(t.GetDataType()) {
	case Float32:
		raw = NewTensor(values).RawData
	case Float64:
		raw = make([]byte, 8*len(values))
		for i, v := range values {
			binary.LittleEndian.PutUint64(raw[8*i:], math.Float64bits(float64(v)))
		}
	default:
		return fmt.Errorf("initialiser %q: %w: %v values where float32 or float64 is needed", t.GetName(), ErrUnsupported, DType(t.GetDataType()))
	}
	t.RawData, t.FloatData, t.DoubleData = raw, nil, nil
	t.ExternalData, t.DataLocation = nil, nil
	return nil
}
