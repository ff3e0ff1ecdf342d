package onnx

import (
	"fmt"
	"slices"
	"strings"
)

// OutputKind says what a classifier's outputs are.
type OutputKind string

// The kinds of outputs.
const (
	Logits           OutputKind = "logits"
	Probabilities    OutputKind = "probabilities"
	LogProbabilities OutputKind = "log_probabilities" // natural logarithm
)

// HeadsSpec says where a model's heads are.
type HeadsSpec struct {
	// Outputs are the graph outputs that are heads, in order; none means all.
	// Either each is one head [B, K_t], or there is one alone, [B, T, K], that
	// stacks T heads.
	Outputs []string
	Kind    OutputKind
}

// Head is one head's output after AppendLogProbs.
type Head struct {
	Output   string // name of the float32 output [B, K]
	Clusters int    // K; 0 where the model does not state it
	Source   string // the output of the model it is made from
	Index    int    // which of the heads stacked in Source, 0 where it is alone
}

// AppendLogProbs adds to the graph, for each head, a float32 output [B, K] of
// log-probabilities in nats, named sela_logprobs_0 and so on, and returns the
// heads in order. The outputs the model had stay, so that a caller can compare
// (rows of probabilities sum to 1, logits seldom do).
//
// Values of another float type are cast to float32 first. Logits go through
// LogSoftmax, which subtracts each row's maximum and cannot overflow;
// probabilities through Log, so 0 becomes −Inf; log-probabilities pass. The
// operators are applied to each head's matrix along axis 1, where all versions
// of LogSoftmax agree (before 13 it flattened its input to a matrix).
//
// A model that cannot be handled (an output that is missing, no float tensor,
// of another rank, an unstated number of heads) is an error naming the output,
// and is left as it was.
func (m *Model) AppendLogProbs(spec HeadsSpec) ([]Head, error) {
	outputs, err := m.headOutputs(spec)
	if err != nil {
		return nil, fmt.Errorf("append log-probabilities: %w", err)
	}
	b := Edit(m)
	var heads []Head
	for _, v := range outputs {
		x := v.Name
		if v.DType != Float32 {
			x = b.Node("Cast", v.Name+"_float32", []string{x}, Int("to", int64(Float32)))
		}
		k := v.Shape[len(v.Shape)-1]
		stacked := 1
		if len(v.Shape) == 3 {
			stacked = int(v.Shape[1].Size)
		}
		for i := range stacked {
			logits := x
			if len(v.Shape) == 3 {
				index := b.Const("sela_head_index", NewInts([]int64{int64(i)}))
				logits = b.Node("Gather", fmt.Sprintf("%s_head_%d", v.Name, i), []string{x, index}, Int("axis", 1))
			}
			out := b.logProbs(spec.Kind, fmt.Sprintf("sela_logprobs_%d", len(heads)), logits)
			b.Output(Value{Name: out, DType: Float32, Shape: []Dim{v.Shape[0], k}})
			heads = append(heads, Head{Output: out, Clusters: int(k.Size), Source: v.Name, Index: i})
		}
	}
	return heads, nil
}

func (b *Builder) logProbs(kind OutputKind, name, x string) string {
	switch kind {
	case Logits:
		return b.Node("LogSoftmax", name, []string{x}, Int("axis", 1))
	case Probabilities:
		return b.Node("Log", name, []string{x})
	}
	return b.Node("Identity", name, []string{x})
}

// maxHeads bounds what a model may ask for by a dimension it states.
const maxHeads = 4096

// headOutputs returns the outputs the spec names, checked.
func (m *Model) headOutputs(spec HeadsSpec) ([]Value, error) {
	if err := m.editable(); err != nil {
		return nil, err
	}
	switch spec.Kind {
	case Logits, Probabilities, LogProbabilities:
	default:
		return nil, fmt.Errorf("outputs cannot be %q; choose %s, %s or %s", spec.Kind, Logits, Probabilities, LogProbabilities)
	}
	byName := map[string]Value{}
	var names []string
	for _, o := range m.Proto.GetGraph().GetOutput() {
		v := valueOf(o)
		byName[v.Name] = v
		names = append(names, v.Name)
	}
	wanted := spec.Outputs
	if len(wanted) == 0 {
		wanted = names
	}
	var outputs []Value
	for i, name := range wanted {
		v, ok := byName[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("no output %q: the model has %s", name, strings.Join(names, ", "))
		case slices.Contains(wanted[:i], name):
			return nil, fmt.Errorf("output %q is named twice", name)
		case !v.DType.isFloat():
			return nil, fmt.Errorf("output %s: %w: need a tensor of floating-point type; name the outputs that are heads", v, ErrUnsupported)
		case len(v.Shape) == 3 && len(wanted) == 1 && (v.Shape[1].Size == 0 || v.Shape[1].Size > maxHeads):
			return nil, fmt.Errorf("output %s: %w: the number of stacked heads must be stated in the model, 1 to %d", v, ErrUnsupported, maxHeads)
		case len(v.Shape) != 2 && !(len(v.Shape) == 3 && len(wanted) == 1):
			return nil, fmt.Errorf("output %s: %w: need outputs [B, K], or one alone [B, T, K]; name the outputs that are heads", v, ErrUnsupported)
		}
		outputs = append(outputs, v)
	}
	return outputs, nil
}
