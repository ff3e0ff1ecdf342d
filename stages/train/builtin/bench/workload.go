//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/ort"
)

// The optimiser of all candidates.
const (
	momentum = 0.9
	decay    = 1e-4 // of weights, not of biases and normalisation
	rate     = 0.01
)

// workload is a network and what it is trained on: the same for all candidates.
type workload struct {
	Network  string `json:"network"`
	Size     int    `json:"size"` // pixels
	Batch    int    `json:"batch"`
	Heads    int    `json:"heads"`
	Clusters int    `json:"clusters"`
	Threads  int    `json:"threads"`
	Forms    string `json:"forms"` // ours: measured or default
}

// workloads are what is measured: small images in batches of 128, large ones in
// batches that fit a small machine.
var workloads = []workload{
	{Network: "resnet-s", Size: 32, Batch: 128, Heads: 10, Clusters: 128},
	{Network: "alexnet-s", Size: 32, Batch: 128, Heads: 10, Clusters: 128},
	{Network: "resnet-18", Size: 224, Batch: 16, Heads: 10, Clusters: 128},
}

func names() (all []string) {
	for _, w := range workloads {
		all = append(all, w.Network)
	}
	return all
}

// small is the workload for a test of the program.
func (w workload) small() workload {
	w.Batch, w.Heads, w.Clusters = 2, 2, 3
	w.Size = min(w.Size, 64)
	return w
}

func (w workload) String() string {
	return fmt.Sprintf("%s, %d pixels, batch %d, %d heads of %d", w.Network, w.Size, w.Batch, w.Heads, w.Clusters)
}

// step is the training step; nil forms are the defaults.
func (w workload) step(forms grad.Forms) (*grad.Step, error) {
	m, err := onnx.NewNetwork(w.Network, onnx.NetworkOptions{ImageSize: w.Size, Heads: w.Heads, Clusters: w.Clusters, Seed: 1})
	if err != nil {
		return nil, err
	}
	var heads []string
	for i := range w.Heads {
		heads = append(heads, fmt.Sprintf("head_%d", i))
	}
	return grad.NewStep(m, grad.Options{Input: "images", Heads: heads, Batch: w.Batch, Loss: grad.CrossEntropy,
		SGD: grad.SGD{Momentum: momentum, WeightDecay: decay}, Forms: forms})
}

// operations returns the floating-point operations of the convolutions and
// products of a step with default forms: those of the forward pass, as often
// again for the gradient of each weight, and of each input but the images.
func operations(rt *ort.Runtime, w workload, dir string) (float64, error) {
	plain := grad.Forms{}
	step, err := w.step(nil)
	if err != nil {
		return 0, err
	}
	for _, p := range step.Problems { // the operators themselves, to be recognised
		for _, name := range p.Forms {
			if name == "conv" && strings.HasPrefix(p.Key, "conv n") {
				plain[p.Key] = name
			}
		}
	}
	if step, err = w.step(plain); err != nil {
		return 0, err
	}
	weights := map[string][]int64{}
	for _, p := range step.State {
		if p.Kind == grad.Parameter && len(p.Dims) > 1 {
			weights[p.In] = p.Dims
		}
	}
	probe := step.Model.Clone()
	b := onnx.Edit(probe)
	perOutput := map[string]float64{}
	for _, n := range probe.Proto.GetGraph().GetNode() {
		if strings.HasPrefix(n.Output[0], "grad/") || len(n.Input) < 2 || weights[n.Input[1]] == nil {
			continue
		}
		dims := weights[n.Input[1]]
		inner := dims[0] // of a product [B, D]·[D, K]
		switch n.GetOpType() {
		case "Conv":
			inner = dims[1] * dims[2] * dims[3]
		case "Gemm":
			for _, a := range n.Attribute {
				if a.GetName() == "transB" && a.GetI() == 1 {
					inner = dims[1]
				}
			}
		case "MatMul":
		default:
			continue
		}
		passes := 3.0
		if n.Input[0] == step.Images {
			passes = 2
		}
		perOutput[n.Output[0]] = 2 * passes * float64(inner)
		b.Output(onnx.Value{Name: n.Output[0]})
	}
	path := filepath.Join(dir, "operations.onnx")
	if err := probe.Save(path); err != nil {
		return 0, err
	}
	defer os.Remove(path)
	_, outputs, err := rt.Inspect(path)
	sum := 0.0
	for _, o := range outputs {
		if each := perOutput[o.Name]; each > 0 {
			for _, d := range o.Dims {
				each *= float64(d)
			}
			sum += each
		}
	}
	return sum, err
}
