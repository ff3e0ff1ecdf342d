package onnx

import "fmt"

// alexnetSizes are the images whose last map has 6×6 pixels: 224 becomes 55 by
// the first convolution, and 27, 13 and 6 by the pools.
var alexnetSizes = [2]int{223, 254}

// linearStd is the standard deviation that AlexNet's large layers start with
// (Krizhevsky et al. 2012, section 5).
const linearStd = 0.01

// alexnet returns the trunk with so many channels after each convolution. Its
// parameters are named by their layers' places in the sequences features (of
// Conv, BatchNormalization, Relu and MaxPool) and classifier (of Dropout, Gemm
// and Relu).
func alexnet(channels ...int64) func(n *network, x activation) (string, int64) {
	windows := []window{{11, 4, 2}, {5, 1, 2}, {3, 1, 1}, {3, 1, 1}, {3, 1, 1}}
	pooled := []bool{true, true, false, false, true}
	return func(n *network, x activation) (string, int64) {
		layer := 0
		name := func(after int) string { return fmt.Sprintf("features.%d", layer+after) }
		for i, c := range channels {
			x = n.batchNorm(n.convolve(x, name(0), c, windows[i], true), name(1))
			x = n.stage(n.relu(x, fmt.Sprintf("conv%d", i+1)))
			layer += 3
			if pooled[i] {
				x = n.maxPool(x, name(0)+".out", window{3, 2, 0})
				layer++
			}
		}
		y := n.Node("Flatten", "flatten.out", []string{x.name}, Int("axis", 1))
		ratio := n.Const("dropout.ratio", NewTensor([]float32{0.5}))
		dropout := func(y, prefix string) string { return n.Node("Dropout", prefix+".out", []string{y, ratio}) }
		y = n.linear(dropout(y, "classifier.0"), "classifier.1", "classifier.1.out", x.c*x.h*x.w, 4096, linearStd)
		y = n.Node("Relu", "classifier.2.out", []string{y})
		y = n.linear(dropout(y, "classifier.3"), "classifier.4", "classifier.4.out", 4096, 4096, linearStd)
		return n.features(n.Node("Relu", "features", []string{y}), 4096)
	}
}

// alexnetS is AlexNet's sequence of convolutions and pools for images of 32
// pixels, with a global average in the place of its large layers.
func alexnetS(n *network, x activation) (string, int64) {
	half := window{2, 2, 0}
	for i, c := range []int64{64, 96, 128, 128, 256} {
		prefix := fmt.Sprintf("features.%d", i)
		x = n.batchNorm(n.conv(x, prefix+".conv", c, 3, 1), prefix+".bn")
		x = n.stage(n.relu(x, fmt.Sprintf("conv%d", i+1)))
		if i < 2 || i == 4 {
			x = n.maxPool(x, prefix+".pool.out", half)
		}
	}
	return n.pool(x)
}
