package onnx

import "sela/stages/internal/onnx/onnxpb"

// forEachTensor calls fn for every constant in the model, wherever it lies:
// initialisers, attributes, the bodies of If and Loop, functions, training
// information.
func forEachTensor(p *onnxpb.ModelProto, fn func(*onnxpb.TensorProto)) {
	graphTensors(p.GetGraph(), fn)
	for _, t := range p.TrainingInfo {
		graphTensors(t.GetInitialization(), fn)
		graphTensors(t.GetAlgorithm(), fn)
	}
	for _, f := range p.Functions {
		nodeTensors(f.Node, fn)
	}
}

func graphTensors(g *onnxpb.GraphProto, fn func(*onnxpb.TensorProto)) {
	if g == nil {
		return
	}
	for _, t := range g.Initializer {
		fn(t)
	}
	sparseTensors(g.SparseInitializer, fn)
	nodeTensors(g.Node, fn)
}

func nodeTensors(nodes []*onnxpb.NodeProto, fn func(*onnxpb.TensorProto)) {
	for _, n := range nodes {
		for _, a := range n.Attribute {
			if a.T != nil {
				fn(a.T)
			}
			for _, t := range a.Tensors {
				fn(t)
			}
			if a.SparseTensor != nil {
				sparseTensors([]*onnxpb.SparseTensorProto{a.SparseTensor}, fn)
			}
			sparseTensors(a.SparseTensors, fn)
			graphTensors(a.G, fn)
			for _, g := range a.Graphs {
				graphTensors(g, fn)
			}
		}
	}
}

func sparseTensors(ts []*onnxpb.SparseTensorProto, fn func(*onnxpb.TensorProto)) {
	for _, t := range ts {
		if t.Values != nil {
			fn(t.Values)
		}
		if t.Indices != nil {
			fn(t.Indices)
		}
	}
}
