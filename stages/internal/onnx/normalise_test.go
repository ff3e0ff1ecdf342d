package onnx_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// statistics are means and deviations with which every rounding shows.
var statistics = [][2][3]float32{
	{{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}},
	{{0, 0, 0}, {1, 1, 1}},
	{{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}},
	{{0, 0.1, -0.3}, {1, 3.1415927, 1e-5}},
	{{1. / 3, 128. / 255, 1000}, {255, 7, 0.0039215689}},
}

// everyLevel are images [n, 16, 16, 3] in which each channel has each of the
// 256 levels once.
func everyLevel(n int) []byte {
	pix := make([]byte, n*16*16*3)
	for i := range pix {
		p, c := i/3%256, i%3
		pix[i] = byte(p*[3]int{1, 101, 55}[c] + 37*c + i/768)
	}
	return pix
}

// normalised is what a host makes of images of 256 pixels.
func normalised(pix []byte, s onnx.Normalisation) []float32 {
	out := make([]float32, len(pix))
	for i, x := range pix {
		c := i % 3
		v := float32(float32(x)/255) - s.Mean[c]
		v = float32(v) / s.Std[c]
		if s.ChannelsLast {
			out[i] = v
		} else {
			out[i/768*768+c*256+i/3%256] = v
		}
	}
	return out
}

// outputsOf runs a model on what fill puts into the named input.
func outputsOf(t *testing.T, m *onnx.Model, o ort.Optimization, input string, dims []int64, fill func(*ort.Tensor), others map[string][]float32) [][]float32 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := m.SaveWithData(path); err != nil {
		t.Fatal(err)
	}
	names, shapes := []string{input}, [][]int64{dims}
	for name, v := range others {
		names, shapes = append(names, name), append(shapes, []int64{int64(len(v))})
	}
	s, err := orttest.Open(t).NewSession(path, ort.Options{Inputs: names, Optimization: o})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	slot, err := s.NewSlot(context.Background(), shapes...)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	fill(slot.Inputs[0])
	for i, name := range names[1:] {
		copy(slot.Inputs[i+1].Float32(), others[name])
	}
	if err := s.Run(context.Background(), slot); err != nil {
		t.Fatal(err)
	}
	var all [][]float32
	for _, out := range slot.Outputs {
		all = append(all, slices.Clone(out.Float32()))
	}
	return all
}

// sameOnDevice holds m with the normalisation prepended, fed bytes, against m
// fed what the host makes of them: every output must have the same bits.
func sameOnDevice(t *testing.T, m *onnx.Model, s onnx.Normalisation, o ort.Optimization, n int, others map[string][]float32) {
	t.Helper()
	pix := everyLevel(n)
	host := normalised(pix, s)
	dims := []int64{int64(n), 3, 16, 16}
	if s.ChannelsLast {
		dims = []int64{int64(n), 16, 16, 3}
	}
	want := outputsOf(t, m, o, s.Input, dims, func(in *ort.Tensor) {
		copy(in.Float32(), host)
		if in.Float16() != nil {
			ort.EncodeFloat16(in.Float16(), host)
		}
	}, others)
	edited := m.Clone()
	in, err := edited.PrependNormalise(s)
	if err != nil {
		t.Fatal(err)
	}
	got := outputsOf(t, edited, o, in.Name, []int64{int64(n), 16, 16, 3}, func(in *ort.Tensor) { copy(in.Uint8(), pix) }, others)
	for i := range want {
		for j, w := range want[i] {
			if math.Float32bits(got[i][j]) != math.Float32bits(w) {
				t.Fatalf("%v/%v, optimisation %s: output %d, element %d of %d is %v, of the host's images %v", s.Mean, s.Std, o, i, j, len(want[i]), got[i][j], w)
			}
		}
	}
}

// onImages is a graph on images of 16×16 pixels; add makes its output of the
// input x, whose width is the number of its elements per image.
func onImages(d onnx.DType, batch onnx.Dim, last bool, add func(b *onnx.Builder, x string) (y string, shape []onnx.Dim)) *onnx.Model {
	b := onnx.NewBuilder("test")
	shape := []onnx.Dim{batch, {Size: 3}, {Size: 16}, {Size: 16}}
	if last {
		shape = []onnx.Dim{batch, {Size: 16}, {Size: 16}, {Size: 3}}
	}
	y, out := add(b, b.Input(onnx.Value{Name: "images", DType: d, Shape: shape}))
	if out == nil {
		out = shape
	}
	b.Output(onnx.Value{Name: y, DType: d, Shape: out})
	return b.Model()
}

func identity(b *onnx.Builder, x string) (string, []onnx.Dim) {
	return b.Node("Identity", "y", []string{x}), nil
}

// Every level of every channel becomes what the host makes of it.
func TestPrependNormalise(t *testing.T) {
	for _, d := range []onnx.DType{onnx.Float32, onnx.Float16} {
		for _, last := range []bool{false, true} {
			for _, batch := range []onnx.Dim{{}, {Name: "N"}, {Size: 2}} {
				m := onImages(d, batch, last, identity)
				for _, v := range statistics {
					if batch != (onnx.Dim{Name: "N"}) && v != statistics[0] {
						continue
					}
					sameOnDevice(t, m, onnx.Normalisation{Input: "images", Height: 16, Width: 16, ChannelsLast: last, Mean: v[0], Std: v[1]}, ort.OptimizeAll, 2, nil)
				}
			}
		}
	}
}

// ONNX Runtime joins nodes to the ones before and after them. Whatever follows
// the normalisation, it is not drawn into another rounding.
func TestPrependNormaliseIsNotFused(t *testing.T) {
	scalar := func(b *onnx.Builder, v float32) string { return b.Const("scalar", onnx.NewTensor([]float32{v})) }
	values := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(math.Sin(float64(i) + 1))
		}
		return v
	}
	batchNorm := func(b *onnx.Builder, x string) string {
		return b.Node("BatchNormalization", "", []string{x, b.Const("gain", onnx.NewTensor([]float32{1.1, 0.7, 3}, 3)), b.Const("shift", onnx.NewTensor([]float32{0.3, 0, -2}, 3)),
			b.Const("mean", onnx.NewTensor([]float32{0.1, 0.2, 0.3}, 3)), b.Const("variance", onnx.NewTensor([]float32{1, 2, 0.3}, 3))})
	}
	conv := func(b *onnx.Builder, x string, pads ...int64) string {
		return b.Node("Conv", "", []string{x, b.Const("w", onnx.NewTensor(values(8*27), 8, 3, 3, 3)), b.Const("bias", onnx.NewTensor(values(8), 8))}, onnx.Ints("pads", pads...))
	}
	of := func(c, h, w int64) []onnx.Dim { return []onnx.Dim{{Name: "N"}, {Size: c}, {Size: h}, {Size: w}} }
	for name, add := range map[string]func(b *onnx.Builder, x string) (string, []onnx.Dim){
		"conv": func(b *onnx.Builder, x string) (string, []onnx.Dim) { return conv(b, x, 0, 0, 0, 0), of(8, 14, 14) },
		"padded conv, relu": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			return b.Node("Relu", "", []string{conv(b, x, 1, 1, 1, 1)}), of(8, 16, 16)
		},
		"batch norm": func(b *onnx.Builder, x string) (string, []onnx.Dim) { return batchNorm(b, x), nil },
		"batch norm, conv": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			return conv(b, batchNorm(b, x), 0, 0, 0, 0), of(8, 14, 14)
		},
		"product": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			return b.Node("MatMul", "", []string{x, b.Const("w", onnx.NewTensor(values(16*5), 16, 5))}), of(3, 16, 5)
		},
		"scaled product": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			x = b.Node("Div", "", []string{x, scalar(b, 3)})
			return b.Node("MatMul", "", []string{x, b.Const("w", onnx.NewTensor(values(16*5), 16, 5))}), of(3, 16, 5)
		},
		"more arithmetic": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			x = b.Node("Div", "", []string{x, scalar(b, 3)})
			x = b.Node("Mul", "", []string{x, scalar(b, 0.3)})
			return b.Node("Add", "", []string{x, scalar(b, 0.1)}), nil
		},
		"back to levels": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			x = b.Node("Mul", "", []string{x, b.Const("std", onnx.NewTensor([]float32{0.229, 0.224, 0.225}, 3, 1, 1))})
			x = b.Node("Add", "", []string{x, b.Const("mean", onnx.NewTensor([]float32{0.485, 0.456, 0.406}, 3, 1, 1))})
			return b.Node("Mul", "", []string{x, scalar(b, 255)}), nil
		},
		"transposed": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			x = b.Node("Transpose", "", []string{x}, onnx.Ints("perm", 0, 2, 3, 1))
			return b.Node("Mul", "", []string{x, scalar(b, 0.3)}), of(16, 16, 3)
		},
		"norm over the width": func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			mean := b.Node("ReduceMean", "", []string{x}, onnx.Ints("axes", -1), onnx.Int("keepdims", 1))
			d := b.Node("Sub", "", []string{x, mean})
			square := b.Node("ReduceMean", "", []string{b.Node("Pow", "", []string{d, scalar(b, 2)})}, onnx.Ints("axes", -1), onnx.Int("keepdims", 1))
			return b.Node("Div", "", []string{d, b.Node("Sqrt", "", []string{b.Node("Add", "", []string{square, scalar(b, 1e-5)})})}), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := onImages(onnx.Float32, onnx.Dim{Name: "N"}, false, add)
			for i, v := range statistics[:2] { // the second gives ONNX Runtime the most to leave out
				levels := []ort.Optimization{ort.OptimizeAll}
				if i == 0 {
					levels = append(levels, ort.OptimizeExtended, ort.OptimizeBasic, ort.OptimizeNone)
				}
				for _, o := range levels {
					sameOnDevice(t, m, onnx.Normalisation{Input: "images", Height: 16, Width: 16, Mean: v[0], Std: v[1]}, o, 3, nil)
				}
			}
		})
	}
	m, err := onnx.NewNetwork("resnet-s", onnx.NetworkOptions{ImageSize: 16, Heads: 2, Clusters: 5, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	sameOnDevice(t, m, onnx.Normalisation{Input: "images", Height: 16, Width: 16, Mean: statistics[0][0], Std: statistics[0][1]}, ort.OptimizeAll, 4, nil)
}

// A float16 model sees values that were rounded once, though ONNX Runtime puts
// casts of its own round each of its nodes on a CPU.
func TestPrependNormaliseRoundsOnceToFloat16(t *testing.T) {
	m := onImages(onnx.Float16, onnx.Dim{Name: "N"}, false, func(b *onnx.Builder, x string) (string, []onnx.Dim) {
		wide := b.Node("Cast", "", []string{x}, onnx.Int("to", int64(onnx.Float32)))
		wide = b.Node("Mul", "", []string{wide, b.Const("k", onnx.NewTensor([]float32{1024, 1024, 1024}, 3, 1, 1))})
		return b.Node("Cast", "", []string{b.Node("Relu", "", []string{wide})}, onnx.Int("to", int64(onnx.Float16))), nil
	})
	for _, o := range []ort.Optimization{ort.OptimizeAll, ort.OptimizeNone} {
		for _, v := range statistics {
			sameOnDevice(t, m, onnx.Normalisation{Input: "images", Height: 16, Width: 16, Mean: v[0], Std: v[1]}, o, 2, nil)
		}
	}
	c, _ := onnxtest.Classifier{DType: onnx.Float16, Size: 16, NHWC: true, OutputDType: onnx.Float16}.Build()
	sameOnDevice(t, c, onnx.Normalisation{Input: "images", Height: 16, Width: 16, ChannelsLast: true, Mean: statistics[0][0], Std: statistics[0][1]}, ort.OptimizeAll, 2, nil)
}

// The nodes mean the same in every operator set, and in models so old that
// their constants must be inputs.
func TestPrependNormaliseVersions(t *testing.T) {
	for opset := int64(7); opset <= 22; opset++ {
		m := onImages(onnx.Float32, onnx.Dim{Name: "N"}, false, func(b *onnx.Builder, x string) (string, []onnx.Dim) {
			return b.Node("Mul", "", []string{x, b.Const("k", onnx.NewTensor([]float32{1.5}))}), nil
		})
		m.Proto.OpsetImport[0].Version = &opset
		if opset >= 20 {
			m.Proto.IrVersion = proto.Int64(9)
		}
		if opset < 9 {
			m.Proto.IrVersion = proto.Int64(3)
			b := onnx.Edit(m) // its constants are inputs, too
			m.Proto.Graph.Initializer = nil
			m.Proto.Graph.Node[0].Input[1] = b.Const("old", onnx.NewTensor([]float32{1.5}, 1))
		}
		sameOnDevice(t, m, onnx.Normalisation{Input: "images", Height: 16, Width: 16, Mean: statistics[3][0], Std: statistics[3][1]}, ort.OptimizeAll, 2, nil)
		before := len(m.Proto.Graph.Input)
		if _, err := m.PrependNormalise(onnx.Normalisation{Input: "images", Height: 16, Width: 16, Std: [3]float32{1, 1, 1}}); err != nil {
			t.Fatal(err)
		}
		if more := len(m.Proto.Graph.Input) - before; len(m.Inputs()) != 1 || opset < 9 && more != 3 || opset >= 9 && more != 0 {
			t.Errorf("operator set %d: %d inputs more, %d to feed", opset, more, len(m.Inputs()))
		}
	}
}

// Other inputs keep their places, and no name is used twice.
func TestPrependNormaliseNames(t *testing.T) {
	b := onnx.NewBuilder("test")
	scale := b.Input(onnx.Value{Name: "sela_scaled", DType: onnx.Float32, Shape: []onnx.Dim{{Size: 1}}})
	images := b.Input(onnx.Value{Name: "images", DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}, {}, {Name: "W"}}})
	offset := b.Input(onnx.Value{Name: "images_bytes", DType: onnx.Float32, Shape: []onnx.Dim{{Size: 1}}})
	b.Const("sela_mean", onnx.NewTensor([]float32{7}))
	x := b.Node("Mul", "sela_float32", []string{images, scale})
	y := b.Node("Add", "sela_planes", []string{x, offset})
	b.Output(onnx.Value{Name: y, DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: 3}, {Size: 16}, {Size: 16}}})
	m := b.Model()
	s := onnx.Normalisation{Input: "images", Height: 16, Width: 16, Mean: statistics[0][0], Std: statistics[0][1]}
	sameOnDevice(t, m, s, ort.OptimizeAll, 2, map[string][]float32{"sela_scaled": {3}, "images_bytes": {0.1}})
	in, err := m.PrependNormalise(s)
	if err != nil {
		t.Fatal(err)
	}
	var inputs []string
	for _, v := range m.Inputs() {
		inputs = append(inputs, v.String())
	}
	want := []string{"sela_scaled float32 [1]", "images_bytes_1 uint8 [N 16 16 3]", "images_bytes float32 [1]"}
	if !slices.Equal(inputs, want) || in.String() != want[1] {
		t.Errorf("inputs %q, returned %s; want %q", inputs, in, want)
	}
	// What was the input is still known by its name and type.
	if v, err := m.AppendFeatures("images"); err != nil || v.String() != "sela_features float32 [N ?]" {
		t.Errorf("features of the input: %s, %v", v, err)
	}
}

func TestPrependNormaliseRefuses(t *testing.T) {
	fits := onnx.Normalisation{Input: "images", Height: 8, Width: 8, Std: [3]float32{1, 1, 1}}
	for _, c := range []struct {
		name   string
		model  onnxtest.Classifier
		change func(*onnx.Model, *onnx.Normalisation)
		want   string // in the error
		is     error
	}{
		{"missing", onnxtest.Classifier{}, func(_ *onnx.Model, s *onnx.Normalisation) { s.Input = "x" }, "the model has images", nil},
		{"bytes", onnxtest.Classifier{DType: onnx.Uint8}, nil, "float32 or float16", onnx.ErrUnsupported},
		{"height", onnxtest.Classifier{}, func(_ *onnx.Model, s *onnx.Normalisation) { s.Height = 9 }, "8×9", nil},
		{"no size", onnxtest.Classifier{}, func(_ *onnx.Model, s *onnx.Normalisation) { s.Width = 0 }, "images", onnx.ErrUnsupported},
		{"layout", onnxtest.Classifier{NHWC: true}, nil, "channels last false", nil},
		{"channels", onnxtest.Classifier{Channels: 1}, nil, "images", nil},
		{"old operators", onnxtest.Classifier{}, func(m *onnx.Model, _ *onnx.Normalisation) { m.Proto.OpsetImport[0].Version = proto.Int64(6) }, "operator set 6", onnx.ErrUnsupported},
	} {
		m, _ := c.model.Build()
		s := fits
		if c.change != nil {
			c.change(m, &s)
		}
		before := encode(t, m)
		_, err := m.PrependNormalise(s)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if !bytes.Equal(before, encode(t, m)) {
			t.Errorf("%s: the model was changed", c.name)
		}
	}
}
