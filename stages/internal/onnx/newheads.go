package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"sela/stages/internal/onnx/onnxpb"
)

// HeadKind says what heads are made of.
type HeadKind string

// The kinds of heads.
const (
	LinearHead HeadKind = "linear"
	CosineHead HeadKind = "cosine"
)

// HeadOptions describe T new heads on features [N, D], which put out logits
// float32 [N, K].
//
//   - linear: each head is features·Wᵀ + b, with the standard deviation g/√D for
//     W, [K, D], and b = 0.
//   - cosine: all heads share a projection of the features to 128 dimensions
//     (linear D → D, BatchNormalization, Relu, linear D → 128, its length made 1),
//     and the logits of a head are the cosines between it and K prototypes,
//     divided by the temperature τ. Head, sharing, sizes and τ = 0.1 are those of
//     SwAV with a ResNet-50 (Caron et al. 2020, arXiv 2006.09882, and the defaults
//     of its code), which normalises prototypes between steps instead. The linear
//     layers start with standard deviations √(2/D) and 1/√D, prototypes with a
//     length of about 1. An all-zero projection has cosines of 0 and finite
//     gradients.
//
// Weights are a function of the seed and their names. Those of the projection
// are named projection.0, .1 and .3, as in the sequence of its layers; those of
// head t are head_<t>.weight ([K, D], or [128, K] of prototypes) and
// head_<t>.bias.
type HeadOptions struct {
	Kind        HeadKind // "" for linear
	Heads       int      // T
	Clusters    int      // K
	Seed        uint64
	Gain        float64 // g of linear heads; 0 means 1
	Temperature float64 // τ of cosine heads; 0 means 0.1
}

const (
	// DefaultTemperature is SwAV's.
	DefaultTemperature = 0.1
	// projected is the width of what cosines are taken of.
	projected = 128
	// normFloor² is added to a squared length before it divides: far below any
	// length that occurs, and enough for finite gradients at 0.
	normFloor = 1e-6

	maxHeadWeights = 1 << 29 // of all heads; the file format ends at 2 GiB
)

// withDefaults returns the options without zeros, checked.
func (o HeadOptions) withDefaults() (HeadOptions, error) {
	positive := func(x float64) bool { return x > 0 && !math.IsInf(x, 0) }
	switch {
	case o.Heads < 1 || o.Heads > maxHeads:
		return o, fmt.Errorf("%d heads, want 1 to %d", o.Heads, maxHeads)
	case o.Clusters < 2 || o.Clusters > maxHeadWeights:
		return o, fmt.Errorf("%d clusters, want 2 or more", o.Clusters)
	}
	switch o.Kind {
	case "", LinearHead:
		o.Kind = LinearHead
		if o.Gain == 0 {
			o.Gain = 1
		}
		if !positive(o.Gain) {
			return o, fmt.Errorf("head gain %g, want more than 0", o.Gain)
		}
		if o.Temperature != 0 {
			return o, errors.New("linear heads have no temperature")
		}
	case CosineHead:
		if o.Temperature == 0 {
			o.Temperature = DefaultTemperature
		}
		if !positive(o.Temperature) {
			return o, fmt.Errorf("temperature %g, want more than 0", o.Temperature)
		}
		if o.Gain != 0 {
			return o, errors.New("cosine heads have no gain: the length of their weights counts for nothing")
		}
	default:
		return o, fmt.Errorf("no heads of kind %q; there are %s and %s", o.Kind, LinearHead, CosineHead)
	}
	return o, nil
}

// fits refuses heads on that many features that no file could hold.
func (o HeadOptions) fits(width int64) error {
	each, left := width, int64(maxHeadWeights)
	if o.Kind == CosineHead {
		each = projected
		if width > left/(width+projected) {
			return fmt.Errorf("a projection of %d features exceeds a model file's 2 GiB", width)
		}
		left -= width * (width + projected)
	}
	if int64(o.Heads)*int64(o.Clusters) > left/each {
		return fmt.Errorf("%d heads × %d clusters × %d features exceed a model file's 2 GiB", o.Heads, o.Clusters, each)
	}
	return nil
}

// The keys under which a model records what was put on its features.
const (
	metaHeads    = "sela.heads"
	metaHeadGain = "sela.head_gain" // of a built-in network with linear heads
	metaFeatures = "sela.features"  // the tensor they read
)

func (b *Builder) recordHeads(features string, o HeadOptions) {
	scale := fmt.Sprintf("gain %g", o.Gain)
	if o.Kind == CosineHead {
		scale = fmt.Sprintf("temperature %g", o.Temperature)
	}
	b.SetMetadata(metaHeads, string(o.Kind)+", "+scale+", seed "+strconv.FormatUint(o.Seed, 10))
	b.SetMetadata(metaFeatures, features)
}

// forgetHeads removes what recordHeads and NewNetwork recorded.
func (b *Builder) forgetHeads() {
	b.m.Proto.MetadataProps = slices.DeleteFunc(b.m.Proto.MetadataProps, func(kv *onnxpb.StringStringEntryProto) bool {
		return slices.Contains([]string{metaHeads, metaHeadGain, metaFeatures}, kv.GetKey())
	})
}

// heads adds heads on features, float32 [batch, width], and returns the names of
// their outputs. The options are complete.
func (n *network) heads(features string, width int64, batch Dim, o HeadOptions) []string {
	x := features
	if o.Kind == CosineHead {
		x = n.projection(features, width)
	}
	var names []string
	for i := range o.Heads {
		name := "head_" + strconv.Itoa(i)
		if o.Kind == CosineHead {
			name = n.cosineHead(name, x, int64(o.Clusters), o.Temperature)
		} else {
			name = n.linear(x, name, name, width, int64(o.Clusters), o.Gain/math.Sqrt(float64(width)))
		}
		n.Output(Value{Name: name, DType: Float32, Shape: []Dim{batch, {Size: int64(o.Clusters)}}})
		names = append(names, name)
	}
	return names
}

// projection adds what the cosine heads share and returns its output, vectors of
// length 1.
func (n *network) projection(x string, width int64) string {
	const prefix = "projection"
	d := float64(width)
	x = n.linear(x, prefix+".0", prefix+".0.out", width, width, math.Sqrt(2/d))
	x = n.Node("Relu", prefix+".2.out", []string{n.normalise(x, prefix+".1", width)})
	x = n.linear(x, prefix+".3", prefix+".3.out", width, projected, 1/math.Sqrt(d))
	return n.Node("Div", prefix+".unit", []string{x, n.length(x, prefix, 1)})
}

// cosineHead adds the logits of one head. The prototypes' lengths divide the
// products and not the prototypes, so that these are the constant operand of a
// MatMul, which is how a parameter is known.
func (n *network) cosineHead(name, unit string, clusters int64, temperature float64) string {
	weight := n.Const(name+".weight", uniform(n.seed, name+".weight", 1/math.Sqrt(projected), projected, clusters))
	product := n.Node("MatMul", name+".product", []string{unit, weight})
	scale := n.Node("Mul", name+".scale", []string{n.length(weight, name, 0), n.Const(name+".temperature", NewTensor([]float32{float32(temperature)}))})
	return n.Node("Div", name, []string{product, scale})
}

// length adds the lengths of a matrix's vectors along an axis, which stays as 1.
func (n *network) length(x, prefix string, axis int64) string {
	squares := n.Node("Mul", prefix+".squares", []string{x, x})
	sum := n.sum(squares, prefix+".sum", axis)
	floor := n.Const(prefix+".floor", NewTensor([]float32{normFloor * normFloor}))
	return n.Node("Sqrt", prefix+".length", []string{n.Node("Add", prefix+".sum_floor", []string{sum, floor})})
}

// sumAxesInput is the operator set in which ReduceSum's axes became an input.
const sumAxesInput = 13

// sum adds the sum over an axis, which stays as 1.
func (b *Builder) sum(x, out string, axis int64) string {
	if b.m.Opset() < sumAxesInput {
		return b.Node("ReduceSum", out, []string{x}, Ints("axes", axis), Int("keepdims", 1))
	}
	return b.Node("ReduceSum", out, []string{x, b.Const(out+".axis", NewInts([]int64{axis}, 1))}, Int("keepdims", 1))
}
