package builtin

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/onnx/onnxpb"
)

// The keys under which a trained model says what it was trained on.
const (
	metaTrainedOn = "sela.trained_on" // digest of the label set's manifest
	metaEpochs    = "sela.trained_epochs"
	metaSeed      = "sela.trained_seed"
)

// rotationHead is the name of the rotation head's output, and the beginning of
// those of all its values.
const rotationHead = "sela_rotation"

// quarterTurns are the classes of the rotation head.
const quarterTurns = 4

// addRotationHead adds an output that tells by how many quarter turns an image
// was turned: a linear layer on what the heads read, with weights drawn from
// seed.
func addRotationHead(m *onnx.Model, seed int64) error {
	f, err := m.Features("")
	if err != nil {
		return pipeline.BadConfig(fmt.Errorf("train.builtin.rotation_head: %w", err))
	}
	width := f.Shape[1].Size
	if width == 0 || f.DType != onnx.Float32 {
		return pipeline.BadConfig(fmt.Errorf("train.builtin.rotation_head: it needs float32 features of known size, the network has %s", f))
	}
	random := rand.New(rand.NewPCG(uint64(seed), 0x726f746174696f6e))
	weights := make([]float32, quarterTurns*width)
	bound := math.Sqrt(3 / float64(width)) // a standard deviation of 1/√width
	for i := range weights {
		weights[i] = float32(bound * (2*random.Float64() - 1))
	}
	b := onnx.Edit(m)
	x := b.Node("Flatten", rotationHead+".features", []string{f.Name}, onnx.Int("axis", 1))
	weight := b.Const(rotationHead+".weight", onnx.NewTensor(weights, quarterTurns, width))
	bias := b.Const(rotationHead+".bias", onnx.NewTensor(make([]float32, quarterTurns), quarterTurns))
	if out := b.Node("Gemm", rotationHead, []string{x, weight, bias}, onnx.Int("transB", 1)); out != rotationHead {
		return pipeline.BadConfig(fmt.Errorf("train.builtin.rotation_head: the network has a value called %s already", rotationHead))
	}
	b.Output(onnx.Value{Name: rotationHead, DType: onnx.Float32, Shape: []onnx.Dim{{Name: "N"}, {Size: quarterTurns}}})
	return nil
}

// dropRotationHead removes what addRotationHead added.
func dropRotationHead(m *onnx.Model) {
	own := func(name string) bool { return name == rotationHead || strings.HasPrefix(name, rotationHead+".") }
	g := m.Proto.GetGraph()
	g.Node = slices.DeleteFunc(g.Node, func(n *onnxpb.NodeProto) bool { return own(n.Output[0]) })
	g.Initializer = slices.DeleteFunc(g.Initializer, func(t *onnxpb.TensorProto) bool { return own(t.GetName()) })
	g.Output = slices.DeleteFunc(g.Output, func(v *onnxpb.ValueInfoProto) bool { return own(v.GetName()) })
}

// sign writes into a trained model what it was trained on, at last, and for how
// long in all.
func sign(m *onnx.Model, labels string, epochs float64, seed int64) {
	e := onnx.Edit(m)
	e.SetMetadata(metaTrainedOn, labels)
	e.SetMetadata(metaEpochs, strconv.FormatFloat(epochs, 'g', 7, 64))
	e.SetMetadata(metaSeed, strconv.FormatInt(seed, 10))
}

// Report says what a training came to.
type Report struct {
	Dir        string  `json:"dir"`
	Model      string  `json:"model"` // file
	Trunk      string  `json:"trunk,omitempty"`
	Heads      int     `json:"heads"`
	Images     int64   `json:"images"`   // trained on
	HeldOut    int64   `json:"held_out"` // images
	Rejected   int64   `json:"rejected"` // images that could not be used, of those looked at
	Parameters int64   `json:"parameters"`
	Epochs     float64 `json:"epochs"` // done of the whole training, with those of the parts before
	Taken      *Taken  `json:"init,omitempty"`
	Last       Metrics `json:"last"` // epoch
	Memory     memory  `json:"memory"`
}

// Taken says how much of the trunk came from another model.
type Taken struct {
	Tensors int `json:"tensors"` // taken
	Of      int `json:"of"`      // tensors of the trunk
}

// export writes the trained network, and its trunk where the network tells where
// that ends.
func (t *trainer) export() (*Report, error) {
	m, err := t.trained()
	if err != nil {
		return nil, err
	}
	epochs := float64(t.position()) / float64(t.source.Steps())
	sign(m, t.identity.Labels, epochs, t.spec.Seed)
	r := &Report{Dir: t.dir, Model: filepath.Join(t.dir, ModelFile), Heads: len(t.heads), Last: t.header.Metrics[len(t.header.Metrics)-1], Memory: t.estimate, Parameters: t.parameters(), Epochs: epochs}
	// A checkpoint that came from elsewhere comes without its table.
	if err := errors.Join(m.SaveWithData(r.Model), t.writeMetrics()); err != nil {
		return nil, err
	}
	body, err := m.Trunk("")
	if err != nil {
		t.notice("no trunk is exported", "why", err.Error())
		return r, nil
	}
	r.Trunk = filepath.Join(t.dir, TrunkFile)
	return r, body.SaveWithData(r.Trunk)
}

// parameters is the number of trained values.
func (t *trainer) parameters() (n int64) {
	for _, s := range t.step.State {
		if s.Kind == grad.Parameter {
			n += elements(s.Dims)
		}
	}
	return n
}
