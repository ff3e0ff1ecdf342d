package grad

import (
	"slices"

	"sela/stages/internal/onnx"
)

// Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray 2016, arXiv
// 1509.09308, section 4.1): four results of a 3×3 convolution from a tile of 4×4
// with 16 multiplications in the place of 36. Tiles, kernels and results are
// transformed by these matrices, from both sides.
var (
	winogradInput  = [][]float64{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}
	winogradKernel = [][]float64{{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}
	winogradOutput = [][]float64{{1, 1, 1, 0}, {0, 1, -1, -1}}
)

// winograd says whether the form of that name applies.
func (c convolution) winograd() bool {
	one := [2]int64{1, 1}
	return c.kernel == [2]int64{3, 3} && c.strides == one && c.dilations == one && c.groups == 1
}

// bothSides is the matrix that applies m to the rows and columns of a tile laid
// out as a column: the Kronecker product of m with itself.
func bothSides(m [][]float64) *value {
	rows, columns := int64(len(m)), int64(len(m[0]))
	return build(onnx.Float32, []int64{rows * rows, columns * columns}, func(i []int64) float64 {
		return m[i[0]/rows][i[1]/columns] * m[i[0]%rows][i[1]%columns]
	})
}

// byWinograd is the convolution of X with W, perhaps with a bias, as 16 products
// of matrices, for a few images at a time, whose tiles need not go through
// memory.
func (c convolution) byWinograd(t *tape, in []*value) *value {
	n, ch, o := c.x[0], c.x[1], c.w[0]
	var tiles, after [2]int64
	for i := range 2 {
		tiles[i] = (c.y[2+i] + 1) / 2
		after[i] = 2*tiles[i] + 2 - c.x[2+i] - c.before[i]
	}
	images := c.together(16 * tiles[0] * tiles[1] * max(ch, o))
	count := images * tiles[0] * tiles[1]
	x := t.pad(t.channelsLast(in[0]), []int64{0, c.before[0], c.before[1], 0}, []int64{0, after[0], after[1], 0})
	w := t.reshape(t.transpose(t.reshape(in[1], []int64{o, ch, 9}), 2, 1, 0), []int64{9, ch * o})
	w = t.reshape(t.matmul(bothSides(winogradKernel), w), []int64{16, ch, o})
	look := window{kernel: [2]int64{4, 4}, strides: [2]int64{2, 2}, dilations: [2]int64{1, 1}}
	table := t.transpose(t.table(look, tiles, append([]int64{images}, x.dims[1:]...)), 1, 0)
	into, back := bothSides(winogradInput), bothSides(winogradOutput)
	var parts []*value
	for _, x := range t.split(x, 0, slices.Repeat([]int64{images}, int(n/images))) {
		seen := t.gather(t.reshape(x, []int64{elements(x.dims) / ch, ch}), table, 0) // [16, tiles, C]
		seen = t.matmul(into, t.reshape(seen, []int64{16, count * ch}))
		y := t.matmul(t.reshape(seen, []int64{16, count, ch}), w) // [16, tiles, O]
		y = t.matmul(back, t.reshape(y, []int64{16, count * o}))
		y = t.transpose(t.reshape(y, []int64{2, 2, images, tiles[0], tiles[1], o}), 2, 5, 3, 0, 4, 1)
		parts = append(parts, t.reshape(y, []int64{images, o, 2 * tiles[0], 2 * tiles[1]}))
	}
	y := t.slices(t.concat(0, parts...), []int64{2, 3}, []int64{0, 0}, c.y[2:], []int64{1, 1})
	if len(in) > 2 {
		y = t.add(y, t.reshape(in[2], []int64{1, o, 1, 1}))
	}
	return y
}
