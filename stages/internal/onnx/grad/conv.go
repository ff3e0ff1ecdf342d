package grad

import (
	"fmt"
	"slices"

	"sela/stages/internal/onnx"
)

var convolutions = map[string]operator{"Conv": {2, 3, one(conv)}}

// convolution is the shape of one, and what its gradients' forms depend on.
type convolution struct {
	x, w, y [4]int64 // [N, C, H, W], [O, C/groups, kh, kw], [N, O, h, w]
	groups  int64
	window
}

func (c convolution) key(what string) string {
	return fmt.Sprintf("%s n%d c%d h%d w%d o%d %v g%d", what, c.x[0], c.x[1], c.x[2], c.x[3], c.w[0], c.window, c.groups)
}

func (c convolution) out() [2]int64 { return [2]int64{c.y[2], c.y[3]} }

func conv(t *tape, n *node) *value {
	x, w, bias := n.in[0], n.in[1], n.input(2)
	if len(w.dims) != 4 {
		fail("weights of shape %v: only images [N, C, H, W] are supported", w.dims)
	}
	c := convolution{groups: n.int("group", 1)}
	var out [2]int64
	c.window, out = n.window(x.dims, w.dims[2:])
	if c.groups < 1 || c.groups > x.dims[1] || x.dims[1] != w.dims[1]*c.groups || w.dims[0]%c.groups != 0 || bias != nil && !slices.Equal(bias.dims, w.dims[:1]) {
		fail("weights of shape %v and %d groups for an input of shape %v", w.dims, c.groups, x.dims)
	}
	c.x, c.w = [4]int64(x.dims), [4]int64(w.dims)
	c.y = [4]int64{c.x[0], c.w[0], out[0], out[1]}
	in := []*value{x, w}
	if bias != nil {
		in = append(in, bias)
	}
	y := t.choose(c.key("conv"), convForms(c), in)
	flows := []flow{
		wrt(x, func(dy *value) *value {
			return t.choose(c.key("conv input"), convInputForms(c), []*value{dy, w})
		}),
		wrt(w, func(dy *value) *value {
			return t.choose(c.key("conv weight"), convWeightForms(c), []*value{x, dy})
		}),
	}
	if bias != nil {
		flows = append(flows, wrt(bias, func(dy *value) *value { return t.reduce("ReduceSum", dy, []int64{0, 2, 3}, false) }))
	}
	return t.diff(y, flows...)
}

// convForms are the ways to compute Y from X, W and perhaps the bias, the
// default first. Patches share the work better between threads where images have
// few pixels.
func convForms(c convolution) []form {
	plain, chunks, winograd := form{"conv", c.plain}, form{"chunks", c.byChunks}, form{"winograd", c.byWinograd}
	switch {
	case c.groups > 1 || c.kernel == [2]int64{1, 1}:
		return []form{plain}
	case c.winogradFirst():
		return []form{winograd, plain, chunks}
	case c.winograd():
		return []form{plain, chunks, winograd}
	}
	return []form{plain, chunks}
}

// plain is the operator itself.
func (c convolution) plain(t *tape, in []*value) *value {
	return t.emit("Conv", in[0].dtype, c.y[:], in, append(c.attrs(), onnx.Int("group", c.groups))...)
}

// convInputForms are the ways to compute dX from dY and W, the default first.
func convInputForms(c convolution) []form {
	with := func(name string, f func(*tape, convolution, *value, *value) *value) form {
		return form{name, func(t *tape, in []*value) *value { return f(t, c, in[0], in[1]) }}
	}
	transposed, phases := with("transposed", convInputTransposed), with("phases", convInputPhases)
	for i := range 2 {
		if c.strides[i] != 1 || c.before[i] >= c.extent(i) || c.after[i] >= c.extent(i) {
			switch {
			case c.phasesFirst():
				return []form{phases, transposed}
			case c.phased():
				return []form{transposed, phases}
			}
			return []form{transposed}
		}
	}
	// For stride 1, dX is a convolution of dY with the kernels turned round and
	// their channels exchanged, in any of its forms.
	var forms []form
	for _, f := range convForms(c.back()) {
		if f.name == "winograd" {
			forms = append(forms, with(f.name, convInputWinograd))
			continue
		}
		forms = append(forms, form{"flipped " + f.name, func(t *tape, in []*value) *value {
			return f.build(t, []*value{in[0], t.turned(c, in[1])})
		}})
	}
	return append(forms, transposed)
}

// convInputTransposed is the textbook form: a transposed convolution.
func convInputTransposed(t *tape, c convolution, dy, w *value) *value {
	return t.spreadBack(c.window, [2]int64{c.x[2], c.x[3]}, dy, w, c.groups)
}

// back is the convolution of dY that gives dX, for stride 1.
func (c convolution) back() convolution {
	b := convolution{x: c.y, y: c.x, groups: c.groups, window: c.window}
	b.w = [4]int64{c.x[1], c.w[0] / c.groups, c.kernel[0], c.kernel[1]}
	for i := range 2 {
		b.before[i], b.after[i] = c.extent(i)-1-c.before[i], c.extent(i)-1-c.after[i]
	}
	return b
}

// turned is the weights of back: [C, O/groups, kh, kw].
func (t *tape) turned(c convolution, w *value) *value {
	taps := c.kernel[0] * c.kernel[1]
	w = t.reshape(w, []int64{c.groups, c.w[0] / c.groups, c.w[1], taps})
	w = t.slice(t.transpose(w, 0, 2, 1, 3), 3, taps-1, -1, -1)
	return t.reshape(w, []int64{c.x[1], c.w[0] / c.groups, c.kernel[0], c.kernel[1]})
}

// convWeightForms are the ways to compute dW from X and dY, the default first.
func convWeightForms(c convolution) []form {
	with := func(name string, f func(*tape, convolution, *value, *value) *value) form {
		return form{name, func(t *tape, in []*value) *value { return f(t, c, in[0], in[1]) }}
	}
	slices, patches := with("slices", convWeightSlices), with("patches", convWeightPatches)
	images, conv, chunks := with("images", convWeightImages), with("conv", convWeightConv), with("chunks", convWeightChunks)
	winograd := with("winograd", convWeightWinograd)
	switch strided := c.strides != [2]int64{1, 1}; {
	case c.groups > 1:
		return []form{patches}
	case c.kernel == [2]int64{1, 1}:
		return []form{slices, images}
	case c.winogradFirst():
		return []form{winograd, chunks, patches, slices, images, conv}
	case !strided && c.x[1] <= 4:
		return []form{images, chunks, patches, slices, conv}
	case c.winograd():
		return []form{chunks, patches, slices, images, conv, winograd}
	case !strided || c.dilations != [2]int64{1, 1}:
		return []form{chunks, patches, slices, images, conv}
	case c.x[1] <= 4 && c.kernel[0] <= 2*c.strides[0]:
		return []form{images, patches, slices, conv}
	case c.x[1] <= 4: // patches of so few channels are copied pixel by pixel
		return []form{with("depth", convWeightDepth), patches, slices, images, conv}
	}
	return []form{chunks, patches, slices, with("depth", convWeightDepth), images, conv}
}

// channelsLast turns [N, C, H, W] into [N, H, W, C].
func (t *tape) channelsLast(x *value) *value {
	d := x.dims
	x = t.transpose(t.reshape(x, []int64{d[0], d[1], d[2] * d[3]}), 0, 2, 1)
	return t.reshape(x, []int64{d[0], d[2], d[3], d[1]})
}

// rowsOf turns dY [N, O, h, w] into [O, N·h·w].
func (t *tape) rowsOf(dy *value) *value {
	d := dy.dims
	rows := t.transpose(t.reshape(dy, []int64{d[0], d[1], d[2] * d[3]}), 1, 0, 2)
	return t.reshape(rows, []int64{d[1], d[0] * d[2] * d[3]})
}

// patches lays what each window sees of a padded image [N, H, W, C] side by
// side, [N·h·w, k·C]: one copy, in runs of C.
func (t *tape) patches(w window, out [2]int64, x *value) *value {
	return t.pick(x, t.table(w, out, x.dims))
}

// pick copies the pixels of x [N, H, W, C] that the rows of a table name.
func (t *tape) pick(x, table *value) *value {
	d := x.dims
	rows := t.reshape(x, []int64{d[0] * d[1] * d[2], d[3]})
	return t.reshape(t.gather(rows, table, 0), []int64{table.dims[0], table.dims[1] * d[3]})
}

// table names the pixels that each window sees of padded images of shape dims,
// [N, H, W, C]: [N·h·w, k].
func (t *tape) table(w window, out [2]int64, dims []int64) *value {
	n, height, width := dims[0], dims[1], dims[2]
	ramp := func(axis int, count, step int64) *value {
		dims := []int64{1, 1, 1, 1, 1}
		dims[axis] = count
		return build(onnx.Int32, dims, func(i []int64) float64 { return float64(i[axis] * step) })
	}
	// The sum is left to the runtime, which does it once, for the model's size.
	at := ramp(0, n, height*width)
	at = t.emit("Add", onnx.Int32, []int64{n, out[0], 1, 1, 1}, []*value{at, ramp(1, out[0], w.strides[0]*width)})
	at = t.emit("Add", onnx.Int32, []int64{n, out[0], out[1], 1, 1}, []*value{at, ramp(2, out[1], w.strides[1])})
	taps := t.add(ramp(3, w.kernel[0], w.dilations[0]*width), ramp(4, w.kernel[1], w.dilations[1]))
	at = t.emit("Add", onnx.Int32, []int64{n, out[0], out[1], w.kernel[0], w.kernel[1]}, []*value{at, taps})
	return t.reshape(at, []int64{n * out[0] * out[1], w.kernel[0] * w.kernel[1]})
}

// fromTaps turns [O, k·C/groups], tap by tap, into weights.
func (t *tape) fromTaps(c convolution, dw *value) *value {
	dw = t.reshape(dw, []int64{c.w[0], c.kernel[0] * c.kernel[1], c.w[1]})
	return t.reshape(t.transpose(dw, 0, 2, 1), c.w[:])
}

// padded is the image as the windows see it, channels last.
func (t *tape) padded(c convolution, x *value) *value {
	return t.pad(t.channelsLast(x), []int64{0, c.before[0], c.before[1], 0}, []int64{0, c.after[0], c.after[1], 0})
}

// convWeightPatches multiplies dY, as one matrix, with the patches of X.
func convWeightPatches(t *tape, c convolution, x, dy *value) *value {
	rows, seen := t.rowsOf(dy), t.patches(c.window, c.out(), t.padded(c, x))
	if c.groups == 1 {
		return t.fromTaps(c, t.matmul(rows, seen))
	}
	m, k, g, in := seen.dims[0], c.kernel[0]*c.kernel[1], c.groups, c.w[1]
	seen = t.transpose(t.reshape(seen, []int64{m, k, g, in}), 2, 0, 1, 3)
	dw := t.matmul(t.reshape(rows, []int64{g, c.w[0] / g, m}), t.reshape(seen, []int64{g, m, k * in}))
	return t.fromTaps(c, dw)
}

// convWeightSlices cuts the patches out as shifted slices of X, one per tap.
func convWeightSlices(t *tape, c convolution, x, dy *value) *value {
	x = t.padded(c, x)
	out := c.out()
	var taps []*value
	for i := range c.kernel[0] {
		for j := range c.kernel[1] {
			starts, ends := c.tap(i, j, out)
			seen := t.slices(x, []int64{1, 2}, starts, ends, c.strides[:])
			taps = append(taps, t.reshape(seen, []int64{c.x[0] * out[0] * out[1], c.x[1]}))
		}
	}
	return t.fromTaps(c, t.matmul(t.rowsOf(dy), t.concat(1, taps...)))
}

// convWeightDepth, for strides above 1, first moves each s×s block of pixels
// into channels, which makes the stride 1, the kernel smaller and the runs that
// patches copies longer.
func convWeightDepth(t *tape, c convolution, x, dy *value) *value {
	n, ch, s, out := c.x[0], c.x[1], c.strides, c.out()
	var k, size, after [2]int64
	for i := range 2 {
		k[i] = (c.kernel[i] + s[i] - 1) / s[i]
		size[i] = out[i] + k[i] - 1
		after[i] = s[i]*size[i] - c.x[2+i] - c.before[i]
	}
	x = t.pad(x, []int64{0, 0, c.before[0], c.before[1]}, []int64{0, 0, after[0], after[1]})
	x = t.reshape(x, []int64{n, ch, size[0], s[0], size[1], s[1]})
	x = t.reshape(t.transpose(x, 0, 2, 4, 3, 5, 1), []int64{n, size[0], size[1], s[0] * s[1] * ch})
	small := window{kernel: k, strides: [2]int64{1, 1}, dilations: [2]int64{1, 1}}
	dw := t.matmul(t.rowsOf(dy), t.patches(small, out, x))
	dw = t.reshape(dw, []int64{c.w[0], k[0], k[1], s[0], s[1], ch})
	dw = t.reshape(t.transpose(dw, 0, 5, 1, 3, 2, 4), []int64{c.w[0], ch, k[0] * s[0], k[1] * s[1]})
	return t.slices(dw, []int64{2, 3}, []int64{0, 0}, c.kernel[:], []int64{1, 1})
}

// convWeightImages multiplies image by image and adds up.
func convWeightImages(t *tape, c convolution, x, dy *value) *value {
	x = t.pad(x, []int64{0, 0, c.before[0], c.before[1]}, []int64{0, 0, c.after[0], c.after[1]})
	n, ch, out := c.x[0], c.x[1], c.out()
	var taps []*value
	for i := range c.kernel[0] {
		for j := range c.kernel[1] {
			starts, ends := c.tap(i, j, out)
			seen := t.slices(x, []int64{2, 3}, starts, ends, c.strides[:])
			taps = append(taps, t.reshape(seen, []int64{n, ch, out[0] * out[1]}))
		}
	}
	rows := t.reshape(dy, []int64{n, c.w[0], out[0] * out[1]})
	dw := t.matmul(rows, t.swap(t.concat(1, taps...)))
	dw = t.reduce("ReduceSum", dw, []int64{0}, false) // [O, k·C]
	dw = t.reshape(dw, []int64{c.w[0], int64(len(taps)), ch})
	return t.reshape(t.transpose(dw, 0, 2, 1), c.w[:])
}

// convWeightConv is a convolution of X with dY as the kernels, where channels
// and images have changed places.
func convWeightConv(t *tape, c convolution, x, dy *value) *value {
	big := window{kernel: c.out(), strides: c.dilations, dilations: c.strides, before: c.before}
	var after [2]int64
	for i := range 2 {
		// The output is to have the kernel's size.
		after[i] = (c.kernel[i]-1)*c.dilations[i] + (c.y[2+i]-1)*c.strides[i] + 1 - c.x[2+i] - c.before[i]
		big.after[i] = max(after[i], 0)
	}
	x = t.pad(x, make([]int64, 4), []int64{0, 0, min(after[0], 0), min(after[1], 0)})
	dw := t.emit("Conv", x.dtype, []int64{c.w[1], c.w[0], c.kernel[0], c.kernel[1]},
		[]*value{t.transpose(x, 1, 0, 2, 3), t.transpose(dy, 1, 0, 2, 3)}, append(big.attrs(), onnx.Int("group", 1))...)
	return t.transpose(dw, 1, 0, 2, 3)
}
