package onnx

import "fmt"

// resnetS is a small residual network for images of 32 pixels.
func resnetS(n *network, x activation) (string, int64) {
	x = n.conv(x, "conv1", 64, 3, 2)
	x = n.stage(n.relu(n.batchNorm(x, "bn1"), "conv1"))
	x = n.residual(x, (*network).basicBlock, 1, 1, 64, 1)
	x = n.residual(x, (*network).basicBlock, 2, 1, 128, 2)
	x = n.residual(x, (*network).basicBlock, 3, 1, 256, 2)
	return n.pool(x)
}

// resnet18 is the network of 18 layers of He et al. 2016.
func resnet18(n *network, x activation) (string, int64) {
	return resnet(n, x, (*network).basicBlock, [4]int{2, 2, 2, 2})
}

// resnet18S is resnet18 with a beginning for small images.
func resnet18S(n *network, x activation) (string, int64) {
	x = n.conv(x, "conv1", 64, 3, 1)
	x = n.stage(n.relu(n.batchNorm(x, "bn1"), "conv1"))
	return n.stages(x, (*network).basicBlock, [4]int{2, 2, 2, 2})
}

// resnet50 is the network of 50 layers of He et al. 2016, with the stride of a
// stage in its first 3×3 convolution (and not in the 1×1 before it), as
// torchvision has it.
func resnet50(n *network, x activation) (string, int64) {
	return resnet(n, x, (*network).bottleneck, [4]int{3, 4, 6, 3})
}

// block adds a residual block of a width and a stride whose output is named
// name; its parameters' names begin with prefix.
type block func(n *network, x activation, prefix, name string, width, stride int64) activation

// resnet adds the beginning for large images and four stages of so many blocks.
func resnet(n *network, x activation, b block, blocks [4]int) (string, int64) {
	x = n.conv(x, "conv1", 64, 7, 2)
	x = n.stage(n.relu(n.batchNorm(x, "bn1"), "conv1"))
	return n.stages(n.maxPool(x, "maxpool.out", window{3, 2, 1}), b, blocks)
}

// stages adds four stages of so many blocks, each of half the height and width and
// twice the channels of the one before.
func (n *network) stages(x activation, b block, blocks [4]int) (string, int64) {
	for i, count := range blocks {
		x = n.residual(x, b, i+1, count, 64<<i, int64(min(i+1, 2)))
	}
	return n.pool(x)
}

// residual adds stage number s (from 1) of so many blocks, the first of them
// with the stride. What it ends with is named conv<s+1>.
func (n *network) residual(x activation, b block, s, blocks int, width, stride int64) activation {
	for i := range blocks {
		prefix := fmt.Sprintf("layer%d.%d", s, i)
		name := prefix + ".out"
		if i == blocks-1 {
			name = fmt.Sprintf("conv%d", s+1)
		}
		x = b(n, x, prefix, name, width, stride)
		stride = 1
	}
	return n.stage(x)
}

// basicBlock adds two 3×3 convolutions beside a shortcut (figure 2).
func (n *network) basicBlock(x activation, prefix, name string, out, stride int64) activation {
	y := n.relu(n.batchNorm(n.conv(x, prefix+".conv1", out, 3, stride), prefix+".bn1"), prefix+".relu1.out")
	y = n.batchNorm(n.conv(y, prefix+".conv2", out, 3, 1), prefix+".bn2")
	return n.shortcut(x, y, prefix, name, stride)
}

// bottleneck adds 1×1, 3×3 and 1×1 convolutions, the last to four times the
// width, beside a shortcut (figure 5).
func (n *network) bottleneck(x activation, prefix, name string, width, stride int64) activation {
	y := n.relu(n.batchNorm(n.conv(x, prefix+".conv1", width, 1, 1), prefix+".bn1"), prefix+".relu1.out")
	y = n.relu(n.batchNorm(n.conv(y, prefix+".conv2", width, 3, stride), prefix+".bn2"), prefix+".relu2.out")
	y = n.batchNorm(n.conv(y, prefix+".conv3", 4*width, 1, 1), prefix+".bn3")
	return n.shortcut(x, y, prefix, name, stride)
}

// shortcut adds x to y, through a 1×1 convolution where the shape changes
// (option B), and a rectifier.
func (n *network) shortcut(x, y activation, prefix, name string, stride int64) activation {
	if stride != 1 || x.c != y.c {
		x = n.batchNorm(n.conv(x, prefix+".downsample.0", y.c, 1, stride), prefix+".downsample.1")
	}
	y.name = n.Node("Add", prefix+".sum", []string{y.name, x.name})
	return n.relu(y, name)
}
