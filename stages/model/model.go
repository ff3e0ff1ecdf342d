// Package model is the door to neural networks for those who start stages.
//
//   - [FindLibrary] and [OpenRuntime]: ONNX Runtime on this machine.
//   - [Local]: a model from wherever a job says it lies to this machine's disk;
//     [Load]: its graph and its digest; [Describe]: what a person wants to know
//     of it.
//   - [New]: a built-in network with random weights; [ReplaceHeads]: new heads on
//     any network, [Trunk]: it without heads; [Calibration.Apply]: its
//     BatchNormalization statistics, from images; [Save]: its file.
//
// Graphs, sessions and images themselves are the business of the internal
// packages onnx, ort and imageio.
package model

import (
	"context"
	"fmt"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Library is a shared library of ONNX Runtime on disk.
type Library = ort.Library

// Runtime is the process's ONNX Runtime.
type Runtime = ort.Runtime

// Graph is an ONNX model as data.
type Graph = onnx.Model

// FindLibrary returns the ONNX Runtime library to use: the explicit one, or the
// first usable one where such libraries lie. Errors are of class Config.
func FindLibrary(explicit string) (Library, error) {
	lib, err := ort.Find(explicit, nil)
	return lib, pipeline.BadConfig(err)
}

// OpenRuntime loads the library; a process holds one. Errors are of class
// Config.
func OpenRuntime(lib Library) (*Runtime, error) {
	rt, err := ort.Open(lib)
	return rt, pipeline.BadConfig(err)
}

// Load reads a model's graph and the digest of all its files. Errors are of
// class Config, but for a cancelled context.
func Load(ctx context.Context, path string) (*Graph, string, error) {
	g, digest, err := load(ctx, path)
	return g, digest.SHA256, err
}

func load(ctx context.Context, path string) (*Graph, onnx.Digest, error) {
	g, err := onnx.Load(path)
	if err != nil {
		return nil, onnx.Digest{}, pipeline.BadConfig(fmt.Errorf("model %s: %w", path, err))
	}
	digest, err := onnx.Fingerprint(ctx, path)
	if err != nil {
		err = fmt.Errorf("model %s: %w", path, err)
		if ctx.Err() == nil {
			err = pipeline.BadConfig(err)
		}
		return nil, onnx.Digest{}, err
	}
	return g, digest, nil
}
