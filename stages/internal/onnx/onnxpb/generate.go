// Package onnxpb holds the Go types of the ONNX file format, generated from
// onnx.proto. Package onnx is the interface to use; this one is its data.
//
// Regenerate with protoc and protoc-gen-go v1.36.12 on the PATH. The file is named
// from the module root, since that name is registered for the whole binary.
package onnxpb

//go:generate protoc -I../../../.. --go_out=../../../.. --go_opt=paths=source_relative stages/internal/onnx/onnxpb/onnx.proto
