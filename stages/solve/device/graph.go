package device

import (
	"fmt"
	"math"

	"sela/stages/internal/onnx"
)

// shape is the layout of the rows on the device: tiles of rows rows and
// clusters columns, row-major, the last one filled up with rows of zeros.
type shape struct{ rows, clusters int64 }

// bytes is the size of a tile of float32.
func (s shape) bytes() int64 { return 4 * s.rows * s.clusters }

// Inputs of a graph, in the order of evaluate.go's run. A streamed graph takes
// its tiles as one more.
const (
	inputTiles  = "tiles"   // float32 [T, rows, clusters]
	inputParams = "params"  // float64 [1, clusters+1]: v, then λ
	inputCount  = "count"   // float64 [T, 1]: rows of each tile that are rows
	inputShift  = "shift"   // float64 [T, rows, 1]: of parts.columns; [T, 1, 1] otherwise
	inputRows   = "rows"    // bool [1]: whether to compute this part
	inputLabels = "labels"  // bool [1]
	inputCols   = "columns" // bool [1]
)

// Outputs of a graph: float64, one element per tile and row or column, and
// [1, 1] of a part that was not asked for.
const (
	outMass   = "mass"   // [T, clusters]: Σ of the rows' shares
	outLSE    = "lse"    // [T, rows]
	outLabel  = "label"  // [T, rows]: lowest column with the largest score
	outMargin = "margin" // [T, rows]: the largest score less the second largest
	outSpan   = "span"   // [T, rows]: largest less smallest log p
	outMax    = "max"    // [T, 1, clusters]: m = max_i (score − shift)
	outSum    = "sum"    // [T, clusters]: Σ_i e^(score − shift − m)
)

var outputNames = []string{outMass, outLSE, outLabel, outMargin, outSpan, outMax, outSum}

// newGraph returns the graph of a pass over tiles, which are the external data
// of the file named data, or an input where data is "".
func newGraph(s shape, tiles int64, data string) *onnx.Model {
	b := onnx.NewBuilder("pass")
	if data == "" {
		b.Input(onnx.Value{Name: inputTiles, DType: onnx.Float32, Shape: sizes(0, s.rows, s.clusters)})
	} else {
		b.Const(inputTiles, onnx.ExternalFloats(data, tiles, s.rows, s.clusters))
	}
	b.Input(onnx.Value{Name: inputParams, DType: onnx.Float64, Shape: sizes(1, s.clusters+1)})
	b.Input(onnx.Value{Name: inputCount, DType: onnx.Float64, Shape: sizes(0, 1)})
	b.Input(onnx.Value{Name: inputShift, DType: onnx.Float64, Shape: sizes(0, 0, 1)})
	for _, flag := range []string{inputRows, inputLabels, inputCols} {
		b.Input(onnx.Value{Name: flag, DType: onnx.Bool, Shape: sizes(1)})
	}
	// One input for both, taken apart by a node: what a node made lies on the
	// device for all tiles, an input of the graph would be sent for each.
	split := b.Const("split", onnx.NewInts([]int64{s.clusters, 1}, 2))
	b.Nodes("Split", []string{"v", "lambda"}, []string{inputParams, split}, onnx.Int("axis", 1))
	part(b, inputRows, rowsBody(s), []string{inputTiles, inputCount}, outMass, outLSE)
	part(b, inputLabels, labelsBody(s), []string{inputTiles}, outLabel, outMargin, outSpan)
	part(b, inputCols, columnsBody(s), []string{inputTiles, inputShift}, outMax, outSum)
	return b.Model()
}

// part adds a part of a pass: body for one tile after the other, where the flag
// says so, and its outputs.
func part(b *onnx.Builder, flag string, body *onnx.Model, inputs []string, outputs ...string) {
	then, otherwise := onnx.NewBuilder(flag+"_then"), onnx.NewBuilder(flag+"_else")
	var stacked []string
	for _, out := range outputs {
		stacked = append(stacked, flag+"_then_"+out)
		otherwise.Node("Identity", flag+"_else_"+out, []string{"lambda"})
	}
	then.Nodes("Scan", stacked, inputs, onnx.Int("num_scan_inputs", int64(len(inputs))), onnx.Subgraph("body", body))
	for _, out := range outputs {
		then.Output(onnx.Value{Name: flag + "_then_" + out, DType: onnx.Float64})
		otherwise.Output(onnx.Value{Name: flag + "_else_" + out, DType: onnx.Float64})
	}
	b.Nodes("If", outputs, []string{flag}, onnx.Subgraph("then_branch", then.Model()), onnx.Subgraph("else_branch", otherwise.Model()))
	for _, out := range outputs {
		b.Output(onnx.Value{Name: out, DType: onnx.Float64})
	}
}

// body builds what is done with one tile. Its constants are its own and its
// values have its name as prefix.
type body struct {
	*onnx.Builder
	name string
	x    string // float32 [rows, clusters]
}

func newBody(name string, s shape) *body {
	b := &body{Builder: onnx.NewBuilder(name), name: name}
	b.x = b.Input(onnx.Value{Name: name + "_x", DType: onnx.Float32, Shape: sizes(s.rows, s.clusters)})
	return b
}

func (b *body) op(op string, inputs ...string) string {
	return b.Node(op, b.name+"_"+op, inputs)
}

func (b *body) constant(values []float64, dims ...int64) string {
	return b.Const(b.name+"_const", onnx.NewDoubles(values, dims...))
}

func (b *body) reduce(op, x string, axis int64) string {
	return b.Node(op, b.name+"_"+op, []string{x}, onnx.Ints("axes", axis), onnx.Int("keepdims", 1))
}

func (b *body) double(x string) string {
	return b.Node("Cast", b.name+"_double", []string{x}, onnx.Int("to", int64(onnx.Float64)))
}

// squeeze drops the second of two dimensions.
func (b *body) squeeze(x string) string {
	return b.op("Squeeze", x, b.Const(b.name+"_axis", onnx.NewInts([]int64{1}, 1)))
}

// output gives a value its name and type as an output of the tile.
func (b *body) output(name, value string, dims ...int64) {
	name = b.Node("Identity", b.name+"_"+name, []string{value})
	b.Output(onnx.Value{Name: name, DType: onnx.Float64, Shape: sizes(dims...)})
}

// scores are t_k = λ·log p_k + v_k: a product and a sum, each rounded, as in
// the solver's own kernels, so that labels and margins have the same bits.
func (b *body) scores() string {
	return b.op("Add", b.op("Mul", b.double(b.x), "lambda"), "v")
}

// rowsBody computes the rows' log-sum-exp and the column sums of their shares.
// Sums are products with vectors: those have one order of summation on every
// provider, reductions along rows need not.
func rowsBody(s shape) *onnx.Model {
	b := newBody("rows", s)
	count := b.Input(onnx.Value{Name: "rows_count", DType: onnx.Float64, Shape: sizes(1)})
	t := b.scores()
	top := b.reduce("ReduceMax", t, 1)
	w := b.op("Exp", b.op("Sub", t, top))
	sum := b.op("MatMul", w, b.constant(repeated(1, s.clusters), s.clusters))
	lse := b.op("Add", b.squeeze(top), b.op("Log", sum))
	present := b.op("Less", b.constant(counted(s.rows), s.rows), count)
	scale := b.op("Where", present, b.op("Reciprocal", sum), b.constant([]float64{0}, 1))
	b.output(outMass, b.op("MatMul", scale, w), s.clusters)
	b.output(outLSE, lse, s.rows)
	return b.Model()
}

// labelsBody computes what a certificate states of each row. The lowest column
// among equals is taken by its number, since ArgMax does not promise it on
// every provider.
func labelsBody(s shape) *onnx.Model {
	b := newBody("labels", s)
	t := b.scores()
	top := b.reduce("ReduceMax", t, 1)
	numbers := b.constant(counted(s.clusters), 1, s.clusters)
	none := b.constant([]float64{float64(s.clusters)}, 1, 1)
	label := b.reduce("ReduceMin", b.op("Where", b.op("Equal", t, top), numbers, none), 1)
	low := b.constant([]float64{math.Inf(-1)}, 1, 1)
	second := b.reduce("ReduceMax", b.op("Where", b.op("Equal", numbers, label), low, t), 1)
	span := b.op("Sub", b.double(b.reduce("ReduceMax", b.x, 1)), b.double(b.reduce("ReduceMin", b.x, 1)))
	b.output(outLabel, b.squeeze(label), s.rows)
	b.output(outMargin, b.squeeze(b.op("Sub", top, second)), s.rows)
	b.output(outSpan, b.squeeze(span), s.rows)
	return b.Model()
}

// columnsBody sums down columns in log domain. A row with shift +Inf adds
// nothing.
func columnsBody(s shape) *onnx.Model {
	b := newBody("columns", s)
	shift := b.Input(onnx.Value{Name: "columns_shift", DType: onnx.Float64, Shape: sizes(s.rows, 1)})
	t := b.op("Sub", b.scores(), shift)
	top := b.reduce("ReduceMax", t, 0)
	// A column of −Inf has a finite maximum here, lest −Inf − −Inf be NaN.
	finite := b.op("Max", top, b.constant([]float64{-math.MaxFloat64}, 1, 1))
	w := b.op("Exp", b.op("Sub", t, finite))
	b.output(outMax, top, 1, s.clusters)
	b.output(outSum, b.op("MatMul", b.constant(repeated(1, s.rows), s.rows), w), s.clusters)
	return b.Model()
}

// sizes returns dimensions, free ones for 0.
func sizes(dims ...int64) []onnx.Dim {
	all := make([]onnx.Dim, len(dims))
	for i, d := range dims {
		if all[i].Size = d; d == 0 {
			all[i].Name = fmt.Sprintf("free_%d", i)
		}
	}
	return all
}

func repeated(value float64, n int64) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = value
	}
	return all
}

// counted returns 0, 1, 2 … n−1.
func counted(n int64) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = float64(i)
	}
	return all
}
