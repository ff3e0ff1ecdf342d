package onnx

import "fmt"

// resnetS is a small residual network for images of 32 pixels.
func resnetS(n *network, x activation) (string, int64) {
	x = n.conv(x, "conv1", 64, 3, 2)
	x = n.stage(n.relu(n.batchNorm(x, "bn1"), "conv1"))
	x = n.basicStage(x, 1, 1, 64, 1)
	x = n.basicStage(x, 2, 1, 128, 2)
	x = n.basicStage(x, 3, 1, 256, 2)
	return n.pool(x)
}

// resnet18 is the network of 18 layers of He et al. 2016.
func resnet18(n *network, x activation) (string, int64) {
	x = n.conv(x, "conv1", 64, 7, 2)
	x = n.stage(n.relu(n.batchNorm(x, "bn1"), "conv1"))
	y := n.Node("MaxPool", "maxpool.out", []string{x.name}, Ints("kernel_shape", 3, 3), Ints("strides", 2, 2), Ints("pads", 1, 1, 1, 1))
	x = activation{y, x.c, strided(x.h, 2), strided(x.w, 2)}
	x = n.basicStage(x, 1, 2, 64, 1)
	x = n.basicStage(x, 2, 2, 128, 2)
	x = n.basicStage(x, 3, 2, 256, 2)
	x = n.basicStage(x, 4, 2, 512, 2)
	return n.pool(x)
}

// basicStage adds stage number s (from 1) of basic blocks, the first of them
// with the stride. What it ends with is named conv<s+1>.
func (n *network) basicStage(x activation, s, blocks int, out, stride int64) activation {
	for i := range blocks {
		prefix := fmt.Sprintf("layer%d.%d", s, i)
		name := prefix + ".out"
		if i == blocks-1 {
			name = fmt.Sprintf("conv%d", s+1)
		}
		x = n.basicBlock(x, prefix, name, out, stride)
		stride = 1
	}
	return n.stage(x)
}

// basicBlock adds two 3×3 convolutions beside a shortcut, which is a 1×1
// convolution where the shape changes (He et al. 2016, figure 2, option B).
func (n *network) basicBlock(x activation, prefix, name string, out, stride int64) activation {
	y := n.relu(n.batchNorm(n.conv(x, prefix+".conv1", out, 3, stride), prefix+".bn1"), prefix+".relu1.out")
	y = n.batchNorm(n.conv(y, prefix+".conv2", out, 3, 1), prefix+".bn2")
	if stride != 1 || x.c != out {
		x = n.batchNorm(n.conv(x, prefix+".downsample.0", out, 1, stride), prefix+".downsample.1")
	}
	y.name = n.Node("Add", prefix+".sum", []string{y.name, x.name})
	return n.relu(y, name)
}
