package onnx

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// NetworkOptions parametrises a built-in network.
type NetworkOptions struct {
	ImageSize int    // pixels, height and width; 0 for the network's own default
	Heads     int    // T
	Clusters  int    // K, outputs of each head
	Seed      uint64 // of the weights
	// HeadGain g scales the heads' weights, whose standard deviation is g/√D; 0
	// means 1. It sets how peaked an untrained network's rows are: with g = 1, the
	// logits of a calibrated resnet-s vary by 0.3 (standard deviation) between
	// CIFAR-10's images, in proportion to g.
	HeadGain float64
}

// architecture is a trunk and its usual input.
type architecture struct {
	imageSize int
	// trunk adds the layers from images to features [N, D].
	trunk func(n *network, images activation) (features string, width int64)
}

var architectures = map[string]architecture{
	"resnet-s":  {imageSize: 32, trunk: resnetS},
	"resnet-18": {imageSize: 224, trunk: resnet18},
}

// Networks returns the names NewNetwork knows, sorted.
func Networks() []string { return slices.Sorted(maps.Keys(architectures)) }

// Bounds on what a network may be asked for, so that a slip of the keyboard is
// an error and not an exhausted memory.
const (
	maxImageSize   = 4096
	maxHeadWeights = 1 << 29 // of all heads; the file format ends at 2 GiB
)

// NewNetwork builds a network in evaluation mode with random weights that are a
// function of its name and options. It has one input, images, float32
// [N, 3, size, size]; outputs head_0 … head_{T−1}, logits float32 [N, K]; and
// named inner values: conv1, conv2, … the activations after each stage of the
// trunk, and features [N, D], what the heads read. N is free.
//
//   - resnet-s, for 32 pixels: a 3×3 convolution of stride 2 to 64 channels, one
//     basic block each of 64, 128 and 256 channels (16, 8 and 4 pixels), global
//     average; conv1 … conv4, D = 256.
//   - resnet-18, for 224 pixels: He et al. 2016 (arXiv 1512.03385, table 1);
//     conv1 … conv5, D = 512. Parameters are named as in torchvision.
//
// Convolutions start as He et al. 2015 propose, heads with standard deviation
// g/√D and bias 0, BatchNormalization with scale 1, bias 0 and running
// statistics 0 and 1, which mean nothing until a [Calibration].
func NewNetwork(name string, o NetworkOptions) (*Model, error) {
	a, ok := architectures[name]
	if !ok {
		return nil, fmt.Errorf("new network: no network %q; there are %s", name, strings.Join(Networks(), ", "))
	}
	if o.ImageSize == 0 {
		o.ImageSize = a.imageSize
	}
	if o.HeadGain == 0 {
		o.HeadGain = 1
	}
	switch {
	case o.ImageSize < 8 || o.ImageSize > maxImageSize:
		return nil, fmt.Errorf("new network: images of %d pixels, want 8 to %d", o.ImageSize, maxImageSize)
	case o.Heads < 1 || o.Heads > maxHeads:
		return nil, fmt.Errorf("new network: %d heads, want 1 to %d", o.Heads, maxHeads)
	case o.Clusters < 2 || o.Clusters > maxHeadWeights:
		return nil, fmt.Errorf("new network: %d clusters, want 2 or more", o.Clusters)
	case !(o.HeadGain > 0) || math.IsInf(o.HeadGain, 0):
		return nil, fmt.Errorf("new network: head gain %g, want more than 0", o.HeadGain)
	}
	n := &network{Builder: NewBuilder(name), seed: o.Seed}
	size := int64(o.ImageSize)
	images := n.Input(Value{Name: "images", DType: Float32, Shape: batchOf(3, size, size)})
	features, width := a.trunk(n, activation{images, 3, size, size})
	if int64(o.Heads)*int64(o.Clusters) > maxHeadWeights/width {
		return nil, fmt.Errorf("new network: %d heads × %d clusters × %d features exceed a model file's 2 GiB", o.Heads, o.Clusters, width)
	}
	for i := range o.Heads {
		n.linearHead("head_"+strconv.Itoa(i), features, width, int64(o.Clusters), o.HeadGain)
	}
	n.SetMetadata("sela.network", name)
	n.SetMetadata("sela.image_size", strconv.Itoa(o.ImageSize))
	n.SetMetadata("sela.seed", strconv.FormatUint(o.Seed, 10))
	n.SetMetadata("sela.head_gain", strconv.FormatFloat(o.HeadGain, 'g', -1, 64))
	return n.Model(), nil
}

func batchOf(sizes ...int64) []Dim {
	shape := []Dim{{Name: "N"}}
	for _, s := range sizes {
		shape = append(shape, Dim{Size: s})
	}
	return shape
}

// network adds layers with random parameters, which are named prefix.weight and
// so on.
type network struct {
	*Builder
	seed uint64
}

// activation is a value [N, c, h, w].
type activation struct {
	name    string
	c, h, w int64
}

// The settings ResNets are trained with: momentum is the share of the running
// statistics that is kept, one minus PyTorch's.
const (
	normEpsilon  = 1e-5
	normMomentum = 0.9
)

// conv adds a k×k convolution without bias, padded by (k−1)/2.
func (n *network) conv(x activation, prefix string, out, k, stride int64) activation {
	weight := n.Const(prefix+".weight", heConv(n.seed, prefix+".weight", out, x.c, k))
	p := (k - 1) / 2
	y := n.Node("Conv", prefix+".out", []string{x.name, weight},
		Ints("kernel_shape", k, k), Ints("strides", stride, stride), Ints("pads", p, p, p, p))
	return activation{y, out, strided(x.h, stride), strided(x.w, stride)}
}

// strided is the size left by an odd window padded by half its width.
func strided(size, stride int64) int64 { return (size-1)/stride + 1 }

func (n *network) batchNorm(x activation, prefix string) activation {
	x.name = n.Node("BatchNormalization", prefix+".out", []string{
		x.name,
		n.Const(prefix+".weight", fill(x.c, 1)),
		n.Const(prefix+".bias", fill(x.c, 0)),
		n.Const(prefix+".running_mean", fill(x.c, 0)),
		n.Const(prefix+".running_var", fill(x.c, 1)),
	}, Float("epsilon", normEpsilon), Float("momentum", normMomentum))
	return x
}

// relu adds a rectifier whose output is named out.
func (n *network) relu(x activation, out string) activation {
	x.name = n.Node("Relu", out, []string{x.name})
	return x
}

// stage states the shape of the activation a stage ends with.
func (n *network) stage(x activation) activation {
	n.Describe(Value{Name: x.name, DType: Float32, Shape: batchOf(x.c, x.h, x.w)})
	return x
}

// pool adds the global average over space: features [N, c].
func (n *network) pool(x activation) (string, int64) {
	y := n.Node("GlobalAveragePool", "pool.out", []string{x.name})
	y = n.Node("Flatten", "features", []string{y}, Int("axis", 1))
	n.Describe(Value{Name: y, DType: Float32, Shape: batchOf(x.c)})
	return y, x.c
}

func (n *network) linearHead(name, features string, width, clusters int64, gain float64) {
	weight := n.Const(name+".weight", uniform(n.seed, name+".weight", gain/math.Sqrt(float64(width)), clusters, width))
	bias := n.Const(name+".bias", fill(clusters, 0))
	y := n.Node("Gemm", name, []string{features, weight, bias}, Int("transB", 1))
	n.Output(Value{Name: y, DType: Float32, Shape: batchOf(clusters)})
}
