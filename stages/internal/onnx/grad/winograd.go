package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

// Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray 2016, arXiv
// 1509.09308, section 4.1): four results of a 3×3 convolution from a tile of 4×4
// with 16 multiplications in the place of 36. Tiles, kernels and results are
// transformed by these matrices, from both sides, and between the transforms are
// 16 products of matrices, [tiles, C]·[C, O].
var (
	winogradInput  = [][]float64{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}
	winogradKernel = [][]float64{{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}
	winogradOutput = [][]float64{{1, 1, 1, 0}, {0, 1, -1, -1}}
)

// winograd says whether the forms of that name apply.
func (c convolution) winograd() bool {
	one := [2]int64{1, 1}
	return c.kernel == [2]int64{3, 3} && c.strides == one && c.dilations == one && c.groups == 1
}

// winogradFirst says whether they are the default: with fewer channels the
// transforms take what the products save.
func (c convolution) winogradFirst() bool {
	return c.winograd() && min(c.w[0], c.w[1]) >= 64
}

// bothSides is the matrix that applies m to the rows and columns of a tile laid
// out as a column: the Kronecker product of m with itself.
func bothSides(m [][]float64) *value {
	rows, columns := int64(len(m)), int64(len(m[0]))
	return build(onnx.Float32, []int64{rows * rows, columns * columns}, func(i []int64) float64 {
		return m[i[0]/rows][i[1]/columns] * m[i[0]%rows][i[1]%columns]
	})
}

func transposed(m [][]float64) [][]float64 {
	out := make([][]float64, len(m[0]))
	for i := range out {
		for _, row := range m {
			out[i] = append(out[i], row[i])
		}
	}
	return out
}

// exchanged puts the last row in the place of the first and the first in that of
// the last.
func exchanged(m [][]float64) [][]float64 {
	m = slices.Clone(m)
	m[0], m[len(m)-1] = m[len(m)-1], m[0]
	return m
}

// winogradKernels are the transformed weights, [16, O, C].
func (t *tape) winogradKernels(c convolution, w *value) *value {
	u := t.gemm(bothSides(winogradKernel), t.reshape(w, []int64{c.w[0] * c.w[1], 9}), false, true, 1)
	return t.reshape(u, []int64{16, c.w[0], c.w[1]})
}

// byWinograd is the convolution of X with W, perhaps with a bias.
func (c convolution) byWinograd(t *tape, in []*value) *value {
	u := t.transpose(t.winogradKernels(c, in[1]), 0, 2, 1)
	y := t.winogradFilter(c, in[0], u, winogradInput, winogradOutput)
	if len(in) > 2 {
		y = t.add(y, t.reshape(in[2], []int64{1, c.w[0], 1, 1}))
	}
	return y
}

// convInputWinograd is the same for dY and the kernels turned round. Turning
// exchanges the first and the last row of winogradKernel, which the other
// matrices can do as well: the kernels are transformed as for Y, and their
// channels are in place.
func convInputWinograd(t *tape, c convolution, dy, w *value) *value {
	output := transposed(exchanged(transposed(winogradOutput)))
	return t.winogradFilter(c.back(), dy, t.winogradKernels(c, w), exchanged(winogradInput), output)
}

// tiling is how images are cut into tiles.
type tiling struct {
	tiles  [2]int64 // of an image
	after  [2]int64 // pads behind the image; before it they are the convolution's
	images int64    // to compute at a time, so that their tiles stay in the caches
	count  int64    // tiles of so many images
	table  *value   // [16, count]: the pixels of each tile
}

func (t *tape) tiling(c convolution) tiling {
	var l tiling
	var dims [2]int64
	for i := range 2 {
		l.tiles[i] = (c.y[2+i] + 1) / 2
		dims[i] = 2*l.tiles[i] + 2
		l.after[i] = dims[i] - c.x[2+i] - c.before[i]
	}
	each := l.tiles[0] * l.tiles[1]
	l.images = c.together(16 * each * max(c.w[0], c.w[1]))
	l.count = l.images * each
	look := window{kernel: [2]int64{4, 4}, strides: [2]int64{2, 2}, dilations: [2]int64{1, 1}}
	l.table = t.transpose(t.table(look, l.tiles, []int64{l.images, dims[0], dims[1], c.x[1]}), 1, 0)
	return l
}

// parts are the sizes of what is computed at a time.
func (l tiling) parts(c convolution) []int64 {
	return slices.Repeat([]int64{l.images}, int(c.x[0]/l.images))
}

// padded is images as the tiles see them, channels last.
func (l tiling) padded(t *tape, c convolution, x *value) *value {
	return t.pad(t.channelsLast(x), []int64{0, c.before[0], c.before[1], 0}, []int64{0, l.after[0], l.after[1], 0})
}

// transformed is the tiles of padded images by the matrix into, [16, count, C].
func (l tiling) transformed(t *tape, x, into *value) *value {
	ch := x.dims[3]
	seen := t.gather(t.reshape(x, []int64{elements(x.dims) / ch, ch}), l.table, 0)
	seen = t.matmul(into, t.reshape(seen, []int64{16, l.count * ch}))
	return t.reshape(seen, []int64{16, l.count, ch})
}

// winogradFilter convolves X with transformed kernels, [16, C, O].
func (t *tape) winogradFilter(c convolution, x, u *value, input, output [][]float64) *value {
	l, o := t.tiling(c), c.w[0]
	into, back := bothSides(input), bothSides(output)
	var parts []*value
	for _, x := range t.split(l.padded(t, c, x), 0, l.parts(c)) {
		y := t.matmul(l.transformed(t, x, into), u)
		y = t.matmul(back, t.reshape(y, []int64{16, l.count * o}))
		y = t.transpose(t.reshape(y, []int64{2, 2, l.images, l.tiles[0], l.tiles[1], o}), 2, 3, 0, 4, 1, 5)
		parts = append(parts, t.reshape(y, []int64{l.images, 2 * l.tiles[0], 2 * l.tiles[1], o}))
	}
	return t.channelsFirst(t.slices(t.concat(0, parts...), []int64{1, 2}, []int64{0, 0}, c.y[2:], []int64{1, 1}))
}

// convWeightWinograd goes back through the forward pass: the gradient of its
// products by the kernels, and from there to W. The tiles of X are made again,
// and not as in the forward pass, where a runtime would find that it has them
// already and keep four times the size of X until they are needed here.
func convWeightWinograd(t *tape, c convolution, x, dy *value) *value {
	l, ch, o := t.tiling(c), c.w[1], c.w[0]
	into, back := bothSides(winogradInput), bothSides(transposed(winogradOutput))
	xs, dys := t.split(x, 0, l.parts(c)), t.split(dy, 0, l.parts(c))
	var du *value
	for i := range xs {
		seen := l.transformed(t, l.padded(t, c, xs[i]), into)
		y := t.pad(t.channelsLast(dys[i]), make([]int64, 4), []int64{0, 2*l.tiles[0] - c.y[2], 2*l.tiles[1] - c.y[3], 0})
		y = t.transpose(t.reshape(y, []int64{l.images, l.tiles[0], 2, l.tiles[1], 2, o}), 2, 4, 0, 1, 3, 5)
		y = t.reshape(t.matmul(back, t.reshape(y, []int64{4, l.count * o})), []int64{16, l.count, o})
		part := t.matmul(t.swap(y), seen) // [16, O, C]
		if i == 0 {
			du = part
		} else {
			du = t.add(du, part)
		}
	}
	return t.reshape(t.gemm(t.reshape(du, []int64{16, o * ch}), bothSides(winogradKernel), true, false, 1), c.w[:])
}
