package grad

import (
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/onnxpb"
)

// The operators that make constants, sizes among them.
var constants = map[string]operator{
	"Constant":        {0, 0, one(constantNode)},
	"ConstantOfShape": {1, 1, one(constantOfShape)},
	"Shape": {1, 1, one(func(_ *tape, n *node) *value {
		rank := int64(len(n.in[0].dims))
		clamp := func(i int64) int64 {
			if i < 0 {
				i += rank
			}
			return min(max(i, 0), rank)
		}
		start, end := clamp(n.int("start", 0)), clamp(n.int("end", rank))
		return knownInts(n.in[0].dims[start:max(start, end)])
	})},
	"Size": {1, 1, one(func(_ *tape, n *node) *value {
		return known(onnx.Int64, nil, []float64{float64(elements(n.in[0].dims))})
	})},
	"Range": {3, 3, one(rangeNode)},
}

func constantNode(_ *tape, n *node) *value {
	if a := n.attr("value", onnxpb.AttributeProto_TENSOR); a != nil {
		return constant(n.model, a.GetT())
	}
	if a := n.attr("value_float", onnxpb.AttributeProto_FLOAT); a != nil {
		return known(onnx.Float32, nil, []float64{float64(a.GetF())})
	}
	if a := n.attr("value_int", onnxpb.AttributeProto_INT); a != nil {
		return known(onnx.Int64, nil, []float64{float64(a.GetI())})
	}
	if a := n.attr("value_ints", onnxpb.AttributeProto_INTS); a != nil {
		return knownInts(a.Ints)
	}
	if a := n.attr("value_floats", onnxpb.AttributeProto_FLOATS); a != nil {
		var data []float64
		for _, x := range a.Floats {
			data = append(data, float64(x))
		}
		return known(onnx.Float32, []int64{int64(len(data))}, data)
	}
	fail("a constant that is neither a tensor nor numbers")
	return nil
}

func constantOfShape(t *tape, n *node) *value {
	dims := n.constants(0, "shape")
	fill := known(onnx.Float32, []int64{1}, []float64{0})
	if a := n.attr("value", onnxpb.AttributeProto_TENSOR); a != nil {
		fill = constant(n.model, a.GetT())
	}
	if len(fill.data) != 1 {
		fail("attribute value has %d elements", len(fill.data))
	}
	return t.expand(t.reshape(fill, nil), dims)
}

func rangeNode(_ *tape, n *node) *value {
	for _, v := range n.in {
		if len(v.data) != 1 {
			fail("its bounds are no constants")
		}
	}
	start, limit, delta := n.in[0].data[0], n.in[1].data[0], n.in[2].data[0]
	count := (limit - start) / delta
	if !(count <= maxKnown) {
		fail("a range of %g numbers", count)
	}
	data := []float64{}
	for i := 0; float64(i) < count; i++ {
		data = append(data, start+float64(i)*delta)
	}
	return known(n.in[0].dtype, []int64{int64(len(data))}, data)
}
