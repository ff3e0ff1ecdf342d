package evaluate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sela/stages/internal/onnx"
	"sela/stages/internal/ort"
)

// Engine multiplies matrices in ONNX Runtime, on the processor, a thread to each
// run. It is safe for concurrent use.
type Engine struct {
	rt       *ort.Runtime
	dir      string
	products *ort.Session
}

// NewEngine makes an engine with its scratch files in a folder of its own under
// dir, which [Engine.Close] removes.
func NewEngine(rt *ort.Runtime, dir string) (*Engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	own, err := os.MkdirTemp(dir, "evaluate-")
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	e := &Engine{rt: rt, dir: own}
	if e.products, err = e.load(productsGraph(), "products"); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) load(m *onnx.Model, name string) (*ort.Session, error) {
	path := filepath.Join(e.dir, name+".onnx")
	if err := m.Save(path); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	s, err := e.rt.NewSession(path, ort.Options{})
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return s, nil
}

// Close ends the sessions and removes the scratch files.
func (e *Engine) Close() error {
	var err error
	if e.products != nil {
		err = e.products.Close()
	}
	return errors.Join(err, os.RemoveAll(e.dir))
}

func free(names ...string) (shape []onnx.Dim) {
	for _, n := range names {
		shape = append(shape, onnx.Dim{Name: n})
	}
	return shape
}

// productsGraph is c = a·bᵀ.
func productsGraph() *onnx.Model {
	b := onnx.NewBuilder("products")
	b.Input(onnx.Value{Name: "a", DType: onnx.Float32, Shape: free("M", "D")})
	b.Input(onnx.Value{Name: "b", DType: onnx.Float32, Shape: free("N", "D")})
	c := b.Node("Gemm", "c", []string{"a", "b"}, onnx.Int("transB", 1))
	b.Output(onnx.Value{Name: c, DType: onnx.Float32, Shape: free("M", "N")})
	return b.Model()
}

// slots makes a slot for each of so many workers.
func slots(ctx context.Context, s *ort.Session, n int, inputs ...[]int64) ([]*ort.Slot, error) {
	var all []*ort.Slot
	for range n {
		slot, err := s.NewSlot(ctx, inputs...)
		if err != nil {
			return nil, errors.Join(err, closeSlots(all))
		}
		all = append(all, slot)
	}
	return all, nil
}

func closeSlots(all []*ort.Slot) error {
	var errs []error
	for _, s := range all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// blockElements is how much of a matrix goes into one run: 4 MiB, which stays in
// the cache between its uses there.
const blockElements = 1 << 20

// blockRows returns the rows of a block.
func blockRows(dim int) int { return min(max(blockElements/dim, 64), 4096) }
