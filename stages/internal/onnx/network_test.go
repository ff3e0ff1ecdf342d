package onnx_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
)

func network(t testing.TB, name string, o onnx.NetworkOptions) *onnx.Model {
	t.Helper()
	m, err := onnx.NewNetwork(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNetworks(t *testing.T) {
	if got, want := onnx.Networks(), []string{"alexnet-big", "alexnet-s", "alexnet-small", "resnet-18", "resnet-18-s", "resnet-50", "resnet-s"}; !slices.Equal(got, want) {
		t.Errorf("networks %q, want %q", got, want)
	}
	for _, c := range []struct {
		name    string
		options onnx.NetworkOptions
		want    string
	}{
		// torchvision's resnet18 has 11,689,512 parameters with 1,000 classes.
		{"resnet-18", onnx.NetworkOptions{Heads: 1, Clusters: 1000},
			"[images float32 [N 3 224 224]] [head_0 float32 [N 1000]] 11689512 [{BatchNormalization 20} {Conv 20} {Relu 17} {Add 8} {Flatten 1} {Gemm 1} {GlobalAveragePool 1} {MaxPool 1}] conv1 [N 64 112 112] conv2 [N 64 56 56] conv3 [N 128 28 28] conv4 [N 256 14 14] conv5 [N 512 7 7] features [N 512]"},
		// The usual ResNet-18 for CIFAR-10 has 11,173,962.
		{"resnet-18-s", onnx.NetworkOptions{Heads: 1, Clusters: 10},
			"[images float32 [N 3 32 32]] [head_0 float32 [N 10]] 11173962 [{BatchNormalization 20} {Conv 20} {Relu 17} {Add 8} {Flatten 1} {Gemm 1} {GlobalAveragePool 1}] conv1 [N 64 32 32] conv2 [N 64 32 32] conv3 [N 128 16 16] conv4 [N 256 8 8] conv5 [N 512 4 4] features [N 512]"},
		// 23,454,912 in torchvision's resnet50 convolutions, 53,120 in its
		// normalisation, 2,049,000 in 1,000 classes.
		{"resnet-50", onnx.NetworkOptions{Heads: 1, Clusters: 1000},
			"[images float32 [N 3 224 224]] [head_0 float32 [N 1000]] 25557032 [{BatchNormalization 53} {Conv 53} {Relu 49} {Add 16} {Flatten 1} {Gemm 1} {GlobalAveragePool 1} {MaxPool 1}] conv1 [N 64 112 112] conv2 [N 256 56 56] conv3 [N 512 28 28] conv4 [N 1024 14 14] conv5 [N 2048 7 7] features [N 2048]"},
		// Convolutions 34,944 + 614,656 + 885,120 + 1,327,488 + 884,992,
		// normalisation 2 × 1,376, classifier 37,752,832 + 16,781,312, 3 heads
		// 12,291,000.
		{"alexnet-big", onnx.NetworkOptions{Heads: 3, Clusters: 1000},
			"[images float32 [N 3 224 224]] [head_0 float32 [N 1000] head_1 float32 [N 1000] head_2 float32 [N 1000]] 70575096 [{Relu 7} {BatchNormalization 5} {Conv 5} {Gemm 5} {MaxPool 3} {Dropout 2} {Flatten 1}] conv1 [N 96 55 55] conv2 [N 256 27 27] conv3 [N 384 13 13] conv4 [N 384 13 13] conv5 [N 256 13 13] features [N 4096]"},
		// Convolutions 23,296 + 307,392 + 663,936 + 884,992 + 590,080,
		// normalisation 2 × 1,152, classifier and heads as above.
		{"alexnet-small", onnx.NetworkOptions{Heads: 3, Clusters: 1000, ImageSize: 254},
			"[images float32 [N 3 254 254]] [head_0 float32 [N 1000] head_1 float32 [N 1000] head_2 float32 [N 1000]] 69297144 [{Relu 7} {BatchNormalization 5} {Conv 5} {Gemm 5} {MaxPool 3} {Dropout 2} {Flatten 1}] conv1 [N 64 62 62] conv2 [N 192 30 30] conv3 [N 384 14 14] conv4 [N 256 14 14] conv5 [N 256 14 14] features [N 4096]"},
		// Convolutions 1,728 + 55,296 + 110,592 + 147,456 + 294,912,
		// normalisation 2 × 672, a head of 2,570.
		{"alexnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 10},
			"[images float32 [N 3 32 32]] [head_0 float32 [N 10]] 613898 [{BatchNormalization 5} {Conv 5} {Relu 5} {MaxPool 3} {Flatten 1} {Gemm 1} {GlobalAveragePool 1}] conv1 [N 64 32 32] conv2 [N 96 16 16] conv3 [N 128 8 8] conv4 [N 128 8 8] conv5 [N 256 8 8] features [N 256]"},
		// The projection 65,792 + 512 + 32,896, prototypes 2 × 16,384.
		{"alexnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 128, ImageSize: 63, Head: onnx.CosineHead},
			"[images float32 [N 3 63 63]] [head_0 float32 [N 128] head_1 float32 [N 128]] 743296 [{BatchNormalization 6} {Relu 6} {Conv 5} {Mul 5} {Add 3} {Div 3} {MaxPool 3} {ReduceSum 3} {Sqrt 3} {Gemm 2} {MatMul 2} {Flatten 1} {GlobalAveragePool 1}] conv1 [N 64 63 63] conv2 [N 96 31 31] conv3 [N 128 15 15] conv4 [N 128 15 15] conv5 [N 256 15 15] features [N 256]"},
		{"resnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 128, Seed: 1},
			"[images float32 [N 3 32 32]] [head_0 float32 [N 128] head_1 float32 [N 128]] 1290816 [{BatchNormalization 9} {Conv 9} {Relu 7} {Add 3} {Gemm 2} {Flatten 1} {GlobalAveragePool 1}] conv1 [N 64 16 16] conv2 [N 64 16 16] conv3 [N 128 8 8] conv4 [N 256 4 4] features [N 256]"},
		{"resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 2, ImageSize: 65},
			"[images float32 [N 3 65 65]] [head_0 float32 [N 2]] 1225538 [{BatchNormalization 9} {Conv 9} {Relu 7} {Add 3} {Flatten 1} {Gemm 1} {GlobalAveragePool 1}] conv1 [N 64 33 33] conv2 [N 64 33 33] conv3 [N 128 17 17] conv4 [N 256 9 9] features [N 256]"},
	} {
		m := network(t, c.name, c.options)
		info, err := onnx.Inspect(m)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(info.Inputs, info.Outputs, info.Parameters, info.Ops)
		for _, v := range m.Proto.Graph.ValueInfo {
			got += " " + v.GetName() + " ["
			for i, d := range v.GetType().GetTensorType().GetShape().GetDim() {
				if i > 0 {
					got += " "
				}
				got += onnx.Dim{Size: d.GetDimValue(), Name: d.GetDimParam()}.String()
			}
			got += "]"
		}
		if got != c.want {
			t.Errorf("%s %+v:\n%s\nwant\n%s", c.name, c.options, got, c.want)
		}
		if info.Metadata["sela.network"] != c.name || m.Opset() != 17 || info.IRVersion != 8 {
			t.Errorf("%s: metadata %v, operator set %d, IR %d", c.name, info.Metadata, m.Opset(), info.IRVersion)
		}
		orderIsValid(t, m)
	}
}

// orderIsValid checks that every input of a node is known when it is reached
// and that no name is given twice.
func orderIsValid(t *testing.T, m *onnx.Model) {
	t.Helper()
	known := map[string]bool{}
	define := func(name string) {
		if known[name] {
			t.Errorf("%q is defined twice", name)
		}
		known[name] = true
	}
	g := m.Proto.Graph
	for _, v := range g.Input {
		define(v.GetName())
	}
	for _, w := range g.Initializer {
		if !known[w.GetName()] {
			define(w.GetName())
		}
	}
	for _, n := range g.Node {
		for _, in := range n.Input {
			if !known[in] {
				t.Errorf("node %q reads %q before it is made", n.GetName(), in)
			}
		}
		for _, out := range n.Output {
			define(out)
		}
	}
	for _, v := range g.Output {
		if !known[v.GetName()] {
			t.Errorf("output %q is never made", v.GetName())
		}
	}
}

// The weights of a seed are a contract: a run's identity hangs on them.
func TestNetworkBytes(t *testing.T) {
	sum := sha256.Sum256(encode(t, network(t, "resnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 16, Seed: 42})))
	if got := hex.EncodeToString(sum[:]); got != resnetSum {
		t.Errorf("resnet-s of seed 42 has sha256 %s, want %s", got, resnetSum)
	}
}

func TestNetworkWeights(t *testing.T) {
	m := network(t, "resnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 128, Seed: 7, HeadGain: 3})
	floats := func(m *onnx.Model, name string) []float32 {
		t.Helper()
		v, err := m.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, std := range map[string]float64{
		"conv1.weight":                 math.Sqrt(2. / (64 * 9)),
		"layer3.0.conv2.weight":        math.Sqrt(2. / (256 * 9)),
		"layer2.0.downsample.0.weight": math.Sqrt(2. / 128),
		"head_0.weight":                3 / math.Sqrt(256),
		"head_1.weight":                3 / math.Sqrt(256),
	} {
		checkSpread(t, name, floats(m, name), std)
	}
	cosine := network(t, "resnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 128, Seed: 7, Head: onnx.CosineHead})
	for name, std := range map[string]float64{
		"projection.0.weight": math.Sqrt(2. / 256),
		"projection.3.weight": 1. / 16,
		"head_1.weight":       math.Sqrt(1. / 128),
	} {
		checkSpread(t, name, floats(cosine, name), std)
	}
	if slices.Equal(floats(m, "head_0.weight"), floats(m, "head_1.weight")) {
		t.Error("both heads have the same weights")
	}
	for name, want := range map[string]float32{"head_1.bias": 0, "bn1.weight": 1, "bn1.bias": 0, "layer3.0.bn2.running_mean": 0, "layer3.0.bn2.running_var": 1} {
		for _, x := range floats(m, name) {
			if x != want {
				t.Errorf("%s holds %g, want %g", name, x, want)
			}
		}
	}
	other := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3, Seed: 7, ImageSize: 64})
	if !slices.Equal(floats(m, "layer2.0.conv1.weight"), floats(other, "layer2.0.conv1.weight")) {
		t.Error("the trunk depends on the heads")
	}
	if slices.Equal(floats(m, "conv1.weight"), floats(network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3, Seed: 8}), "conv1.weight")) {
		t.Error("the seed changes nothing")
	}
	if !bytes.Equal(encode(t, network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3})), encode(t, network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3, ImageSize: 32, HeadGain: 1}))) {
		t.Error("defaults are not 32 pixels and gain 1")
	}
}

// checkSpread fails unless v are draws from ±√3·std with a mean of 0.
func checkSpread(t *testing.T, name string, v []float32, std float64) {
	t.Helper()
	var sum, squares, peak float64
	for _, x := range v {
		sum += float64(x)
		squares += float64(x) * float64(x)
		peak = max(peak, math.Abs(float64(x)))
	}
	n := float64(len(v))
	// Six standard errors of the mean and of the variance of n uniform draws.
	if mean := sum / n; math.Abs(mean) > 6*std/math.Sqrt(n) {
		t.Errorf("%s: mean %g", name, mean)
	}
	if r := squares / n / (std * std); math.Abs(r-1) > 6*math.Sqrt(0.8/n) {
		t.Errorf("%s: variance is %g times the wanted", name, r)
	}
	if peak > math.Sqrt(3)*std*1.000001 {
		t.Errorf("%s: %g is outside the range of ±√3·%g", name, peak, std)
	}
}

func TestNetworkRefuses(t *testing.T) {
	good := onnx.NetworkOptions{Heads: 1, Clusters: 10}
	with := func(change func(*onnx.NetworkOptions)) onnx.NetworkOptions {
		o := good
		change(&o)
		return o
	}
	if _, err := onnx.NewNetwork("vgg", good); err == nil || !strings.Contains(err.Error(), "resnet-18, resnet-18-s, resnet-50, resnet-s") {
		t.Errorf("unknown network: %v", err)
	}
	for want, o := range map[string]onnx.NetworkOptions{
		"0 heads":             with(func(o *onnx.NetworkOptions) { o.Heads = 0 }),
		"1 clusters":          with(func(o *onnx.NetworkOptions) { o.Clusters = 1 }),
		"4 pixels":            with(func(o *onnx.NetworkOptions) { o.ImageSize = 4 }),
		"100000 pixels":       with(func(o *onnx.NetworkOptions) { o.ImageSize = 100000 }),
		"head gain NaN":       with(func(o *onnx.NetworkOptions) { o.HeadGain = math.NaN() }),
		"head gain -1":        with(func(o *onnx.NetworkOptions) { o.HeadGain = -1 }),
		"2 GiB":               with(func(o *onnx.NetworkOptions) { o.Heads, o.Clusters = 4096, 1<<20 }),
		"1073741824 clusters": with(func(o *onnx.NetworkOptions) { o.Clusters = 1 << 30 }),
		`kind "softmax"`:      with(func(o *onnx.NetworkOptions) { o.Head = "softmax" }),
		"no temperature":      with(func(o *onnx.NetworkOptions) { o.Temperature = 1 }),
		"no gain":             with(func(o *onnx.NetworkOptions) { o.Head, o.HeadGain = onnx.CosineHead, 1 }),
		"temperature -1":      with(func(o *onnx.NetworkOptions) { o.Head, o.Temperature = onnx.CosineHead, -1 }),
		"128 features":        with(func(o *onnx.NetworkOptions) { o.Head, o.Heads, o.Clusters = onnx.CosineHead, 4096, 1<<20 }),
	} {
		if _, err := onnx.NewNetwork("resnet-s", o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", o, err, want)
		}
	}
	for _, size := range []int{32, 222, 255} {
		o := good
		o.ImageSize = size
		if _, err := onnx.NewNetwork("alexnet-big", o); err == nil || !strings.Contains(err.Error(), "want 223 to 254") {
			t.Errorf("alexnet-big for %d pixels: error %v", size, err)
		}
	}
}

const resnetSum = "2538f6eb07dbbd135b559b85515fc883f7ba8dba92da48bc752fe68dc2fa621b"
