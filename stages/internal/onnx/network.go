package onnx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// NetworkOptions parametrises a built-in network.
type NetworkOptions struct {
	ImageSize int      // pixels, height and width; 0 for the network's own default
	Head      HeadKind // "" for linear heads
	Heads     int      // T
	Clusters  int      // K, outputs of each head
	Seed      uint64   // of the weights
	// HeadGain g scales the weights of linear heads, whose standard deviation is
	// g/√D; 0 means 1. It sets how peaked an untrained network's rows are: with g =
	// 1, the logits of a calibrated resnet-s vary by 0.3 (standard deviation)
	// between CIFAR-10's images, in proportion to g.
	HeadGain float64
	// Temperature τ of cosine heads; 0 means 0.1.
	Temperature float64
}

// architecture is a trunk and its usual input.
type architecture struct {
	imageSize int
	// sizes are the smallest and the largest image the trunk takes.
	sizes [2]int
	// trunk adds the layers from images to features [N, D].
	trunk func(n *network, images activation) (features string, width int64)
}

var anySize = [2]int{8, 4096}

var architectures = map[string]architecture{
	"alexnet-big":   {224, alexnetSizes, alexnet(96, 256, 384, 384, 256)},
	"alexnet-small": {224, alexnetSizes, alexnet(64, 192, 384, 256, 256)},
	"alexnet-s":     {32, anySize, alexnetS},
	"resnet-s":      {32, anySize, resnetS},
	"resnet-18":     {224, anySize, resnet18},
	"resnet-18-s":   {32, anySize, resnet18S},
	"resnet-50":     {224, anySize, resnet50},
}

// Networks returns the names NewNetwork knows, sorted.
func Networks() []string { return slices.Sorted(maps.Keys(architectures)) }

// NewNetwork builds a network in evaluation mode with random weights that are a
// function of its name and options. It has one input, images, float32
// [N, 3, size, size]; outputs head_0 … head_{T−1}, logits float32 [N, K]; and
// named inner values: conv1, conv2, … the activations after each stage of the
// trunk, and features [N, D], what the heads read. N is free.
//
//   - resnet-s, for 32 pixels: a 3×3 convolution of stride 2 to 64 channels, one
//     basic block each of 64, 128 and 256 channels (16, 8 and 4 pixels), global
//     average; conv1 … conv4, D = 256.
//   - alexnet-s, for 32 pixels: five 3×3 convolutions to 64, 96, 128, 128 and 256
//     channels, each with BatchNormalization; pools after the first, second and
//     fifth (16, 8 and 4 pixels), global average; conv1 … conv5, D = 256. An
//     image takes 51.3 million multiplications, one of resnet-s 48.7 million.
//   - resnet-18 and resnet-50, for 224 pixels: He et al. 2016 (arXiv 1512.03385,
//     table 1), the blocks of resnet-50 with their stride in the 3×3 convolution;
//     conv1 … conv5, D = 512 and 2048. Parameters are named as in torchvision.
//   - resnet-18-s, for 32 pixels: resnet-18 that begins with a 3×3 convolution of
//     stride 1 and no pool, as is usual for CIFAR (32, 16, 8 and 4 pixels).
//   - alexnet-big and alexnet-small, for 224 pixels: Krizhevsky et al. 2012 with
//     BatchNormalization after each convolution, as in the reference
//     implementation of self-labelling (Asano et al. 2020): five convolutions to
//     96, 256, 384, 384 and 256 channels, or 64, 192, 384, 256 and 256, three
//     pools, and two layers of 4096 behind Dropout; conv1 … conv5, D = 4096.
//     Parameters are named as there and as in torchvision. The first of the large
//     layers reads maps of 6×6, which images of 223 to 254 pixels give.
//
// Convolutions start as He et al. 2015 propose, the large layers of AlexNet with
// standard deviation 0.01, BatchNormalization with scale 1, bias 0 and running
// statistics 0 and 1, which mean nothing until a [Calibration]. Heads are
// described at [HeadOptions].
func NewNetwork(name string, o NetworkOptions) (*Model, error) {
	a, ok := architectures[name]
	if !ok {
		return nil, fmt.Errorf("new network: no network %q; there are %s", name, strings.Join(Networks(), ", "))
	}
	if o.ImageSize == 0 {
		o.ImageSize = a.imageSize
	}
	if o.ImageSize < a.sizes[0] || o.ImageSize > a.sizes[1] {
		return nil, fmt.Errorf("new network: %s for images of %d pixels, want %d to %d", name, o.ImageSize, a.sizes[0], a.sizes[1])
	}
	heads, err := HeadOptions{Kind: o.Head, Heads: o.Heads, Clusters: o.Clusters, Seed: o.Seed, Gain: o.HeadGain, Temperature: o.Temperature}.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("new network: %w", err)
	}
	n := &network{Builder: NewBuilder(name), seed: o.Seed}
	size := int64(o.ImageSize)
	images := n.Input(Value{Name: "images", DType: Float32, Shape: batchOf(3, size, size)})
	features, width := a.trunk(n, activation{images, 3, size, size})
	if err := heads.fits(width); err != nil {
		return nil, fmt.Errorf("new network: %w", err)
	}
	n.heads(features, width, Dim{Name: "N"}, heads)
	n.SetMetadata("sela.network", name)
	n.SetMetadata("sela.image_size", strconv.Itoa(o.ImageSize))
	n.SetMetadata("sela.seed", strconv.FormatUint(o.Seed, 10))
	if heads.Kind == LinearHead {
		n.SetMetadata(metaHeadGain, strconv.FormatFloat(heads.Gain, 'g', -1, 64))
	} else {
		n.recordHeads(features, heads)
	}
	return n.Model(), nil
}
