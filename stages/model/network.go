package model

import (
	"os"
	"path/filepath"

	"sela/pipeline"
	"sela/stages/internal/onnx"
)

// NetworkOptions parametrises a built-in network.
type NetworkOptions = onnx.NetworkOptions

// Networks returns the names that [New] knows, sorted.
func Networks() []string { return onnx.Networks() }

// New builds a network of the name with random weights, which are a function of
// the name and the options. Its one input takes images as float32 [N, 3, size,
// size], its outputs head_0, head_1, … are logits [N, K]. Until its
// BatchNormalization statistics are set by [Calibration.Apply] or by training,
// what it puts out means nothing. Errors are of class Usage.
func New(name string, o NetworkOptions) (*Graph, error) {
	g, err := onnx.NewNetwork(name, o)
	return g, pipeline.BadUsage(err)
}

// Save writes g to path, whole or not at all; its folder is made if it is
// missing. Equal graphs give equal bytes. External data is not copied.
func Save(g *Graph, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return pipeline.BadConfig(err)
	}
	return pipeline.BadConfig(g.Save(path))
}
