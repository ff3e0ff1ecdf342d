package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

var (
	// ErrNotModel is wrapped by errors about bytes that are no ONNX model, or
	// one without a graph.
	ErrNotModel = errors.New("not an ONNX model")
	// ErrUnsupported is wrapped by errors about a valid model that an edit
	// cannot handle: its operator set, a type, a shape.
	ErrUnsupported = errors.New("unsupported by this edit")
)

// oldestOpset is the first version of ONNX's own operators that edits support.
const oldestOpset = 7

// Model is a decoded ONNX file.
type Model struct {
	// Proto is the content. It is owned by the model and may be changed.
	Proto *onnxpb.ModelProto
	// Dir is the folder that the locations of external data are relative to;
	// "" for a model that was not read from a file.
	Dir string
}

// Parse decodes a model from the bytes of a .onnx file, which it does not keep.
// External data is not looked for: ExternalFiles names it.
func Parse(data []byte) (*Model, error) {
	p := new(onnxpb.ModelProto)
	if err := proto.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotModel, err)
	}
	if p.Graph == nil || len(p.Graph.Output) == 0 || len(p.OpsetImport) == 0 {
		return nil, fmt.Errorf("%w: it has no graph with outputs and operator sets", ErrNotModel)
	}
	return &Model{Proto: p}, nil
}

// Load reads a model file and checks that every file of external data it names
// is there and long enough. The values themselves stay on disk.
func Load(path string) (*Model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}
	return parseAt(path, data)
}

func parseAt(path string, data []byte) (*Model, error) {
	m, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	m.Dir = filepath.Dir(path)
	if err := m.checkExternal(); err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	return m, nil
}

// Clone returns a deep copy that shares nothing with m.
func (m *Model) Clone() *Model {
	return &Model{Proto: proto.CloneOf(m.Proto), Dir: m.Dir}
}

// Bytes encodes the model. Equal content gives equal bytes under the same
// build of the program. External data is not included. A protobuf message
// cannot exceed 2 GiB, and an error says so.
func (m *Model) Bytes() ([]byte, error) {
	if n := proto.Size(m.Proto); n > math.MaxInt32 {
		return nil, fmt.Errorf("encode model: %d bytes exceed the format's limit of 2 GiB; keep the weights as external data", n)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Proto)
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	return data, nil
}

// Save writes the model to path, whole or not at all. A model with external
// data is usable only where its data files lie beside it: see SaveWithData.
func (m *Model) Save(path string) error {
	data, err := m.Bytes()
	if err != nil {
		return fmt.Errorf("save model %s: %w", path, err)
	}
	if err := writeFile(path, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("save model %s: %w", path, err)
	}
	return nil
}

// writeFile replaces path's content in one step.
func writeFile(path string, content io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".onnx-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, content); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Opset returns the version of ONNX's own operators the model uses, 0 if it
// imports none.
func (m *Model) Opset() int64 {
	for _, o := range m.Proto.OpsetImport {
		if isONNXDomain(o.GetDomain()) {
			return o.GetVersion()
		}
	}
	return 0
}

func isONNXDomain(domain string) bool { return domain == "" || domain == "ai.onnx" }

// editable refuses models whose operator set the edits don't support.
func (m *Model) editable() error {
	if v := m.Opset(); v < oldestOpset {
		return fmt.Errorf("%w: operator set %d, need %d or later; convert the model with onnx.version_converter", ErrUnsupported, v, oldestOpset)
	}
	return nil
}
