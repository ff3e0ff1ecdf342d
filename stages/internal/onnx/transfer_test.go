package onnx_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"sela/stages/internal/onnx"
)

// A trunk is copied by name and shape; what has no counterpart is named, and
// heads stay.
func TestInitFrom(t *testing.T) {
	src := network(t, "resnet-18", onnx.NetworkOptions{Heads: 2, Clusters: 5, Seed: 1})
	dst := network(t, "resnet-s", onnx.NetworkOptions{Heads: 2, Clusters: 5, Seed: 2})
	fresh := dst.Clone()
	done, err := onnx.InitFrom(dst, src)
	if err != nil {
		t.Fatal(err)
	}
	// resnet-s has another first convolution, and in its second stage 64 channels
	// at once.
	if slices.Contains(done.Taken, "conv1.weight") || !slices.Contains(done.Kept, "conv1.weight") || !slices.Contains(done.Left, "conv1.weight") {
		t.Errorf("conv1.weight, of another shape: %+v", done)
	}
	for _, name := range []string{"bn1.running_var", "layer1.0.conv1.weight", "layer3.0.bn2.bias"} {
		if !slices.Contains(done.Taken, name) {
			t.Errorf("%s was not taken", name)
		}
	}
	if !slices.Contains(done.Left, "layer4.1.conv2.weight") {
		t.Error("layer4.1.conv2.weight was not left")
	}
	for _, list := range [][]string{done.Taken, done.Kept, done.Left} {
		for _, name := range list {
			if strings.HasPrefix(name, "head") {
				t.Errorf("%s is of a head", name)
			}
		}
	}
	floats := func(m *onnx.Model, name string) []float32 {
		t.Helper()
		v, err := m.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, name := range append(done.Taken, done.Kept...) {
		from := src
		if slices.Contains(done.Kept, name) {
			from = fresh
		}
		if !slices.Equal(floats(dst, name), floats(from, name)) {
			t.Errorf("%s has other values", name)
		}
	}
	if !slices.Equal(floats(dst, "head_1.weight"), floats(fresh, "head_1.weight")) {
		t.Error("a head was changed")
	}

	// A trunk without heads serves as well, and gives all.
	trunk, err := fresh.Trunk("")
	if err != nil {
		t.Fatal(err)
	}
	again := network(t, "resnet-s", onnx.NetworkOptions{Heads: 1, Clusters: 3, Seed: 8, Head: onnx.CosineHead})
	if done, err = onnx.InitFrom(again, trunk); err != nil || len(done.Kept)+len(done.Left) > 0 || len(done.Taken) != 9*5 {
		t.Fatalf("%+v, %v", done, err)
	}
	if same, err := again.Trunk(""); err != nil || !bytes.Equal(weights(t, same), weights(t, trunk)) {
		t.Errorf("the trunks differ, %v", err)
	}
}

// weights are a model's initialisers as bytes.
func weights(t *testing.T, m *onnx.Model) []byte {
	t.Helper()
	var all []byte
	for _, w := range m.Proto.Graph.Initializer {
		all = append(append(all, w.GetName()...), w.GetRawData()...)
	}
	return all
}

// PyTorch's export merges equal parameters; each gets its own.
func TestInitFromExports(t *testing.T) {
	src, dst := load(t, "resnet-13"), load(t, "resnet-13")
	// In the source, one of the biases that the destination has merged is another.
	for _, n := range src.Proto.Graph.Node {
		if n.GetOpType() == "Identity" && n.Output[0] == "layer1.1.bn2.bias" {
			n.Input[0] = onnx.Edit(src).Const("other", onnx.NewTensor([]float32{1, 2, 3, 4}, 4))
		}
	}
	done, err := onnx.InitFrom(dst, src)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Kept) > 0 || !slices.Equal(done.Left, []string{"other"}) || len(done.Taken) != 12*5 {
		t.Errorf("taken %d, kept %q, left %q", len(done.Taken), done.Kept, done.Left)
	}
	orderIsValid(t, dst)
	for name, want := range map[string][]float32{"layer1.1.bn2.bias": {1, 2, 3, 4}, "layer1.1.bn1.bias": {0, 0, 0, 0}, "layer1.0.bn1.bias": {0, 0, 0, 0}} {
		if got, err := dst.Floats(name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s = %v, %v; want %v", name, got, err, want)
		}
	}
	want := run(t, src, 3, noise(5), "classes")[0]
	if got := run(t, dst, 3, noise(5), "classes")[0]; !slices.Equal(got, want) {
		t.Errorf("outputs %v, want %v", got, want)
	}
}

func TestInitFromRefuses(t *testing.T) {
	dst := load(t, "resnet-13")
	before := encode(t, dst)
	if _, err := onnx.InitFrom(dst, load(t, "transformer-16")); !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), "none of its") {
		t.Errorf("another network: error %v", err)
	}
	if !bytes.Equal(before, encode(t, dst)) {
		t.Error("the model was changed")
	}
	if _, err := onnx.InitFrom(load(t, "norms-15"), dst); err == nil {
		t.Error("a model without heads was accepted")
	}
	short := load(t, "resnet-13")
	short.Proto.Graph.Initializer[0].RawData = short.Proto.Graph.Initializer[0].RawData[:8]
	if _, err := onnx.InitFrom(dst, short); err == nil || !strings.Contains(err.Error(), "conv1.weight") || !bytes.Equal(before, encode(t, dst)) {
		t.Errorf("a damaged source: error %v", err)
	}
}
