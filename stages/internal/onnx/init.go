package onnx

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"sela/stages/internal/onnx/onnxpb"
)

// uniform returns a float32 constant of values drawn evenly from
// [−√3·std, √3·std), whose standard deviation is std.
//
// Each tensor has a generator of its own, PCG seeded by the seed and the FNV-1a
// hash of the tensor's name: a network's trunk is the same whatever heads it
// has. The draw needs no function beyond a square root, so that it gives the
// same bits on every processor.
func uniform(seed uint64, name string, std float64, dims ...int64) *onnxpb.TensorProto {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.NewPCG(seed, h.Sum64())
	n, _ := elements(dims)
	raw := make([]byte, 4*n)
	bound := math.Sqrt(3) * std
	for i := 0; i < len(raw); i += 4 {
		u := float64(r.Uint64()>>11) * 0x1p-52 // [0, 2), exact
		binary.LittleEndian.PutUint32(raw[i:i+4], math.Float32bits(float32(bound*(u-1))))
	}
	return rawTensor(Float32, raw, dims)
}

// heConv returns the weights [out, in, k, k] of a convolution before a ReLU:
// standard deviation √(2/(out·k²)), He et al. 2015 (arXiv 1502.01852, section
// 2.2, the backward case) as ResNets are commonly started.
func heConv(seed uint64, name string, out, in, k int64) *onnxpb.TensorProto {
	return uniform(seed, name, math.Sqrt(2/float64(out*k*k)), out, in, k, k)
}

// fill returns a float32 vector of n equal values.
func fill(n int64, v float32) *onnxpb.TensorProto {
	return NewTensor(slices.Repeat([]float32{v}, int(n)), n)
}
