package onnx

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sela/stages/internal/onnx/onnxpb"
)

// Dim is one dimension of a value. Exactly one of the fields is set for a
// dimension that is known or named; neither for one that is unknown.
type Dim struct {
	Size int64  // 0: not fixed
	Name string // shared by dimensions that are equal, such as "N" for the batch
}

// String returns the size, the name, or "?".
func (d Dim) String() string {
	switch {
	case d.Size > 0:
		return fmt.Sprint(d.Size)
	case d.Name != "":
		return d.Name
	}
	return "?"
}

// Value is the name and type of a graph's input or output.
type Value struct {
	Name string
	// DType is 0 where the value is no tensor or its type is not stated.
	DType DType
	// Shape is nil where the rank is not stated; a scalar has an empty one.
	Shape []Dim
}

// String returns for example "images float32 [N 3 32 32]".
func (v Value) String() string {
	shape := "[…]"
	if v.Shape != nil {
		shape = fmt.Sprint(v.Shape)
	}
	if v.DType == 0 {
		return v.Name + " (type not stated)"
	}
	return fmt.Sprintf("%s %v %s", v.Name, v.DType, shape)
}

// OpCount is how many nodes of one operator a graph has, those in the bodies of
// If and Loop included. Op has its domain as a prefix where that is not ONNX's.
type OpCount struct {
	Op    string
	Count int
}

// Info describes a model.
type Info struct {
	Inputs  []Value // what must be fed: initialisers listed as inputs are left out
	Outputs []Value
	// Opsets maps operator domains to versions; ONNX's own domain is "".
	Opsets           map[string]int64
	IRVersion        int64
	Producer         string // name and version of the program that wrote it
	Metadata         map[string]string
	Parameters       int64 // elements of the floating-point initialisers of rank 1 and more, without BatchNormalization's running statistics
	ParameterTensors int   // number of these initialisers
	Ops              []OpCount
	ExternalFiles    []string
}

// Inspect describes a model from what its file states; no shape is inferred.
func Inspect(m *Model) (*Info, error) {
	files, err := m.ExternalFiles()
	if err != nil {
		return nil, fmt.Errorf("inspect model: %w", err)
	}
	p, g := m.Proto, m.Proto.GetGraph()
	info := &Info{
		Opsets:        map[string]int64{},
		IRVersion:     p.GetIrVersion(),
		Producer:      strings.TrimSpace(p.GetProducerName() + " " + p.GetProducerVersion()),
		Metadata:      map[string]string{},
		ExternalFiles: files,
	}
	for _, o := range p.OpsetImport {
		domain := o.GetDomain()
		if isONNXDomain(domain) {
			domain = ""
		}
		info.Opsets[domain] = o.GetVersion()
	}
	for _, kv := range p.MetadataProps {
		info.Metadata[kv.GetKey()] = kv.GetValue()
	}
	info.Inputs = m.Inputs()
	for _, v := range g.GetOutput() {
		info.Outputs = append(info.Outputs, valueOf(v))
	}

	statistics := map[string]bool{}
	for _, n := range g.GetNode() {
		if isBatchNorm(n) && len(n.Input) == 5 {
			statistics[n.Input[3]], statistics[n.Input[4]] = true, true
		}
	}
	for _, t := range g.GetInitializer() {
		if !DType(t.GetDataType()).isFloat() || len(t.Dims) == 0 || statistics[t.GetName()] {
			continue
		}
		n, ok := elements(t.Dims)
		if !ok || info.Parameters+n < 0 {
			return nil, fmt.Errorf("inspect model: %w: initialiser %q has shape %v", ErrNotModel, t.GetName(), t.Dims)
		}
		info.Parameters += n
		info.ParameterTensors++
	}

	ops := map[string]int{}
	countOps(g, ops)
	for _, op := range slices.Sorted(maps.Keys(ops)) {
		info.Ops = append(info.Ops, OpCount{op, ops[op]})
	}
	slices.SortStableFunc(info.Ops, func(a, b OpCount) int { return cmp.Compare(b.Count, a.Count) })
	return info, nil
}

// Inputs returns what must be fed to run the model, in the file's order.
func (m *Model) Inputs() []Value {
	g := m.Proto.GetGraph()
	constant := make(map[string]bool, len(g.GetInitializer()))
	for _, t := range g.GetInitializer() {
		constant[t.GetName()] = true
	}
	for _, t := range g.GetSparseInitializer() {
		constant[t.GetValues().GetName()] = true
	}
	var vs []Value
	for _, v := range g.GetInput() {
		if !constant[v.GetName()] {
			vs = append(vs, valueOf(v))
		}
	}
	return vs
}

func countOps(g *onnxpb.GraphProto, ops map[string]int) {
	for _, n := range g.GetNode() {
		op := n.GetOpType()
		if !isONNXDomain(n.GetDomain()) {
			op = n.GetDomain() + "." + op
		}
		ops[op]++
		for _, a := range n.Attribute {
			if a.G != nil {
				countOps(a.G, ops)
			}
			for _, sub := range a.Graphs {
				countOps(sub, ops)
			}
		}
	}
}

func valueOf(v *onnxpb.ValueInfoProto) Value {
	out := Value{Name: v.GetName()}
	t := v.GetType().GetTensorType()
	if t == nil {
		return out
	}
	out.DType = DType(t.GetElemType())
	if t.Shape == nil {
		return out
	}
	out.Shape = make([]Dim, 0, len(t.Shape.Dim))
	for _, d := range t.Shape.Dim {
		out.Shape = append(out.Shape, Dim{Size: max(d.GetDimValue(), 0), Name: d.GetDimParam()})
	}
	return out
}

// valueInfo is the inverse of valueOf.
func valueInfo(v Value) *onnxpb.ValueInfoProto {
	info := &onnxpb.ValueInfoProto{Name: &v.Name}
	if v.DType == 0 {
		return info
	}
	elem := int32(v.DType)
	t := &onnxpb.TypeProto_Tensor{ElemType: &elem}
	if v.Shape != nil {
		t.Shape = &onnxpb.TensorShapeProto{}
		for _, d := range v.Shape {
			dim := &onnxpb.TensorShapeProto_Dimension{}
			switch {
			case d.Size > 0:
				dim.Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: d.Size}
			case d.Name != "":
				dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: d.Name}
			}
			t.Shape.Dim = append(t.Shape.Dim, dim)
		}
	}
	info.Type = &onnxpb.TypeProto{TensorType: t}
	return info
}
