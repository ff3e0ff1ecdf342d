package model

import (
	"errors"
	"fmt"
	"io/fs"
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
// size], its outputs head_0, head_1, … are logits [N, K] of heads on its
// features, a tensor of that name. Until its
// BatchNormalization statistics are set by [Calibration.Apply] or by training,
// what it puts out means nothing. Errors are of class Usage.
func New(name string, o NetworkOptions) (*Graph, error) {
	g, err := onnx.NewNetwork(name, o)
	return g, pipeline.BadUsage(err)
}

// Save writes g to path, whole or not at all; its folder is made if it is
// missing. Equal graphs give equal bytes. External data is copied beside it,
// under the names g has for it: a file there that is not that data already is an
// error, since it may belong to another model. Errors are of class Config.
func Save(g *Graph, path string) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return pipeline.BadConfig(err)
	}
	files, err := g.ExternalFiles()
	if err != nil {
		return pipeline.BadConfig(err)
	}
	for _, name := range files {
		here, err := os.Stat(filepath.Join(folder, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return pipeline.BadConfig(err)
		}
		if from, err := os.Stat(filepath.Join(g.Dir, filepath.FromSlash(name))); err != nil || !os.SameFile(from, here) {
			return pipeline.BadConfig(fmt.Errorf("save model %s: its external data would replace the file %s beside it: choose another folder", path, name))
		}
	}
	return pipeline.BadConfig(g.SaveWithData(path))
}
