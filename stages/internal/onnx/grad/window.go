package grad

import (
	"fmt"
	"slices"

	"sela/stages/internal/onnx"
)

// window is how a convolution or a pooling looks at an image: height first,
// then width. It is comparable.
type window struct {
	kernel, strides, dilations [2]int64
	before, after              [2]int64 // pads, possibly one more at the end than the model says
}

// String is part of the keys of [Forms].
func (w window) String() string {
	return fmt.Sprintf("k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d", w.kernel[0], w.kernel[1], w.strides[0], w.strides[1],
		w.before[0], w.before[1], w.after[0], w.after[1], w.dilations[0], w.dilations[1])
}

// extent is the distance from a window's first tap to past its last.
func (w window) extent(i int) int64 { return (w.kernel[i]-1)*w.dilations[i] + 1 }

// reach is the number of padded elements that the windows for out results read.
func (w window) reach(i int, out int64) int64 { return (out-1)*w.strides[i] + w.extent(i) }

// attrs are the window's attributes.
func (w window) attrs() []onnx.Attr {
	return []onnx.Attr{
		onnx.Ints("kernel_shape", w.kernel[:]...), onnx.Ints("strides", w.strides[:]...),
		onnx.Ints("dilations", w.dilations[:]...), onnx.Ints("pads", w.before[0], w.before[1], w.after[0], w.after[1]),
	}
}

// window reads the attributes of a convolution or pooling of images of shape
// [N, C, H, W] and returns the output's height and width. kernel is that of the
// weights, nil where the attribute must say.
func (n *node) window(dims, kernel []int64) (window, [2]int64) {
	if len(dims) != 4 {
		fail("an input of shape %v: only [N, C, H, W] is supported", dims)
	}
	pair := func(name string, otherwise int64) [2]int64 {
		list := n.ints(name)
		if list == nil {
			return [2]int64{otherwise, otherwise}
		}
		if len(list) != 2 || min(list[0], list[1]) < 1 || max(list[0], list[1]) > 1<<16 {
			fail("attribute %s is %v", name, list)
		}
		return [2]int64{list[0], list[1]}
	}
	w := window{kernel: pair("kernel_shape", 0), strides: pair("strides", 1), dilations: pair("dilations", 1)}
	if kernel != nil {
		if w.kernel[0] != 0 && !slices.Equal(w.kernel[:], kernel) {
			fail("attribute kernel_shape is %v, the weights' is %v", w.kernel, kernel)
		}
		w.kernel = [2]int64{kernel[0], kernel[1]}
	}
	if min(w.kernel[0], w.kernel[1]) < 1 || w.kernel[0] > maxWindow || w.kernel[1] > maxWindow || w.kernel[0]*w.kernel[1] > maxWindow {
		fail("a window of %v", w.kernel)
	}
	pads := n.ints("pads")
	mode, ceil := n.text("auto_pad", "NOTSET"), n.int("ceil_mode", 0) != 0
	var out [2]int64
	for i := range 2 {
		size := dims[2+i]
		switch mode {
		case "NOTSET", "":
			if pads != nil {
				if len(pads) != 4 || slices.Min(pads) < 0 || slices.Max(pads) > 1<<16 {
					fail("attribute pads is %v", pads)
				}
				w.before[i], w.after[i] = pads[i], pads[2+i]
			}
		case "VALID":
		case "SAME_UPPER", "SAME_LOWER":
			total := max(w.reach(i, (size-1)/w.strides[i]+1)-size, 0)
			w.before[i], w.after[i] = total/2, total-total/2
			if mode == "SAME_LOWER" {
				w.before[i], w.after[i] = w.after[i], w.before[i]
			}
		default:
			fail("attribute auto_pad is %q", mode)
		}
		room := size + w.before[i] + w.after[i] - w.extent(i)
		if room < 0 || size < 1 {
			fail("a window of %v does not fit into shape %v", w.kernel, dims)
		}
		out[i] = room/w.strides[i] + 1
		if ceil && room%w.strides[i] != 0 && out[i]*w.strides[i] < size+w.before[i] {
			out[i]++ // the last window starts inside the image
		}
	}
	return w, out
}

// tap is the first element that the tap (i, j) of the windows reads, and the
// end of what it reads, of an image padded by before.
func (w window) tap(i, j int64, out [2]int64) (starts, ends []int64) {
	for a, k := range [2]int64{i, j} {
		start := k * w.dilations[a]
		starts = append(starts, start)
		ends = append(ends, start+(out[a]-1)*w.strides[a]+1)
	}
	return starts, ends
}

// spreadBack adds up, for each element of an image of the given height and
// width, what dy holds for the windows over it, each weighted by the tap it was
// seen through: a transposed convolution of dy [N, O, h, w] with weights
// [O, C/groups, kh, kw].
func (t *tape) spreadBack(w window, size [2]int64, dy, weights *value, groups int64) *value {
	var extra [2]int64
	end := w.after
	for i := range 2 {
		// What the windows reach must be the image and its pads; where they leave a
		// rest, it is filled up.
		over := w.reach(i, dy.dims[2+i]) - size[i] - w.before[i]
		end[i], extra[i] = max(over, 0), max(-over, 0)
	}
	dims := []int64{dy.dims[0], weights.dims[1] * groups, size[0], size[1]}
	// ONNX asks for less to be filled up than one stride; more is zeros.
	room := [2]int64{}
	for i := range 2 {
		if most := max(w.strides[i], w.dilations[i]) - 1; extra[i] > most {
			room[i] = extra[i] - most
			extra[i] = most
			dims[2+i] -= room[i]
		}
	}
	y := t.emit("ConvTranspose", dy.dtype, dims, []*value{dy, weights},
		onnx.Ints("kernel_shape", w.kernel[:]...), onnx.Ints("strides", w.strides[:]...), onnx.Ints("dilations", w.dilations[:]...),
		onnx.Ints("pads", w.before[0], w.before[1], end[0], end[1]), onnx.Ints("output_padding", extra[:]...), onnx.Int("group", groups))
	return t.pad(y, make([]int64, 4), []int64{0, 0, room[0], room[1]})
}
