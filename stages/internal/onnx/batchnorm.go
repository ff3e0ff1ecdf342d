package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx/onnxpb"
)

// ErrNoBatchNorm is wrapped by the errors about a model whose layers in question
// hold no BatchNormalization and need no calibration.
var ErrNoBatchNorm = errors.New("there is no BatchNormalization")

// reduceAxesInput is the operator set in which ReduceMean's axes became an input.
const reduceAxesInput = 18

// Calibration gathers the statistics that BatchNormalization layers hold for
// evaluation. A network with fresh weights has running means of 0 and variances
// of 1, which describe none of its layers, so it is first run on images as in
// training:
//
//	cal, err := NewCalibration(m)
//	session on cal.Graph; for each batch: run it for cal.Output; cal.Add(values)
//	err = cal.Apply(m)
//
// In Graph each layer normalises by its own batch's statistics, as in training
// (Ioffe and Szegedy 2015, algorithm 1), so one run serves all layers. Batches
// are pooled: the mean of a layer is the mean over all values seen, its variance
// that of all values seen around it. Batches should be large, since what a deep
// layer sees depends on the batch statistics before it.
//
// The variance written is the unbiased one, n/(n−1) times the mean square
// deviation, as PyTorch keeps it in running_var.
type Calibration struct {
	// Graph is a copy of the model with one output more, Output: a float32
	// vector of fixed length for each batch. It computes the batch statistics in
	// primitives and hands them to BatchNormalization in evaluation mode, which
	// every provider has; ONNX Runtime's kernel for training mode writes the
	// new statistics over the initialisers it was given, for every later run and
	// every layer that shares them.
	Graph  *Model
	Output string

	layers  []normLayer
	length  int
	batches int
}

type normLayer struct {
	node     int    // index among the graph's nodes
	name     string // for errors
	channels int
	// Over all batches: the number of values per channel, and per channel their
	// mean and the sum of their squared deviations from it.
	count     float64
	mean, dev []float64
}

func isBatchNorm(n *onnxpb.NodeProto) bool {
	return n.GetOpType() == "BatchNormalization" && isONNXDomain(n.GetDomain())
}

// NewCalibration prepares the calibration of m, which it does not change. The
// layers must be in evaluation mode and their statistics initialisers.
func NewCalibration(m *Model) (*Calibration, error) { return m.calibration(nil) }

// NewHeadCalibration is NewCalibration of the layers that lie behind m's
// features, as [Model.Features] finds them. Those before them, which came with a
// trained trunk, normalise by the statistics they have.
func NewHeadCalibration(m *Model) (*Calibration, error) {
	f, err := m.features("")
	if err != nil {
		return nil, fmt.Errorf("calibrate heads: %w", err)
	}
	return m.calibration(m.needed(f.name))
}

// calibration leaves out the layers that make one of the values in leave.
func (m *Model) calibration(leave map[string]bool) (*Calibration, error) {
	if err := m.editable(); err != nil {
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	c := &Calibration{Graph: m.Clone()}
	for i, n := range m.Proto.GetGraph().GetNode() {
		if !isBatchNorm(n) || slices.ContainsFunc(n.Output, func(o string) bool { return leave[o] }) {
			continue
		}
		l, err := m.normLayer(i, n)
		if err != nil {
			return nil, fmt.Errorf("calibrate: node %q: %w", n.GetName(), err)
		}
		c.layers = append(c.layers, l)
	}
	if len(c.layers) == 0 {
		return nil, fmt.Errorf("calibrate: %w", ErrNoBatchNorm)
	}
	c.addStatistics()
	return c, nil
}

func (m *Model) normLayer(i int, n *onnxpb.NodeProto) (normLayer, error) {
	l := normLayer{node: i, name: n.GetName()}
	if len(n.Input) != 5 || len(n.Output) != 1 {
		return l, fmt.Errorf("%w: it has %d inputs and %d outputs, want 5 and 1 (evaluation mode)", ErrUnsupported, len(n.Input), len(n.Output))
	}
	if l.name == "" {
		l.name = n.Output[0]
	}
	for _, name := range n.Input[3:] {
		t := m.initializer(name)
		if t == nil {
			return l, fmt.Errorf("%w: statistics %q are not an initialiser", ErrUnsupported, name)
		}
		if d := DType(t.GetDataType()); len(t.Dims) != 1 || d != Float32 && d != Float64 {
			return l, fmt.Errorf("%w: statistics %q are %v %v, want float32 [C]", ErrUnsupported, name, d, t.Dims)
		}
		if l.channels != 0 && int64(l.channels) != t.Dims[0] || t.Dims[0] <= 0 || t.Dims[0] > math.MaxInt32 {
			return l, fmt.Errorf("%w: statistics of %v channels", ErrUnsupported, t.Dims[0])
		}
		l.channels = int(t.Dims[0])
	}
	l.mean, l.dev = make([]float64, l.channels), make([]float64, l.channels)
	return l, nil
}

// addStatistics puts the statistics of each layer's input in the place of its
// running ones, and joins them into one vector: mean, mean square deviation and
// number of values of each layer in turn.
func (c *Calibration) addStatistics() {
	g := c.Graph.Proto.Graph
	b := Edit(c.Graph)
	perChannel := b.Const("sela_per_channel", NewInts([]int64{0, 0, -1}, 3)) // [N, C, …] → [N, C, S]
	vector := b.Const("sela_vector", NewInts([]int64{-1}, 1))
	mean := b.meanOverBatch()

	nodes, layers := g.Node, c.layers
	g.Node = nil
	var parts []string
	for i, n := range nodes {
		if len(layers) > 0 && layers[0].node == i {
			l := layers[0]
			layers = layers[1:]
			x := b.Node("Reshape", "sela_values", []string{n.Input[0], perChannel})
			mu := mean(x)
			d := b.Node("Sub", "sela_deviations", []string{x, mu})
			v := mean(b.Node("Mul", "sela_squares", []string{d, d}))
			count := b.Node("Size", "sela_count", []string{x})
			for j, s := range []string{mu, v} {
				s = b.Node("Reshape", "sela_statistic", []string{s, vector})
				n.Input[3+j] = s
				parts = append(parts, b.Node("Cast", "sela_statistic_float32", []string{s}, Int("to", int64(Float32))))
			}
			count = b.Node("Cast", "sela_count_float32", []string{count}, Int("to", int64(Float32)))
			parts = append(parts, b.Node("Reshape", "sela_count_vector", []string{count, vector}))
			c.length += 2*l.channels + 1
		}
		g.Node = append(g.Node, n)
	}
	c.Output = b.Node("Concat", "sela_batch_statistics", parts, Int("axis", 0))
	b.Output(Value{Name: c.Output, DType: Float32, Shape: []Dim{{Size: int64(c.length)}}})
}

// meanOverBatch returns a function that adds the mean of [N, C, S] over N and S,
// of shape [1, C, 1].
func (b *Builder) meanOverBatch() func(x string) string {
	if b.m.Opset() < reduceAxesInput {
		return func(x string) string {
			return b.Node("ReduceMean", "sela_mean", []string{x}, Ints("axes", 0, 2), Int("keepdims", 1))
		}
	}
	axes := b.Const("sela_batch_axes", NewInts([]int64{0, 2}, 2))
	return func(x string) string {
		return b.Node("ReduceMean", "sela_mean", []string{x, axes}, Int("keepdims", 1))
	}
}

// Add takes in one batch's value of Output. Statistics that are not finite are
// an error that names the layer; the batch is then left out.
func (c *Calibration) Add(statistics []float32) error {
	if len(statistics) != c.length {
		return fmt.Errorf("calibrate: %d statistics, want %d", len(statistics), c.length)
	}
	rest := statistics
	for _, l := range c.layers {
		if err := l.check(rest); err != nil {
			return fmt.Errorf("calibrate: batch %d: layer %q: %w", c.batches, l.name, err)
		}
		rest = rest[2*l.channels+1:]
	}
	rest = statistics
	for i := range c.layers {
		c.layers[i].add(rest)
		rest = rest[2*c.layers[i].channels+1:]
	}
	c.batches++
	return nil
}

func (l *normLayer) check(statistics []float32) error {
	if n := statistics[2*l.channels]; !(n >= float32(l.channels)) {
		return errors.New("it has no values")
	}
	for j := range l.channels {
		mean, variance := float64(statistics[j]), float64(statistics[l.channels+j])
		if math.IsNaN(mean-mean) || math.IsNaN(variance-variance) || variance < 0 {
			return fmt.Errorf("channel %d has mean %g and variance %g; the images or the weights are not finite", j, mean, variance)
		}
	}
	return nil
}

// add pools a batch with those before it by the update of means and sums of
// squares of Chan, Golub and LeVeque 1979.
func (l *normLayer) add(statistics []float32) {
	n := float64(statistics[2*l.channels]) / float64(l.channels)
	total := l.count + n
	for j := range l.channels {
		d := float64(statistics[j]) - l.mean[j]
		l.mean[j] += d * n / total
		l.dev[j] += float64(statistics[l.channels+j])*n + d*d*l.count*n/total
	}
	l.count = total
}

// Apply writes the statistics gathered into m, the model the calibration was
// made from. Layers that share an initialiser get one each. It may be called
// again after more batches.
func (c *Calibration) Apply(m *Model) error {
	if c.batches == 0 {
		return errors.New("calibrate: no batch was added")
	}
	nodes := m.Proto.GetGraph().GetNode()
	for _, l := range c.layers {
		if l.node >= len(nodes) || !isBatchNorm(nodes[l.node]) || len(nodes[l.node].Input) != 5 {
			return fmt.Errorf("calibrate: layer %q: not in this model", l.name)
		}
		mean, variance := make([]float32, l.channels), make([]float32, l.channels)
		for j := range mean {
			mean[j] = float32(l.mean[j])
			variance[j] = float32(l.dev[j] / max(l.count-1, 1))
		}
		for i, values := range [][]float32{mean, variance} {
			if err := m.setOwn(nodes[l.node], 3+i, values); err != nil {
				return fmt.Errorf("calibrate: layer %q: %w", l.name, err)
			}
		}
	}
	return nil
}

// setOwn gives input i of node n the values, in an initialiser no other input
// reads.
func (m *Model) setOwn(n *onnxpb.NodeProto, i int, values []float32) error {
	t := m.initializer(n.Input[i])
	if t == nil {
		return fmt.Errorf("statistics %q are not an initialiser", n.Input[i])
	}
	if m.readers(n.Input[i]) > 1 {
		t = proto.CloneOf(t)
		n.Input[i] = Edit(m).Const(t.GetName(), t)
	}
	return setFloats(t, values)
}

// readers counts the inputs of the graph's nodes that read a value.
func (m *Model) readers(name string) int {
	count := 0
	for _, n := range m.Proto.GetGraph().GetNode() {
		for _, in := range n.Input {
			if in == name {
				count++
			}
		}
	}
	return count
}
