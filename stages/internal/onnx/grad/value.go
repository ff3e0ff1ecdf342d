package grad

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// value is a tensor of the training graph. Its shape is always known.
type value struct {
	name  string // in the training graph; "" for a constant that no node reads yet
	dtype onnx.DType
	dims  []int64

	// Contents, where they are known while the graph is built: those of integer
	// and small floating-point constants and of what is computed from them. Every
	// int64 that a shape can hold is exact in a float64; larger ones (the ends of
	// slices) only mean "as far as it goes", which they still do when rounded.
	data []float64
	// tensor holds a constant whose contents are of no interest.
	tensor *onnxpb.TensorProto

	needs bool     // a trained parameter feeds it, through differentiable operators
	grads []*value // what its readers' gradients contribute to its own
}

// Limits on what a model may ask for, so that a damaged one is an error and not
// an exhausted memory.
const (
	maxElements = 1 << 35 // of one tensor
	maxKnown    = 1 << 16 // elements of a constant whose contents are followed
	maxBuilt    = 1 << 24 // elements of a constant that is made
	maxWindow   = 1 << 10 // taps of a convolution's or a pooling's window
)

// elements is the number of elements of a shape that was checked.
func elements(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

// checkDims fails for shapes that are negative, or too large.
func checkDims(dims []int64) {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > 0 && n > maxElements/d {
			fail("a tensor of shape %v", dims)
		}
		n *= d
	}
}

func (v *value) known() bool { return v.data != nil }

// known returns a constant of the given contents, rounded to its type.
func known(dtype onnx.DType, dims []int64, data []float64) *value {
	for i, x := range data {
		data[i] = round(dtype, x)
	}
	if data == nil {
		data = []float64{}
	}
	return &value{dtype: dtype, dims: dims, data: data}
}

// knownInts returns an int64 vector.
func knownInts(list []int64) *value {
	data := make([]float64, len(list))
	for i, x := range list {
		data[i] = float64(x)
	}
	return known(onnx.Int64, []int64{int64(len(list))}, data)
}

func round(dtype onnx.DType, x float64) float64 {
	switch dtype {
	case onnx.Float32:
		return float64(float32(x))
	case onnx.Int64, onnx.Int32, onnx.Uint8, onnx.Int8:
		return math.Trunc(x)
	case onnx.Bool:
		if x != 0 {
			return 1
		}
		return 0
	}
	return x
}

// toInt converts a known number to an int64 without overflow.
func toInt(x float64) int64 {
	switch {
	case x >= math.MaxInt64:
		return math.MaxInt64
	case x <= math.MinInt64:
		return math.MinInt64
	case x != x:
		return 0
	}
	return int64(x)
}

// ints returns the contents of a known vector or scalar of integers.
func (v *value) ints() []int64 {
	list := make([]int64, len(v.data))
	for i, x := range v.data {
		list[i] = toInt(x)
	}
	return list
}

// proto returns the constant as a tensor of the file format.
func (v *value) proto() *onnxpb.TensorProto {
	if v.tensor != nil {
		return proto.CloneOf(v.tensor)
	}
	switch v.dtype {
	case onnx.Float32:
		list := make([]float32, len(v.data))
		for i, x := range v.data {
			list[i] = float32(x)
		}
		return onnx.NewTensor(list, v.dims...)
	case onnx.Int64:
		return onnx.NewInts(v.ints(), v.dims...)
	case onnx.Float64:
		return onnx.NewDoubles(v.data, v.dims...)
	case onnx.Int32, onnx.Bool:
		t := &onnxpb.TensorProto{Dims: slices.Clone(v.dims), DataType: proto.Int32(int32(v.dtype))}
		for _, x := range v.data {
			if v.dtype == onnx.Bool {
				t.RawData = append(t.RawData, byte(x))
			} else {
				t.RawData = binary.LittleEndian.AppendUint32(t.RawData, uint32(int32(toInt(x))))
			}
		}
		return t
	}
	fail("a constant of type %v", v.dtype)
	return nil
}

// constant reads a tensor of the model as a value. Contents are followed where
// they are integers or few.
func constant(m *onnx.Model, t *onnxpb.TensorProto) *value {
	if t == nil {
		fail("a constant without a tensor")
	}
	checkDims(t.Dims)
	n := elements(t.Dims)
	v := &value{dtype: onnx.DType(t.GetDataType()), dims: slices.Clone(t.Dims)}
	if v.dtype == onnx.Float32 && (n > maxKnown || t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL) {
		v.tensor = plain(m, t)
		return v
	}
	if n > maxKnown {
		v.tensor = t
		if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
			fail("a constant of type %v in external data", v.dtype)
		}
		return v
	}
	v.data = decode(v.dtype, t)
	if int64(len(v.data)) != n {
		fail("constant %q has %d values for shape %v", t.GetName(), len(v.data), t.Dims)
	}
	return v
}

// plain copies a float32 tensor, external data read in.
func plain(m *onnx.Model, t *onnxpb.TensorProto) *onnxpb.TensorProto {
	list, err := floats(m, t)
	if err != nil {
		fail("%w", err)
	}
	return onnx.NewTensor(list, t.Dims...)
}

// floats reads a float32 tensor of the model.
func floats(m *onnx.Model, t *onnxpb.TensorProto) ([]float32, error) {
	if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
		return m.Floats(t.GetName())
	}
	list := slices.Clone(t.FloatData)
	if len(list) == 0 {
		list = make([]float32, len(t.RawData)/4)
		for i := range list {
			list[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.RawData[4*i:]))
		}
	}
	if int64(len(list)) != elements(t.Dims) {
		return nil, fmt.Errorf("constant %q has %d values for shape %v", t.GetName(), len(list), t.Dims)
	}
	return list, nil
}

// decode reads a tensor that lies in the model.
func decode(dtype onnx.DType, t *onnxpb.TensorProto) []float64 {
	if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
		fail("constant %q of type %v in external data", t.GetName(), dtype)
	}
	data := []float64{}
	raw := t.RawData
	switch dtype {
	case onnx.Float32:
		for _, x := range t.FloatData {
			data = append(data, float64(x))
		}
		for ; len(raw) >= 4; raw = raw[4:] {
			data = append(data, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))))
		}
	case onnx.Float64:
		data = append(data, t.DoubleData...)
		for ; len(raw) >= 8; raw = raw[8:] {
			data = append(data, math.Float64frombits(binary.LittleEndian.Uint64(raw)))
		}
	case onnx.Int64:
		for _, x := range t.Int64Data {
			data = append(data, float64(x))
		}
		for ; len(raw) >= 8; raw = raw[8:] {
			data = append(data, float64(int64(binary.LittleEndian.Uint64(raw))))
		}
	case onnx.Int32:
		for _, x := range t.Int32Data {
			data = append(data, float64(x))
		}
		for ; len(raw) >= 4; raw = raw[4:] {
			data = append(data, float64(int32(binary.LittleEndian.Uint32(raw))))
		}
	case onnx.Bool, onnx.Uint8:
		for _, x := range t.Int32Data {
			data = append(data, float64(x))
		}
		for _, x := range raw {
			data = append(data, float64(x))
		}
	default:
		fail("constant %q of type %v", t.GetName(), dtype)
	}
	return data
}

// broadcast returns the shape that two shapes have together by NumPy's rule.
func broadcast(a, b []int64) []int64 {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := slices.Clone(a)
	lead := len(a) - len(b)
	for i, d := range b {
		switch {
		case out[lead+i] == d || d == 1:
		case out[lead+i] == 1:
			out[lead+i] = d
		default:
			fail("shapes %v and %v do not go together", a, b)
		}
	}
	return out
}
