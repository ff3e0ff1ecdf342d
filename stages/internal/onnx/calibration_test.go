package onnx_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxtest"
)

func calibration(t testing.TB, m *onnx.Model) *onnx.Calibration {
	t.Helper()
	cal, err := onnx.NewCalibration(m)
	if err != nil {
		t.Fatal(err)
	}
	return cal
}

// batchStatistics is what a calibration graph with one layer of two channels
// puts out for values [n][2].
func batchStatistics(values [][2]float64) []float32 {
	var mean, dev [2]float64
	n := float64(len(values))
	for _, v := range values {
		for j := range v {
			mean[j] += v[j] / n
		}
	}
	for _, v := range values {
		for j := range v {
			dev[j] += (v[j] - mean[j]) * (v[j] - mean[j]) / n
		}
	}
	return []float32{float32(mean[0]), float32(mean[1]), float32(dev[0]), float32(dev[1]), float32(2 * n)}
}

// Statistics of uneven batches are those of all their values together.
func TestCalibrationPools(t *testing.T) {
	m := load(t, "norms-15")
	cal := calibration(t, m)
	r := rand.New(rand.NewPCG(1, 2))
	var all [2][][2]float64 // by layer
	for _, n := range []int{40, 7, 90, 1} {
		var out []float32
		for l := range all {
			shift := r.NormFloat64() * 5
			var batch [][2]float64
			for range n {
				batch = append(batch, [2]float64{r.NormFloat64()*3 + shift, r.NormFloat64() + 100})
			}
			all[l] = append(all[l], batch...)
			out = append(out, batchStatistics(batch)...)
		}
		if err := cal.Add(out); err != nil {
			t.Fatal(err)
		}
	}
	if err := cal.Apply(m); err != nil {
		t.Fatal(err)
	}
	bn := m.Proto.Graph.Node
	for l, node := range []int{0, 2} {
		want := batchStatistics(all[l])
		unbiased := float64(len(all[l])) / float64(len(all[l])-1)
		for i, name := range bn[node].Input[3:5] {
			got, err := m.Floats(name)
			if err != nil {
				t.Fatal(err)
			}
			for j := range got {
				w := float64(want[2*i+j])
				if i == 1 {
					w *= unbiased
				}
				if math.Abs(float64(got[j])-w) > 1e-5*math.Abs(w) {
					t.Errorf("layer %d, %s[%d] = %g, want %g", l, name, j, got[j], w)
				}
			}
		}
	}
	// The layers shared their statistics, and with scale and bias; those stay.
	for name, want := range map[string][]float32{"one": {1, 1}, "zero": {0, 0}} {
		if got, err := m.Floats(name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s = %v, %v; want %v", name, got, err, want)
		}
	}
	orderIsValid(t, m)
	count := len(m.Proto.Graph.Initializer)
	if err := cal.Apply(m); err != nil || len(m.Proto.Graph.Initializer) != count {
		t.Errorf("applied again: %v, %d initialisers, want %d", err, len(m.Proto.Graph.Initializer), count)
	}
}

func TestCalibrationGraph(t *testing.T) {
	m := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 4})
	before := encode(t, m)
	cal := calibration(t, m)
	if string(before) != string(encode(t, m)) {
		t.Error("preparing a calibration changed the model")
	}
	orderIsValid(t, cal.Graph)
	out := cal.Graph.Proto.Graph.Output
	// Mean and variance of 64·3 + 128·3 + 256·3 channels, and 9 counts.
	if v := out[len(out)-1]; v.GetName() != cal.Output || v.GetType().GetTensorType().GetShape().GetDim()[0].GetDimValue() != 2*1344+9 {
		t.Errorf("output %v", v)
	}
	for _, n := range cal.Graph.Proto.Graph.Node {
		if n.GetOpType() == "BatchNormalization" && strings.Contains(n.Input[3]+n.Input[4], "running") {
			t.Errorf("%s still reads its running statistics", n.GetName())
		}
	}
}

func TestCalibrationRefuses(t *testing.T) {
	plain, _ := onnxtest.Classifier{}.Build()
	if _, err := onnx.NewCalibration(plain); !errors.Is(err, onnx.ErrNoBatchNorm) {
		t.Errorf("without BatchNormalization: %v", err)
	}
	for name, change := range map[string]func(m *onnx.Model){
		"training mode":   func(m *onnx.Model) { n := m.Proto.Graph.Node[0]; n.Output = append(n.Output, "mean", "var") },
		"made by a node":  func(m *onnx.Model) { m.Proto.Graph.Node[2].Input[3] = "h" },
		"matrix":          func(m *onnx.Model) { m.Proto.Graph.Initializer[0].Dims = []int64{1, 2} },
		"uneven channels": func(m *onnx.Model) { m.Proto.Graph.Initializer[0].Dims = []int64{3} },
		"integers":        func(m *onnx.Model) { *m.Proto.Graph.Initializer[0].DataType = int32(onnx.Int64) },
	} {
		m := load(t, "norms-15")
		change(m)
		if _, err := onnx.NewCalibration(m); !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), "bn") {
			t.Errorf("%s: error %v, want ErrUnsupported naming the node", name, err)
		}
	}

	m := load(t, "norms-15")
	cal := calibration(t, m)
	if err := cal.Apply(m); err == nil {
		t.Error("applied without a batch")
	}
	good := slices.Repeat([]float32{1, 1, 2, 2, 20}, 2)
	nan := slices.Clone(good)
	nan[5] = float32(math.NaN())
	for name, bad := range map[string][]float32{"short": good[:9], "empty": slices.Repeat([]float32{0, 0, 0, 0, 0}, 2), "NaN": nan} {
		err := cal.Add(bad)
		if err == nil || name == "NaN" && !strings.Contains(err.Error(), "bn2") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := calibration(t, m).Add(good); err != nil {
		t.Error(err)
	}
	if err := cal.Apply(plain); err == nil {
		t.Error("applied to another model")
	}
}
