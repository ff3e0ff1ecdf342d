package onnx

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

// Subgraph returns an attribute that is a graph: the body of Scan, Loop or If,
// built as a model of its own, whose graph the attribute then owns. The body's
// nodes may read values of the graphs around it by name, so its own names must
// not occur there: give each body's values a prefix.
func Subgraph(name string, body *Model) Attr {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_GRAPH.Enum(), G: body.Proto.Graph}
}

// NewDoubles returns a float64 constant. Its length must be the product of
// dims; no dims make a scalar.
func NewDoubles(values []float64, dims ...int64) *onnxpb.TensorProto {
	raw := make([]byte, 8*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint64(raw[8*i:], math.Float64bits(v))
	}
	return rawTensor(Float64, raw, dims)
}

// ExternalFloats returns a float32 constant whose values, little-endian and
// row-major, begin the file at location: a slash-separated path relative to
// the model's folder, which it must not leave.
func ExternalFloats(location string, dims ...int64) *onnxpb.TensorProto {
	length := int64(4)
	for _, d := range dims {
		length *= d
	}
	entry := func(key, value string) *onnxpb.StringStringEntryProto {
		return &onnxpb.StringStringEntryProto{Key: &key, Value: &value}
	}
	return &onnxpb.TensorProto{
		Dims: slices.Clone(dims), DataType: proto.Int32(int32(Float32)),
		DataLocation: onnxpb.TensorProto_EXTERNAL.Enum(),
		ExternalData: []*onnxpb.StringStringEntryProto{
			entry("location", location), entry("offset", "0"), entry("length", strconv.FormatInt(length, 10)),
		},
	}
}
