package grad

import (
	"errors"
	"fmt"
	"slices"

	"sela/stages/internal/onnx"
)

// ErrUnsupported is wrapped by every error about a model that cannot be
// trained: an operator, an attribute, a shape that depends on the images.
var ErrUnsupported = errors.New("cannot be trained")

// ErrUnreached is wrapped where no gradient flows back to a parameter, which has
// to be frozen.
var ErrUnreached = errors.New("no gradient flows back to it")

// The operator sets whose operators mean what this package takes them to mean.
const (
	oldestOpset = 7
	newestOpset = 22
)

// Options say how an inference model is trained.
type Options struct {
	Input string   // the image input; its first dimension is the batch
	Heads []string // outputs that are logits [B, K_h], in order
	Batch int      // B, images per step
	Loss  Loss
	SGD   SGD
	// Frozen names initialisers that training leaves as they are; nil: none. A
	// BatchNormalization whose running mean is frozen normalises by its running
	// statistics, as in evaluation.
	Frozen func(name string) bool
	Forms  Forms // of gradients that can be computed in several ways; nil: the defaults
}

// Step is a training step as a graph of one shape, in operator set 17: forward
// in training mode, loss, gradients, update. It reads a batch and the State and
// returns the losses and the next State, whose values the caller hands to the
// next run.
type Step struct {
	Model *onnx.Model
	// Names of the inputs. Images are as the model's, with B images. Labels are
	// int64 [T, B], each in [0, K), which the graph does not check; or, for
	// [Binary], targets float32 [B, K]. Weights, float32 [T, B], are 1 for a row
	// that a head learns from and 0 for others, such as padding. LearningRate is
	// float32 [1].
	Images, Labels, Weights, LearningRate string
	Masks                                 []Mask
	State                                 []State
	// Names of the outputs, float32 [T]. Losses are weighted means over the
	// rows, 0 without any; what is minimised is their mean. Correct is the weighted number of
	// rows whose largest logit is the label's (for [Binary]: of which the sign of
	// the logit agrees with the target, as a share of the K classes).
	Losses, Correct string
	// Problems are the gradients that [Options.Forms] can choose forms for.
	Problems []Problem
}

// Mask is the input of a Dropout: float32 of the given shape, each element 0
// with probability Ratio and 1/(1−Ratio) otherwise, drawn anew for every step.
type Mask struct {
	Input string
	Dims  []int64
	Ratio float64
}

// Kind is what a state holds.
type Kind string

// The kinds of states.
const (
	Parameter Kind = "parameter"
	Momentum  Kind = "momentum"
	Statistic Kind = "statistic"
)

// State is a tensor, float32, that a step reads and replaces.
type State struct {
	Kind    Kind
	Name    string // the initialiser of the inference model that it is, or is the momentum of
	In, Out string // names of the graph's input and output
	Dims    []int64
	Initial []float32 // nil: zeros
}

// parameter is a trained initialiser.
type parameter struct {
	name  string
	value *value
	decay bool
}

// NewStep differentiates m, which it does not change. Every error about the
// model wraps [ErrUnsupported] and names the node.
func NewStep(m *onnx.Model, o Options) (*Step, error) {
	s, err := newStep(m, o)
	if err != nil {
		return nil, fmt.Errorf("make training step: %w", err)
	}
	return s, nil
}

func newStep(m *onnx.Model, o Options) (s *Step, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	defer catch(&err)
	s = &Step{Weights: "weights", LearningRate: "learning_rate"}
	t := newTape("step")
	t.forms = o.Forms
	l := &loader{tape: t, model: nodesOf(m), batch: int64(o.Batch), frozen: o.Frozen}
	images, heads := l.load(o.Input, o.Heads)

	s.Images = images.name
	weights := t.input(s.Weights, onnx.Float32, int64(len(heads)), int64(o.Batch))
	rate := t.input(s.LearningRate, onnx.Float32, 1)
	s.Weights, s.LearningRate = weights.name, rate.name
	labels, losses, correct := o.Loss.add(t, heads, weights)
	s.Labels = labels.name
	t.backward()
	t.scope = "next"
	t.update(o.SGD, l.parameters, rate)
	for _, p := range l.statistics {
		t.state = append(t.state, State{Kind: Statistic, Name: p.name, In: p.value.name, Out: t.output(t.next[p.name]), Dims: p.value.dims})
	}
	s.Losses, s.Correct = t.output(losses), t.output(correct)
	s.State, s.Masks, s.Problems = t.state, t.masks, t.problems
	for i, state := range s.State {
		if state.Kind != Momentum {
			if s.State[i].Initial, err = floats(l.model, l.held[state.Name]); err != nil {
				return nil, fmt.Errorf("initialiser %q: %w", state.Name, err)
			}
		}
	}
	s.Model = t.b.Model()
	sweep(s.Model.Proto.Graph)
	return s, nil
}

func (o Options) check() error {
	switch {
	case o.Batch < 1 || o.Batch > 1<<24:
		return fmt.Errorf("a batch of %d images", o.Batch)
	case len(o.Heads) == 0:
		return errors.New("no heads")
	case o.Loss != CrossEntropy && o.Loss != Binary:
		return fmt.Errorf("no loss %q; choose %s or %s", o.Loss, CrossEntropy, Binary)
	case o.Loss == Binary && len(o.Heads) > 1:
		return fmt.Errorf("%d heads: loss %s takes one", len(o.Heads), Binary)
	}
	for i, h := range o.Heads {
		if slices.Contains(o.Heads[:i], h) {
			return fmt.Errorf("head %q is named twice", h)
		}
	}
	return o.SGD.check()
}
