package onnx

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

// The settings networks are trained with: momentum is the share of the running
// statistics that is kept, one minus PyTorch's.
const (
	normEpsilon  = 1e-5
	normMomentum = 0.9
)

// window is how a convolution or a pool moves over a map.
type window struct{ size, stride, pad int64 }

// over returns the size of what a map of the given size becomes.
func (w window) over(size int64) int64 { return (size+2*w.pad-w.size)/w.stride + 1 }

func (w window) attrs() []Attr {
	return []Attr{Ints("kernel_shape", w.size, w.size), Ints("strides", w.stride, w.stride), Ints("pads", w.pad, w.pad, w.pad, w.pad)}
}

// conv adds a k×k convolution without bias, padded by (k−1)/2.
func (n *network) conv(x activation, prefix string, out, k, stride int64) activation {
	return n.convolve(x, prefix, out, window{k, stride, (k - 1) / 2}, false)
}

// convolve adds a convolution, with a bias of 0 if it is to have one.
func (n *network) convolve(x activation, prefix string, out int64, w window, bias bool) activation {
	in := []string{x.name, n.Const(prefix+".weight", heConv(n.seed, prefix+".weight", out, x.c, w.size))}
	if bias {
		in = append(in, n.Const(prefix+".bias", fill(out, 0)))
	}
	return activation{n.Node("Conv", prefix+".out", in, w.attrs()...), out, w.over(x.h), w.over(x.w)}
}

// maxPool adds a pool whose output is named out.
func (n *network) maxPool(x activation, out string, w window) activation {
	return activation{n.Node("MaxPool", out, []string{x.name}, w.attrs()...), x.c, w.over(x.h), w.over(x.w)}
}

func (n *network) batchNorm(x activation, prefix string) activation {
	x.name = n.normalise(x.name, prefix, x.c)
	return x
}

// normalise adds BatchNormalization of a value [N, c, …].
func (n *network) normalise(x, prefix string, c int64) string {
	return n.Node("BatchNormalization", prefix+".out", []string{
		x,
		n.Const(prefix+".weight", fill(c, 1)),
		n.Const(prefix+".bias", fill(c, 0)),
		n.Const(prefix+".running_mean", fill(c, 0)),
		n.Const(prefix+".running_var", fill(c, 1)),
	}, Float("epsilon", normEpsilon), Float("momentum", normMomentum))
}

// linear adds x·Wᵀ + b for x [N, in], its output named out. W has the standard
// deviation std, b is 0.
func (n *network) linear(x, prefix, out string, in, width int64, std float64) string {
	weight := n.Const(prefix+".weight", uniform(n.seed, prefix+".weight", std, width, in))
	bias := n.Const(prefix+".bias", fill(width, 0))
	return n.Node("Gemm", out, []string{x, weight, bias}, Int("transB", 1))
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
	return n.features(n.Node("Flatten", "features", []string{y}, Int("axis", 1)), x.c)
}

// features states the shape of what a trunk ends with.
func (n *network) features(name string, width int64) (string, int64) {
	n.Describe(Value{Name: name, DType: Float32, Shape: batchOf(width)})
	return name, width
}
