package builtin

import (
	"fmt"
	"hash/fnv"
	"math"
	"strings"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/onnx/onnxpb"
)

// A part is some of a training's steps. Learning rate, order and augmentation are
// those of the whole, so that parts on equal labels come to what the whole does.

// endOf is the step of the whole training before which a part ends.
func endOf(b *pipeline.Builtin, stepsPerEpoch int) int64 {
	if b.Until == 0 {
		return int64(b.Epochs) * int64(stepsPerEpoch)
	}
	return int64(math.Round(b.Until * float64(stepsPerEpoch)))
}

// position is the number of steps done of the whole training.
func (t *trainer) position() int64 {
	return int64(t.header.Epoch)*int64(t.source.Steps()) + int64(t.header.Step)
}

// formsOf are those of the gradients that were begun with; nil where that was
// nowhere.
func (t *trainer) formsOf(begun *header) (grad.Forms, error) {
	if begun == nil && t.after != "" {
		var err error
		if begun, _, err = partBefore(t.after); err != nil {
			return nil, err
		}
	}
	if begun == nil {
		return nil, nil
	}
	return begun.Forms, nil
}

// begin takes over what the part before ended with, if there is one.
func (t *trainer) begin() error {
	if t.after != "" {
		before, err := restore(t.after, anotherPart, t.header, t.state())
		if err != nil {
			return err
		}
		h := &t.header
		h.Epoch, h.Step, h.Metrics = before.Epoch, before.Step, before.Metrics
		steps := t.source.Steps()
		if h.Step == steps { // it ended with the held-out images unmeasured
			h.Epoch, h.Step = h.Epoch+1, 0
		}
		if h.Step > steps {
			return pipeline.BadConfig(fmt.Errorf("checkpoint %s is of step %d of an epoch, these labels' images make %d: %s", t.after, h.Step, steps, anotherPart))
		}
		t.notice("training goes on from the part before", "epoch", h.Epoch+1, "step", h.Step)
	}
	if at := t.position(); at >= t.end {
		return pipeline.BadConfig(fmt.Errorf("nothing to train: this part begins at step %d and ends at step %d, of %d an epoch: raise train.builtin.until (%v) or give another train.builtin.after",
			at, t.end, t.source.Steps(), t.spec.Until))
	}
	if t.spec.ResetHeads {
		return t.resetHeads()
	}
	return nil
}

// resetHeads draws the parameters of the heads anew, as a function of the seed
// and of the step at which this part begins: matrices evenly with the standard
// deviation 1/√(inputs), as fresh heads have; scales and variances 1, the rest 0.
// Their momenta become 0. The rotation head stays: its classes keep their meaning.
func (t *trainer) resetHeads() error {
	m, err := t.trained()
	if err != nil {
		return err
	}
	fresh, err := headParameters(m)
	if err != nil {
		return err
	}
	var d draws
	for i, s := range t.step.State {
		fill, ok := fresh[s.Name]
		if !ok {
			continue
		}
		values := t.stepper.State(i)
		clear(values)
		if s.Kind == grad.Momentum {
			continue
		}
		name := fnv.New64a()
		name.Write([]byte(s.Name))
		d.begin(forHeads, uint64(t.spec.Seed), t.header.Epoch, int64(name.Sum64()), t.header.Step)
		for j := range values {
			values[j] = fill.mean
			if fill.deviation > 0 {
				u := float64(d.Uint64()>>11) * 0x1p-52 // [0, 2), exact
				values[j] = float32(math.Sqrt(3) * fill.deviation * (u - 1))
			}
		}
	}
	return nil
}

// fresh says how a parameter is drawn: evenly around 0 with a deviation, or,
// where that is 0, as its mean.
type fresh struct {
	mean      float32
	deviation float64
}

// headParameters returns what only the heads of a model read, by initialiser.
func headParameters(m *onnx.Model) (map[string]fresh, error) {
	trunk, err := m.Trunk("")
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("train.builtin.reset_heads: %w", err))
	}
	own := map[string]bool{}
	for _, x := range trunk.Proto.GetGraph().GetInitializer() {
		own[x.GetName()] = true
	}
	list := map[string]fresh{}
	g := m.Proto.GetGraph()
	for _, x := range g.GetInitializer() {
		name := x.GetName()
		if own[name] || strings.HasPrefix(name, rotationHead) {
			continue
		}
		list[name] = fresh{}
		if inputs := elements(x.Dims); len(x.Dims) > 1 && inputs > 0 {
			list[name] = fresh{deviation: 1 / math.Sqrt(float64(inputs/x.Dims[0]))} // [outputs, inputs …]
		}
	}
	for _, n := range g.GetNode() {
		for i, in := range n.Input {
			f, ok := list[in]
			if !ok {
				continue
			}
			switch op := n.GetOpType(); {
			case op == "BatchNormalization" && (i == 1 || i == 4), op == "LayerNormalization" && i == 1, op == "Mul" && f.deviation == 0:
				list[in] = fresh{mean: 1}
			case op == "MatMul" && i == 1, op == "Gemm" && i == 1 && !transposed(n):
				if dims := dimensions(g, in); len(dims) == 2 { // [inputs, outputs]
					list[in] = fresh{deviation: 1 / math.Sqrt(float64(dims[0]))}
				}
			}
		}
	}
	return list, nil
}

// transposed says whether a Gemm takes its second matrix as [outputs, inputs].
func transposed(n *onnxpb.NodeProto) bool {
	for _, a := range n.GetAttribute() {
		if a.GetName() == "transB" {
			return a.GetI() != 0
		}
	}
	return false
}

func dimensions(g *onnxpb.GraphProto, initialiser string) []int64 {
	for _, x := range g.GetInitializer() {
		if x.GetName() == initialiser {
			return x.GetDims()
		}
	}
	return nil
}
