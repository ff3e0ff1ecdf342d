package onnx

import (
	"fmt"
	"slices"
	"strings"

	"sela/stages/internal/onnx/onnxpb"
)

// Features returns the tensor that the model's heads read, with its type and
// shape [N, D], everything behind the batch dimension flattened. It is the one
// named tensor; where that is "", the one that the model's metadata names, which
// heads of this package's making record; and without such, what the linear
// layers behind the model's outputs read: Gemm or MatMul with a constant matrix.
// Between them and the outputs there may be biases and other constants, Softmax
// and its like, and what only arranges numbers (Reshape, Concat). D has no size,
// and the type is 0, where neither the model states them nor such a layer tells:
// [Builder.Describe] states them.
//
// An output that no linear layer makes is an error that names it and what makes
// it; so are outputs whose layers read different tensors, and a name that is no
// value of the graph.
func (m *Model) Features(tensor string) (Value, error) {
	f, err := m.features(tensor)
	if err != nil {
		return Value{}, fmt.Errorf("find features: %w", err)
	}
	return Value{Name: f.name, DType: f.dtype, Shape: []Dim{f.batch, {Size: f.width}}}, nil
}

// featureTensor is what heads read.
type featureTensor struct {
	name  string
	dtype DType // 0: not known
	batch Dim
	width int64 // D; 0: not known
	flat  bool  // a matrix already
}

func (m *Model) features(tensor string) (featureTensor, error) {
	if err := m.editable(); err != nil {
		return featureTensor{}, err
	}
	names := m.valueNames()
	if tensor == "" {
		if recorded := m.metadata(metaFeatures); slices.Contains(names, recorded) {
			tensor = recorded
		}
	}
	if tensor == "" {
		var err error
		if tensor, err = m.headsRead(); err != nil {
			return featureTensor{}, err
		}
	}
	if !slices.Contains(names, tensor) {
		return featureTensor{}, fmt.Errorf("%w: %q; similar: %s", ErrNoTensor, tensor, strings.Join(nearest(tensor, names, 5), ", "))
	}
	f := featureTensor{name: tensor}
	v := m.describe(tensor)
	f.dtype = v.DType
	if v.Shape != nil {
		if len(v.Shape) < 2 {
			return f, fmt.Errorf("%w: %s is no batch of features", ErrUnsupported, v)
		}
		f.batch, f.flat, f.width = v.Shape[0], len(v.Shape) == 2, 1
		for _, d := range v.Shape[1:] {
			if d.Size == 0 || f.width > maxHeadWeights/d.Size {
				f.width = 0
				break
			}
			f.width *= d.Size
		}
	}
	m.askReaders(&f)
	if f.dtype != 0 && !f.dtype.isFloat() {
		return f, fmt.Errorf("%w: %s of type %v is no tensor of features", ErrUnsupported, tensor, f.dtype)
	}
	return f, nil
}

// askReaders fills in what the model does not state of the features and what
// the linear layers that read them tell.
func (m *Model) askReaders(f *featureTensor) {
	for _, n := range m.Proto.GetGraph().GetNode() {
		if !isLinear(n) || n.Input[0] != f.name {
			continue
		}
		w, transposed := m.matrix(n.Input[1])
		if w == nil || len(w.Dims) != 2 || min(w.Dims[0], w.Dims[1]) < 1 {
			continue
		}
		if n.GetOpType() == "Gemm" {
			f.flat = true
			transposed = transposed != (attrInt(n, "transB") != 0)
		} else if f.width == 0 && !f.flat && len(m.describe(f.name).Shape) > 0 {
			continue // it multiplies the last of several dimensions
		}
		if f.dtype == 0 {
			f.dtype = DType(w.GetDataType())
		}
		if f.width == 0 {
			f.width = w.Dims[0]
			if transposed {
				f.width = w.Dims[1]
			}
		}
	}
	if f.batch == (Dim{}) {
		for _, v := range m.Proto.GetGraph().GetOutput() {
			if shape := valueOf(v).Shape; len(shape) > 1 {
				f.batch = shape[0]
				return
			}
		}
	}
}

// isLinear says whether a node may be a linear layer, of the rows of its first
// input.
func isLinear(n *onnxpb.NodeProto) bool {
	op := n.GetOpType()
	return isONNXDomain(n.GetDomain()) && len(n.Input) >= 2 && (op == "MatMul" || op == "Gemm" && attrInt(n, "transA") == 0)
}

// matrix returns the initialiser or constant behind a name, and whether it is
// read transposed; nil where there is none.
func (m *Model) matrix(name string) (t *onnxpb.TensorProto, transposed bool) {
	for range len(m.Proto.GetGraph().GetNode()) + 1 { // a damaged graph may have cycles
		if t := m.initializer(name); t != nil {
			return t, transposed
		}
		n := m.maker(name)
		if n == nil {
			break
		}
		switch n.GetOpType() {
		case "Constant":
			for _, a := range n.Attribute {
				if a.GetName() == "value" {
					return a.T, transposed
				}
			}
			return nil, false
		case "Transpose": // of a matrix: its only other order
			transposed = !transposed
		case "Identity":
		default:
			return nil, false
		}
		if len(n.Input) != 1 {
			break
		}
		name = n.Input[0]
	}
	return nil, false
}

// maker returns the node that makes a value, nil for inputs and initialisers.
func (m *Model) maker(name string) *onnxpb.NodeProto {
	for _, n := range m.Proto.GetGraph().GetNode() {
		if slices.Contains(n.Output, name) {
			return n
		}
	}
	return nil
}

func attrInt(n *onnxpb.NodeProto, name string) int64 {
	for _, a := range n.Attribute {
		if a.GetName() == name {
			return a.GetI()
		}
	}
	return 0
}

func (m *Model) metadata(key string) string {
	for _, kv := range m.Proto.GetMetadataProps() {
		if kv.GetKey() == key {
			return kv.GetValue()
		}
	}
	return ""
}

// passes are operators between a linear layer and an output of the model.
var passes = []string{"Softmax", "LogSoftmax", "Sigmoid", "Log", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat"}

// withConstant are those that only count where one operand is constant.
var withConstant = []string{"Add", "Sub", "Mul", "Div"}

// headsRead returns the one tensor that the linear layers behind all outputs
// read.
func (m *Model) headsRead() (string, error) {
	fed := m.fed()
	found, by := "", ""
	for _, o := range m.Proto.GetGraph().GetOutput() {
		path := []string{o.GetName()}
		for i := 0; i < len(path); i++ {
			n := m.maker(path[i])
			if n == nil {
				return "", fmt.Errorf("output %q: %w: it is no result of a linear layer; name the tensor that the heads are to read", o.GetName(), ErrUnsupported)
			}
			var from []string
			for _, in := range n.Input {
				if fed[in] {
					from = append(from, in)
				}
			}
			op := n.GetOpType()
			switch {
			case isLinear(n) && len(from) == 1 && from[0] == n.Input[0]:
				if found != "" && found != n.Input[0] {
					return "", fmt.Errorf("%w: output %q is a linear layer on %q, output %q one on %q; name the tensor that the heads are to read", ErrUnsupported, by, found, o.GetName(), n.Input[0])
				}
				found, by = n.Input[0], o.GetName()
			case isONNXDomain(n.GetDomain()) && (slices.Contains(passes, op) || slices.Contains(withConstant, op) && len(from) == 1):
				for _, in := range from {
					if !slices.Contains(path, in) {
						path = append(path, in)
					}
				}
			default:
				return "", fmt.Errorf("output %q: %w: node %q (%s) makes it, not a linear layer (Gemm, or MatMul with a constant matrix); name the tensor that the heads are to read", o.GetName(), ErrUnsupported, n.GetName(), op)
			}
		}
	}
	if found == "" {
		return "", fmt.Errorf("%w: no linear layer before its outputs; name the tensor that the heads are to read", ErrUnsupported)
	}
	return found, nil
}
