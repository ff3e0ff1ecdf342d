package grad

import (
	"fmt"

	"sela/stages/internal/onnx"
)

var pools = map[string]operator{
	"MaxPool":           {1, 1, one(maxPool)},
	"AveragePool":       {1, 1, one(averagePool)},
	"GlobalAveragePool": unaryOperator(globalAveragePool),
}

// maxPool sends each window's gradient to its first maximum, as PyTorch does.
func maxPool(t *tape, n *node) *value {
	x := n.in[0]
	w, out := n.window(x.dims, nil)
	if n.int("storage_order", 0) != 0 {
		fail("attribute storage_order is 1")
	}
	for i := range 2 {
		// What ceil_mode adds is padding like any other.
		w.after[i] = max(w.after[i], w.reach(i, out[i])-x.dims[2+i]-w.before[i])
	}
	dims := []int64{x.dims[0], x.dims[1], out[0], out[1]}
	if !x.needs {
		return t.emit("MaxPool", x.dtype, dims, []*value{x}, w.attrs()...)
	}
	names := t.b.Nodes("MaxPool", []string{t.scope + "/MaxPool", t.scope + "/indices"}, t.names([]*value{x}), w.attrs()...)
	y := &value{name: names[0], dtype: x.dtype, dims: dims}
	at := &value{name: names[1], dtype: onnx.Int64, dims: dims}
	key := fmt.Sprintf("max pool n%d c%d h%d w%d %v", x.dims[0], x.dims[1], x.dims[2], x.dims[3], w)
	return t.diff(y, wrt(x, func(dy *value) *value {
		return t.choose(key, maxPoolForms(w, x.dims), []*value{dy, at})
	}))
}

// maxPoolForms are the ways to compute dX from dY and the indices of the
// maxima in X, the default first.
func maxPoolForms(w window, dims []int64) []form {
	scatter := form{"scatter", func(t *tape, in []*value) *value { return maxPoolScatter(t, dims, in[0], in[1]) }}
	apart := w.kernel[0] <= w.strides[0] && w.kernel[1] <= w.strides[1] && w.dilations == [2]int64{1, 1}
	if !apart || w.before != [2]int64{} || w.after != [2]int64{} {
		return []form{scatter}
	}
	unpool := form{"unpool", func(t *tape, in []*value) *value {
		// MaxUnpool itself, with the window it is named after; the shape comes last.
		return t.emit("MaxUnpool", in[0].dtype, dims, []*value{in[0], in[1], knownInts(dims)},
			onnx.Ints("kernel_shape", w.kernel[:]...), onnx.Ints("strides", w.strides[:]...))
	}}
	return []form{unpool, scatter}
}

// maxPoolScatter adds each element of dY to where its maximum was.
func maxPoolScatter(t *tape, dims []int64, dy, at *value) *value {
	flat := []int64{elements(dims)}
	all := []int64{elements(dy.dims)}
	dx := t.emit("ScatterElements", dy.dtype, flat, []*value{t.zeros(flat), t.reshape(at, all), t.reshape(dy, all)},
		onnx.Int("axis", 0), str("reduction", "add"))
	return t.reshape(dx, dims)
}

// averagePool is written as the mean over whole windows, zeros outside the
// image, times what that mean must be multiplied by where fewer elements count.
func averagePool(t *tape, n *node) *value {
	x := n.in[0]
	w, out := n.window(x.dims, nil)
	if w.dilations != [2]int64{1, 1} {
		fail("attribute dilations is %v", w.dilations)
	}
	withPads := n.int("count_include_pad", 0) != 0
	var counts [2][]float64
	uniform := true
	for i := range 2 {
		low, high := int64(0), x.dims[2+i]
		if withPads {
			low, high = -w.before[i], high+w.after[i]
		}
		for o := range min(out[i], 1<<20) {
			first := o*w.strides[i] - w.before[i]
			count := min(first+w.kernel[i], high) - max(first, low)
			if count < 1 {
				fail("a window with nothing in it")
			}
			counts[i] = append(counts[i], float64(w.kernel[i])/float64(count))
			uniform = uniform && count == w.kernel[i]
		}
		w.after[i] = max(w.after[i], w.reach(i, out[i])-x.dims[2+i]-w.before[i])
	}
	dims := []int64{x.dims[0], x.dims[1], out[0], out[1]}
	y := t.emit("AveragePool", x.dtype, dims, []*value{x}, onnx.Ints("kernel_shape", w.kernel[:]...), onnx.Ints("strides", w.strides[:]...),
		onnx.Ints("pads", w.before[0], w.before[1], w.after[0], w.after[1]), onnx.Int("count_include_pad", 1))
	y = t.diff(y, wrt(x, func(dy *value) *value { return averagePoolInput(t, w, x.dims, dy) }))
	if uniform {
		return y
	}
	ratio := build(onnx.Float32, []int64{1, 1, out[0], out[1]}, func(i []int64) float64 { return counts[0][i[2]] * counts[1][i[3]] })
	return mul(t, y, ratio)
}

// averagePoolInput spreads each window's gradient evenly over it.
func averagePoolInput(t *tape, w window, dims []int64, dy *value) *value {
	dy = t.scale(dy, 1/float64(w.kernel[0]*w.kernel[1]))
	images := []int64{dims[0] * dims[1], 1, dy.dims[2], dy.dims[3]}
	ones := t.expand(t.scalar(1), []int64{1, 1, w.kernel[0], w.kernel[1]})
	return t.reshape(t.spreadBack(w, [2]int64{dims[2], dims[3]}, t.reshape(dy, images), ones, 1), dims)
}

func globalAveragePool(t *tape, x *value) *value {
	if len(x.dims) != 4 {
		fail("an input of shape %v: only [N, C, H, W] is supported", x.dims)
	}
	dims := []int64{x.dims[0], x.dims[1], 1, 1}
	return t.diff(t.emit("GlobalAveragePool", x.dtype, dims, []*value{x}), wrt(x, func(dy *value) *value {
		return t.expand(t.scale(dy, 1/float64(x.dims[2]*x.dims[3])), x.dims)
	}))
}
