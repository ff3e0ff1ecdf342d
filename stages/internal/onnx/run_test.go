package onnx_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

// run loads m in ONNX Runtime and returns the named outputs for a batch of n
// images filled by fill.
func run(t *testing.T, m *onnx.Model, n int64, fill func(*ort.Tensor), outputs ...string) [][]float32 {
	t.Helper()
	rt := orttest.Open(t)
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := m.SaveWithData(path); err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(path, ort.Options{Outputs: outputs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dims := []int64{n}
	for _, d := range m.Inputs()[0].Shape[1:] {
		dims = append(dims, d.Size)
	}
	slot, err := s.NewSlot(context.Background(), dims)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	fill(slot.Inputs[0])
	if err := s.Run(context.Background(), slot); err != nil {
		t.Fatal(err)
	}
	var values [][]float32
	for _, o := range slot.Outputs {
		values = append(values, append([]float32(nil), o.Float32()...))
	}
	return values
}

// noise fills an input with values in [0, 1), or 0 to 255 for uint8.
func noise(seed uint64) func(*ort.Tensor) {
	return func(in *ort.Tensor) {
		r := rand.New(rand.NewPCG(seed, 0))
		for i := range in.Float32() {
			in.Float32()[i] = r.Float32()
		}
		for i := range in.Uint8() {
			in.Uint8()[i] = uint8(r.Uint32())
		}
		wide := make([]float32, len(in.Float16()))
		for i := range wide {
			wide[i] = r.Float32()
		}
		ort.EncodeFloat16(in.Float16(), wide)
	}
}

// logSoftmax is the definition, in float64.
func logSoftmax(row []float32) []float64 {
	peak, sum := math.Inf(-1), 0.
	for _, x := range row {
		peak = max(peak, float64(x))
	}
	for _, x := range row {
		sum += math.Exp(float64(x) - peak)
	}
	out := make([]float64, len(row))
	for i, x := range row {
		out[i] = float64(x) - peak - math.Log(sum)
	}
	return out
}

// Whatever a classifier takes and puts out, its appended outputs are the
// log-probabilities of its logits.
func TestRunLogProbs(t *testing.T) {
	for _, kind := range []onnx.OutputKind{onnx.Logits, onnx.Probabilities, onnx.LogProbabilities} {
		for _, c := range []onnxtest.Classifier{
			{Clusters: []int{5, 3}},
			{Clusters: []int{4, 4, 4}, Stacked: true, External: "w.bin"},
			{DType: onnx.Uint8, NHWC: true, OutputDType: onnx.Float16, Batch: 6},
			{DType: onnx.Float16, Stacked: true, OutputDType: onnx.Float16, Clusters: []int{7, 7}},
		} {
			c.Kind = kind
			t.Run(fmt.Sprintf("%s/%v→%v stacked %v", kind, c.DType, c.OutputDType, c.Stacked), func(t *testing.T) {
				path := onnxtest.Write(t, t.TempDir(), "m.onnx", c)
				m, err := onnx.Load(path)
				if err != nil {
					t.Fatal(err)
				}
				heads, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: kind})
				if err != nil {
					t.Fatal(err)
				}
				for i, h := range heads {
					out := run(t, m, 6, noise(1), h.Output, h.Source)
					got, source, stride := out[0], out[1], len(out[1])/6
					for row := range 6 {
						from := row*stride + h.Index*h.Clusters
						raw := source[from : from+h.Clusters]
						want := logSoftmax(raw)
						if kind != onnx.Logits {
							for j, x := range raw {
								want[j] = float64(x)
								if kind == onnx.Probabilities {
									want[j] = math.Log(float64(x))
								}
							}
						}
						sum := 0.
						for j, w := range want {
							g := float64(got[row*h.Clusters+j])
							sum += math.Exp(g)
							if math.Abs(g-w) > 1e-5 {
								t.Fatalf("head %d, row %d: log-probability %d is %g, want %g", i, row, j, g, w)
							}
						}
						// Half-precision probabilities are off by up to 2⁻¹¹ each.
						if math.Abs(sum-1) > 1e-2 || kind == onnx.Logits && math.Abs(sum-1) > 1e-5 {
							t.Errorf("head %d, row %d: probabilities sum to %g", i, row, sum)
						}
					}
				}
			})
		}
	}
}

func TestRunOldModels(t *testing.T) {
	for name, features := range map[string]string{"plain-7": "hidden", "stacked-11": "z"} {
		m := load(t, name)
		heads, err := m.AppendLogProbs(onnx.HeadsSpec{Kind: onnx.Logits})
		if err != nil {
			t.Fatal(err)
		}
		v, err := m.AppendFeatures(features)
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, m, 3, noise(2), heads[len(heads)-1].Output, v.Name)
		for row := range 3 {
			sum := 0.
			for _, x := range out[0][row*5 : row*5+5] {
				sum += math.Exp(float64(x))
			}
			if math.Abs(sum-1) > 1e-5 {
				t.Errorf("%s: probabilities sum to %g", name, sum)
			}
		}
		if want := map[string]int{"hidden": 12, "z": 45}[features]; len(out[1]) != want {
			t.Errorf("%s: %d features, want %d", name, len(out[1]), want)
		}
	}
}

func TestRunNaNOnBlack(t *testing.T) {
	m, _ := onnxtest.Classifier{NaNOnBlack: true}.Build()
	plain, _ := onnxtest.Classifier{}.Build()
	half := func(in *ort.Tensor) {
		noise(3)(in)
		clear(in.Float32()[len(in.Float32())/2:])
	}
	got, want := run(t, m, 2, half)[0], run(t, plain, 2, half)[0]
	for i, x := range got {
		if i < 4 && x != want[i] || i >= 4 && x == x {
			t.Errorf("output %d is %g, want %g for the first image and NaN for the black one", i, x, want[i])
		}
	}
}

// Calibrated by one batch, every layer of the network normalises that batch;
// and the rows an untrained network gives then are not flat.
func TestRunCalibration(t *testing.T) {
	const n = 64
	m := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 128, Seed: 5})
	cal := calibration(t, m)
	if err := cal.Add(run(t, cal.Graph, n, smooth, cal.Output)[0]); err != nil {
		t.Fatal(err)
	}
	if err := cal.Apply(m); err != nil {
		t.Fatal(err)
	}
	probe := m.Clone()
	var layers []string
	for _, node := range m.Proto.Graph.Node {
		if node.GetOpType() == "BatchNormalization" {
			layers = append(layers, node.Output[0])
			onnx.Edit(probe).Output(onnx.Value{Name: node.Output[0], DType: onnx.Float32})
		}
	}
	channels := []int{64, 64, 64, 128, 128, 128, 256, 256, 256}
	for l, values := range run(t, probe, n, smooth, layers...) {
		c := channels[l]
		space := len(values) / n / c
		count := float64(n * space)
		for ch := range c {
			var sum, squares float64
			for i := range n {
				for _, x := range values[(i*c+ch)*space : (i*c+ch+1)*space] {
					sum += float64(x)
					squares += float64(x) * float64(x)
				}
			}
			mean := sum / count
			// The unbiased variance is 1/(n−1) above the batch's, a thousandth at
			// the last stage's 1,024 values, and compounds over the layers.
			if v := squares/count - mean*mean; math.Abs(mean) > 0.01 || math.Abs(v-1) > 0.02 {
				t.Fatalf("%s: channel %d has mean %g and variance %g", layers[l], ch, mean, v)
			}
		}
	}
	logits := run(t, m, n, smooth, "head_0")[0]
	var between float64 // variance of a cluster's logit between images
	for k := range 128 {
		var sum, squares float64
		for i := range n {
			x := float64(logits[i*128+k])
			sum += x / n
			squares += x * x / n
		}
		between += (squares - sum*sum) / 128
	}
	if between < 0.01 {
		t.Errorf("logits vary by %g (variance) between images: rows are flat", between)
	}
}

// smooth fills a batch with random gratings, which differ as photographs do.
func smooth(in *ort.Tensor) {
	r := rand.New(rand.NewPCG(9, 9))
	size := int(in.Dims[2])
	pixels := in.Float32()
	for len(pixels) > 0 {
		fx, fy, phase := r.NormFloat64()*0.5, r.NormFloat64()*0.5, r.Float64()*6
		for c := range 3 {
			gain, offset := r.NormFloat64(), r.NormFloat64()
			for y := range size {
				for x := range size {
					pixels[y*size+x] = float32(offset + gain*math.Sin(fx*float64(x)+fy*float64(y)+phase+float64(c)))
				}
			}
			pixels = pixels[size*size:]
		}
	}
}
