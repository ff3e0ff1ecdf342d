package grad

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// What is a parameter, and of which kind, is read off the graph, since an
// export names nothing reliably.

// slots are the inputs of operators that hold parameters wherever a constant is
// read: true for those that weight decay applies to.
var slots = map[string]map[int]bool{
	"Conv":               {1: true, 2: false},
	"Gemm":               {0: true, 1: true, 2: false},
	"MatMul":             {0: true, 1: true},
	"Gather":             {0: true},
	"BatchNormalization": {1: false, 2: false},
	"LayerNormalization": {1: false, 2: false},
}

// views are operators that only arrange their first input's elements, or join
// their inputs': a parameter seen through them is still that parameter.
var views = []string{"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Slice", "Split", "Concat"}

// roles finds the parameters of a graph among its float32 initialisers of rank
// 1 and more, and says of each whether weight decay applies to it by default.
// Parameters are what an operator of slots reads as such, and what is added to,
// multiplied with or joined to values that came through a parameter: biases,
// scales, position embeddings, class tokens. So the constants that normalise
// the images themselves are none. Of those added, multiplied or joined, biases,
// scales and tokens, which have at most one dimension above 1, do not decay; and
// masks are no parameters. Other buffers of a network, as a fixed position
// embedding, look like parameters and have to be frozen by name.
func roles(m *onnx.Model) map[string]bool {
	g := m.Proto.GetGraph()
	decay := map[string]bool{}
	seenAs := map[string][]string{} // value: the initialisers it is a view of
	held := map[string]*onnxpb.TensorProto{}
	for _, t := range g.GetInitializer() {
		if onnx.DType(t.GetDataType()) == onnx.Float32 && len(t.Dims) > 0 {
			seenAs[t.GetName()] = []string{t.GetName()}
			held[t.GetName()] = t
		}
	}
	fed := map[string]bool{} // values that came through a parameter
	for _, n := range g.GetNode() {
		through := false
		if n.GetOpType() == "Shape" || n.GetOpType() == "Size" {
			continue // sizes are no values that came through it
		}
		for _, in := range n.Input {
			through = through || fed[in]
		}
		declare := func(in string, decays bool) {
			for _, name := range seenAs[in] {
				decay[name] = decay[name] || decays
				through = true
			}
		}
		for i, in := range n.Input {
			if decays, ok := slots[n.GetOpType()][i]; ok {
				declare(in, decays)
			}
		}
		joined := through
		switch n.GetOpType() {
		case "Add", "Sum", "Mul", "Concat":
			for _, in := range n.Input {
				if joined {
					for _, name := range seenAs[in] {
						if !mask(m, held[name]) {
							declare(name, !vector(held[name].Dims))
						}
					}
				}
			}
		}
		if !through && slices.Contains(views, n.GetOpType()) {
			var seen []string
			for i, in := range n.Input {
				if i == 0 || n.GetOpType() == "Concat" {
					seen = append(seen, seenAs[in]...)
				}
			}
			for _, out := range n.Output {
				seenAs[out] = seen
			}
		}
		for _, out := range n.Output {
			fed[out] = fed[out] || through
		}
	}
	return decay
}

// vector says whether at most one dimension is above 1.
func vector(dims []int64) bool {
	wide := 0
	for _, d := range dims {
		if d != 1 {
			wide++
		}
	}
	return wide <= 1
}

// mask says whether a constant is a mask: a table of exactly two values, such
// as 0 and −∞ (which no gradient step leaves a number), 0 and −100, 0 and 1. A
// parameter that is drawn, or all 0 or all 1, is none.
func mask(m *onnx.Model, t *onnxpb.TensorProto) bool {
	if vector(t.Dims) {
		return false
	}
	list, err := floats(m, t)
	if err != nil || len(list) == 0 {
		return false // what reads it says why
	}
	second := slices.IndexFunc(list, func(x float32) bool { return x != list[0] })
	return second > 0 && !slices.ContainsFunc(list, func(x float32) bool { return x != list[0] && x != list[second] })
}

// untie gives every layer parameters and statistics of its own where an export
// has merged equal constants: PyTorch's writes one initialiser for all that
// hold the same values, so that the biases of a fresh network, all 0, are one.
// An initialiser of rank 1 and more that several nodes read is copied for each
// if its elements are all equal, and always where it holds running statistics.
// One whose elements differ is taken to be shared on purpose. What it has done
// once, it finds done. Copies get the names under which the nodes read them,
// which in an export are those of the layers' own parameters.
func untie(m *onnx.Model) error {
	g := m.Proto.GetGraph()
	held := map[string]*onnxpb.TensorProto{}
	for _, t := range g.GetInitializer() {
		if onnx.DType(t.GetDataType()) == onnx.Float32 && len(t.Dims) > 0 {
			held[t.GetName()] = t
		}
	}
	type slot struct {
		n    *onnxpb.NodeProto
		i    int
		name string // under which it is read
	}
	readers := map[string][]slot{}
	alias := map[string]string{} // merged initialisers are read through Identity
	outputs := map[string]bool{}
	for _, o := range g.GetOutput() {
		outputs[o.GetName()] = true
	}
	g.Node = slices.DeleteFunc(g.Node, func(n *onnxpb.NodeProto) bool {
		for i, in := range n.Input {
			if to, ok := alias[in]; ok {
				n.Input[i] = to
			}
			if held[n.Input[i]] != nil {
				readers[n.Input[i]] = append(readers[n.Input[i]], slot{n, i, in})
			}
		}
		if n.GetOpType() != "Identity" || len(n.Input) != 1 || len(n.Output) != 1 || held[n.Input[0]] == nil || outputs[n.Output[0]] {
			return false
		}
		alias[n.Output[0]] = n.Input[0]
		list := readers[n.Input[0]]
		readers[n.Input[0]] = list[:len(list)-1]
		return true
	})
	b := onnx.Edit(m)
	for _, t := range slices.Clone(g.GetInitializer()) {
		name := t.GetName()
		if held[name] == nil || len(readers[name]) < 2 {
			continue
		}
		own := slices.ContainsFunc(readers[name], func(r slot) bool { return r.n.GetOpType() == "BatchNormalization" && r.i >= 3 })
		if !own {
			list, err := floats(m, t)
			if err != nil {
				return fmt.Errorf("initialiser %q: %w", name, err)
			}
			if len(list) == 0 || slices.ContainsFunc(list, func(x float32) bool { return x != list[0] }) {
				continue
			}
		}
		first := max(slices.IndexFunc(readers[name], func(r slot) bool { return r.name == name }), 0)
		for i, r := range readers[name] {
			if i != first {
				r.n.Input[r.i] = b.Const(r.name, proto.CloneOf(t))
			}
		}
	}
	return nil
}

// Apply writes trained parameters and statistics into the inference model: the
// one that the step was made from, or a copy of it. values holds, by the Name
// of each State that is no momentum, its elements; others are ignored. Where an
// export had merged the initialisers of layers that started out equal, the
// model gets one for each. On an error the model is left as it was.
func (s *Step) Apply(m *onnx.Model, values map[string][]float32) (err error) {
	defer catch(&err)
	edited := m.Clone()
	if err := untie(edited); err != nil {
		return fmt.Errorf("apply training: %w", err)
	}
	held := map[string]*onnxpb.TensorProto{}
	for _, t := range edited.Proto.GetGraph().GetInitializer() {
		held[t.GetName()] = t
	}
	for _, state := range s.State {
		if state.Kind == Momentum {
			continue
		}
		t, list := held[state.Name], values[state.Name]
		if t == nil || !slices.Equal(t.Dims, state.Dims) {
			return fmt.Errorf("apply training: no initialiser %q of shape %v in this model", state.Name, state.Dims)
		}
		if int64(len(list)) != elements(state.Dims) {
			return fmt.Errorf("apply training: %d values for %s %q of shape %v", len(list), state.Kind, state.Name, state.Dims)
		}
		proto.Reset(t)
		proto.Merge(t, onnx.NewTensor(list, state.Dims...))
		t.Name = proto.String(state.Name)
	}
	m.Proto = edited.Proto
	return nil
}
