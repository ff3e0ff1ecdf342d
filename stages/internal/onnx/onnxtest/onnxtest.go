// Package onnxtest builds tiny classifiers for tests: small enough to write,
// load and run in milliseconds, and one for each way in which a user's model
// may differ from the plain case.
package onnxtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// Classifier is a linear classifier on the flattened input. Its zero value has
// one head of 4 logits on float32 images [N, 3, 8, 8].
type Classifier struct {
	Input    string // name of the input, "images" if empty
	Size     int64  // height and width, 8 if 0
	Channels int64  // 3 if 0
	Batch    int64  // fixed batch dimension; 0 leaves it free, named N
	NHWC     bool   // input [N, H, W, C] instead of [N, C, H, W]
	// DType of the input: Float32 (also if 0), Float16, or Uint8, whose values
	// are divided by 255.
	DType onnx.DType
	// OutputDType is Float32 (also if 0), Float16 or Float64.
	OutputDType onnx.DType
	Kind        onnx.OutputKind // Logits if empty
	Clusters    []int           // K of each head; one head of 4 if nil
	Stacked     bool            // one output [B, T, K], of equal K
	Hidden      int64           // width of a hidden layer, an inner value "hidden" [N, Hidden]; 0: none
	// NaNOnBlack makes every output NaN for an image whose input values are all
	// zero, and changes no other image's.
	NaNOnBlack bool
	// External puts the weights in this file beside the model, "" keeps them in.
	External string
	Seed     uint64 // of the weights, normally distributed with deviation 1/√(inputs)
}

func (c Classifier) withDefaults() Classifier {
	if c.Input == "" {
		c.Input = "images"
	}
	if c.Size == 0 {
		c.Size = 8
	}
	if c.Channels == 0 {
		c.Channels = 3
	}
	if c.DType == 0 {
		c.DType = onnx.Float32
	}
	if c.OutputDType == 0 {
		c.OutputDType = onnx.Float32
	}
	if c.Kind == "" {
		c.Kind = onnx.Logits
	}
	if c.Clusters == nil {
		c.Clusters = []int{4}
	}
	return c
}

// Write saves the classifier as name in dir, with its external data if any, and
// returns the model's path. A failure ends the test.
func Write(t testing.TB, dir, name string, c Classifier) string {
	t.Helper()
	m, data := c.Build()
	path := filepath.Join(dir, name)
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	if c.External != "" {
		if err := os.WriteFile(filepath.Join(dir, c.External), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Build returns the model and the content of its external file, which is nil
// unless External is set. The outputs are head_0, head_1, …, or "heads" where
// they are stacked.
func (c Classifier) Build() (*onnx.Model, []byte) {
	c = c.withDefaults()
	b := &build{Builder: onnx.NewBuilder("classifier"), spec: c, random: rand.New(rand.NewPCG(c.Seed, 1))}
	batch := onnx.Dim{Size: c.Batch}
	if c.Batch == 0 {
		batch.Name = "N"
	}
	hw := onnx.Dim{Size: c.Size}
	shape := []onnx.Dim{batch, {Size: c.Channels}, hw, hw}
	if c.NHWC {
		shape = []onnx.Dim{batch, hw, hw, {Size: c.Channels}}
	}
	x := b.Input(onnx.Value{Name: c.Input, DType: c.DType, Shape: shape})
	if c.DType != onnx.Float32 {
		x = b.cast(x, "input_float32", onnx.Float32)
	}
	if c.DType == onnx.Uint8 {
		x = b.Node("Div", "scaled", []string{x, b.Const("levels", onnx.NewTensor([]float32{255}))})
	}
	if c.NHWC {
		// Both layouts of one image give the same outputs.
		x = b.Node("Transpose", "nchw", []string{x}, onnx.Ints("perm", 0, 3, 1, 2))
	}
	x = b.Node("Flatten", "flat", []string{x}, onnx.Int("axis", 1))
	width := c.Channels * c.Size * c.Size
	flaw := ""
	if c.NaNOnBlack {
		peak := b.Node("ReduceMax", "peak", []string{b.Node("Abs", "", []string{x})}, onnx.Ints("axes", 1), onnx.Int("keepdims", 1))
		ratio := b.Node("Div", "ratio", []string{peak, peak}) // 1, or 0/0
		flaw = b.Node("Sub", "flaw", []string{ratio, b.Const("one", onnx.NewTensor([]float32{1}))})
	}
	if c.Hidden > 0 {
		x = b.Node("Tanh", "hidden", []string{b.linear("hidden", x, width, c.Hidden)})
		b.Describe(onnx.Value{Name: x, DType: onnx.Float32, Shape: []onnx.Dim{batch, {Size: c.Hidden}}})
		width = c.Hidden
	}
	var heads []string
	for i, k := range c.Clusters {
		name := "head_" + strconv.Itoa(i)
		y := b.linear(name, x, width, int64(k))
		if flaw != "" {
			y = b.Node("Add", name+".flawed", []string{y, flaw})
		}
		heads = append(heads, b.finish(name, y))
	}
	if !c.Stacked {
		for i, y := range heads {
			b.Output(onnx.Value{Name: y, DType: c.OutputDType, Shape: []onnx.Dim{batch, {Size: int64(c.Clusters[i])}}})
		}
		return b.Model(), b.data
	}
	axis := b.Const("head_axis", onnx.NewInts([]int64{1}, 1))
	for i, y := range heads {
		heads[i] = b.Node("Unsqueeze", "", []string{y, axis})
	}
	y := b.Node("Concat", "heads", heads, onnx.Int("axis", 1))
	b.Output(onnx.Value{Name: y, DType: c.OutputDType, Shape: []onnx.Dim{batch, {Size: int64(len(heads))}, {Size: int64(c.Clusters[0])}}})
	return b.Model(), b.data
}

type build struct {
	*onnx.Builder
	spec   Classifier
	random *rand.Rand
	data   []byte // of the external file
}

func (b *build) cast(x, out string, d onnx.DType) string {
	return b.Node("Cast", out, []string{x}, onnx.Int("to", int64(d)))
}

func (b *build) linear(name, x string, in, out int64) string {
	values := make([]float32, in*out)
	for i := range values {
		values[i] = float32(b.random.NormFloat64() / math.Sqrt(float64(in)))
	}
	w := b.weight(name+".weight", onnx.NewTensor(values, in, out))
	return b.Node("MatMul", name+".product", []string{x, w})
}

// weight adds t, in the external file where there is one.
func (b *build) weight(name string, t *onnxpb.TensorProto) string {
	if b.spec.External != "" {
		offset := len(b.data)
		b.data = append(b.data, t.RawData...)
		t.DataLocation = onnxpb.TensorProto_EXTERNAL.Enum()
		t.ExternalData = []*onnxpb.StringStringEntryProto{
			{Key: proto.String("location"), Value: proto.String(b.spec.External)},
			{Key: proto.String("offset"), Value: proto.String(strconv.Itoa(offset))},
			{Key: proto.String("length"), Value: proto.String(strconv.Itoa(len(t.RawData)))},
		}
		t.RawData = nil
	}
	return b.Const(name, t)
}

// finish turns logits into what the outputs are to be. The last node's output
// has the given name.
func (b *build) finish(name, y string) string {
	last := b.spec.OutputDType == onnx.Float32
	out := name
	if !last {
		out = name + ".float32"
	}
	switch b.spec.Kind {
	case onnx.Logits:
		y = b.Node("Identity", out, []string{y})
	case onnx.Probabilities:
		y = b.Node("Softmax", out, []string{y}, onnx.Int("axis", 1))
	case onnx.LogProbabilities:
		y = b.Node("LogSoftmax", out, []string{y}, onnx.Int("axis", 1))
	default:
		panic(fmt.Sprintf("onnxtest: kind %q", b.spec.Kind))
	}
	if last {
		return y
	}
	return b.cast(y, name, b.spec.OutputDType)
}
