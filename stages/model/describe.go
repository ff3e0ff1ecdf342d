package model

import (
	"context"
	"fmt"

	"sela/pipeline"
	"sela/stages/internal/onnx"
)

// Description is what a model's files say about it.
type Description struct {
	SHA256     string            `json:"sha256"` // of all files: the model's identity in a run
	Files      []File            `json:"files"`  // the model first, then its external data by name
	Producer   string            `json:"producer"`
	IRVersion  int64             `json:"ir_version"`
	Opsets     map[string]int64  `json:"opsets"` // version by operator domain; ONNX's own is "ai.onnx"
	Inputs     []Tensor          `json:"inputs"`
	Outputs    []Tensor          `json:"outputs"`
	Features   *Tensor           `json:"features"`   // [N, D], what the heads read; null where the outputs are not linear layers of one tensor
	Parameters int64             `json:"parameters"` // trainable values; running statistics are none
	Ops        []OpCount         `json:"ops"`        // most frequent first
	Metadata   map[string]string `json:"metadata"`
}

// File is one file of a model.
type File struct {
	Name   string `json:"name"` // as the model names it; "" for the model itself
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Tensor is an input or an output.
type Tensor struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`  // as NumPy names it; "" where the model does not state it
	Shape []string `json:"shape"` // sizes, names of free dimensions, or "?"; null where the rank is not stated
}

// OpCount is how many nodes of one operator a model has.
type OpCount struct {
	Op    string `json:"op"`
	Count int    `json:"count"`
}

// Describe reads the model at path, without running it. Errors are those of
// [Load].
func Describe(ctx context.Context, path string) (*Description, error) {
	g, digest, err := load(ctx, path)
	if err != nil {
		return nil, err
	}
	info, err := onnx.Inspect(g)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("model %s: %w", path, err))
	}
	d := &Description{
		SHA256: digest.SHA256, Producer: info.Producer, IRVersion: info.IRVersion, Opsets: map[string]int64{},
		Inputs: tensors(info.Inputs), Outputs: tensors(info.Outputs), Parameters: info.Parameters, Metadata: info.Metadata,
	}
	if v, err := g.Features(""); err == nil {
		d.Features = &tensors([]onnx.Value{v})[0]
	}
	for _, f := range digest.Files {
		d.Files = append(d.Files, File(f))
	}
	for domain, v := range info.Opsets {
		if domain == "" {
			domain = "ai.onnx"
		}
		d.Opsets[domain] = v
	}
	for _, op := range info.Ops {
		d.Ops = append(d.Ops, OpCount(op))
	}
	return d, nil
}

func tensors(values []onnx.Value) []Tensor {
	list := make([]Tensor, len(values))
	for i, v := range values {
		list[i] = Tensor{Name: v.Name}
		if v.DType != 0 {
			list[i].Type = v.DType.String()
		}
		if v.Shape != nil {
			list[i].Shape = []string{}
		}
		for _, d := range v.Shape {
			list[i].Shape = append(list[i].Shape, d.String())
		}
	}
	return list
}
