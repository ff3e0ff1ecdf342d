package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sela/pipeline"
	"sela/stages/internal/onnx"
)

// HeadOptions parametrise new heads.
type HeadOptions = onnx.HeadOptions

// HeadKind is a kind of heads: "linear" or "cosine".
type HeadKind = onnx.HeadKind

// DefaultTemperature is that of cosine heads.
const DefaultTemperature = onnx.DefaultTemperature

// ReplaceHeads puts new heads on g's features, which are the tensor named, or,
// where that is "", what the linear layers behind g's outputs read. Outputs and
// all that only they need go; what remains keeps its weights. It returns the
// names of the new outputs, logits float32 [N, K]. Where the model does not say
// how many features there are, ONNX Runtime is asked, which runtime opens, with
// a scratch file in dir. A model that cannot be handled is an error of class
// Config and options that mean nothing are one of class Usage; g is then as it
// was.
func ReplaceHeads(g *Graph, tensor string, o HeadOptions, runtime func() (*Runtime, error), dir string) ([]string, error) {
	v, err := g.Features(tensor)
	if err != nil {
		return nil, pipeline.BadConfig(err)
	}
	edited := g.Clone()
	if v.Shape[1].Size == 0 {
		if err := stateShape(edited, v.Name, runtime, dir); err != nil {
			return nil, err
		}
	}
	heads, err := edited.ReplaceHeads(v.Name, o)
	switch {
	case errors.Is(err, onnx.ErrUnsupported):
		return nil, pipeline.BadConfig(err)
	case err != nil:
		return nil, pipeline.BadUsage(err)
	}
	g.Proto = edited.Proto
	return heads, nil
}

// stateShape states in g what ONNX Runtime infers of a tensor.
func stateShape(g *Graph, tensor string, runtime func() (*Runtime, error), dir string) (err error) {
	rt, err := runtime()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return pipeline.BadConfig(err)
	}
	folder, err := os.MkdirTemp(dir, "features-")
	if err != nil {
		return pipeline.BadConfig(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	probe := g.Clone()
	probe.Proto.Graph.Output = nil
	onnx.Edit(probe).Output(onnx.Value{Name: tensor})
	file := filepath.Join(folder, "model.onnx")
	if err := probe.SaveWithData(file); err != nil {
		return pipeline.BadConfig(err)
	}
	_, outputs, err := rt.Inspect(file)
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("infer the shape of %q: %w", tensor, err))
	}
	info := outputs[0]
	stated := onnx.Value{Name: tensor}
	for _, d := range []onnx.DType{onnx.Float32, onnx.Float16, onnx.BFloat16, onnx.Float64} {
		if d.String() == string(info.Type) {
			stated.DType = d
		}
	}
	for i, d := range info.Dims {
		if d < 0 && i > 0 {
			return pipeline.BadConfig(fmt.Errorf("tensor %s: only its first dimension may be free for heads to be put on it", info))
		}
		stated.Shape = append(stated.Shape, onnx.Dim{Size: max(d, 0)})
	}
	if len(stated.Shape) < 2 || stated.DType == 0 {
		return pipeline.BadConfig(fmt.Errorf("tensor %s is no batch of features: a floating-point type and two dimensions are needed", info))
	}
	onnx.Edit(g).Describe(stated)
	return nil
}

// Trunk returns a copy of g up to its features, found as by [ReplaceHeads],
// which become its one output, features, float32 [N, D]. Errors are of class
// Config.
func Trunk(g *Graph, tensor string) (*Graph, error) {
	t, err := g.Trunk(tensor)
	return t, pipeline.BadConfig(err)
}
