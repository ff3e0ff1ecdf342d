"""Writes the models in this folder with the reference implementation of ONNX,
so that the Go reader is tested on files it did not write.

Made with Python 3.11, onnx 1.23.2, numpy 2.4.6:  python make.py
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper, numpy_helper

rng = np.random.default_rng(5)


def array(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def const(name, value):
    return numpy_helper.from_array(value, name)


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(nodes, inputs, outputs, initializers, opset, ir):
    if ir < 4:  # old versions list initialisers as inputs
        inputs = inputs + [value(t.name, t.data_type, *t.dims) for t in initializers]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir,
        producer_name="make.py", producer_version="1")


def plain(opset, ir):
    """Logits [N, 5] of one head."""
    return model(
        [helper.make_node("Tanh", ["x"], ["hidden"], name="act"),
         helper.make_node("Gemm", ["hidden", "w", "b"], ["y"], name="fc")],
        [value("x", T.FLOAT, "N", 4)], [value("y", T.FLOAT, "N", 5)],
        [const("w", array(4, 5)), const("b", array(5))], opset, ir)


def stacked(opset, ir):
    """Logits [N, 3, 5] in float16, with fields that few readers know."""
    node = helper.make_node("Reshape", ["z", "shape"], ["y"], name="split heads")
    if ir >= 10:
        node.metadata_props.add(key="placed by", value="a node's own metadata")
    m = model(
        [helper.make_node("MatMul", ["x", "w"], ["z"], name="fc"), node],
        [value("x", T.FLOAT16, "N", 4)], [value("y", T.FLOAT16, "N", 3, 5)],
        [const("w", array(4, 15, dtype=np.float16)), const("shape", np.array([-1, 3, 5], np.int64))], opset, ir)
    a = m.graph.quantization_annotation.add(tensor_name="w")
    a.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="an annotation")
    return m


def norms(opset, ir):
    """Two BatchNormalizations that share their statistics, as exporters merge equal constants."""
    return model(
        [helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["h"], name="bn1", epsilon=1e-3),
         helper.make_node("Relu", ["h"], ["r"], name="relu"),
         helper.make_node("BatchNormalization", ["r", "one", "zero", "zero", "one"], ["n"], name="bn2"),
         helper.make_node("Flatten", ["n"], ["y"], name="flat", axis=1)],
        [value("x", T.FLOAT, "N", 2, 3, 3)], [value("y", T.FLOAT, "N", 18)],
        [const("one", np.ones(2, np.float32)), const("zero", np.zeros(2, np.float32))], opset, ir)


def branches(opset, ir):
    """External data in three places: the graph, an attribute and a branch of an If."""
    def outside(name, offset, *shape):
        t = T(name=name, data_type=T.FLOAT, dims=shape, data_location=T.EXTERNAL)
        t.external_data.add(key="location", value="weights/a.bin" if name != "v" else "b.bin")
        t.external_data.add(key="offset", value=str(offset))
        t.external_data.add(key="length", value=str(4 * int(np.prod(shape))))
        return t
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "v"], ["t"], name="then")], "then", [], [value("t", T.FLOAT, "N", 4)], [outside("v", 0, 4)])
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], name="c", value=outside("c", 80, 4)),
         helper.make_node("Sub", ["x", "c"], ["e"], name="else")], "else", [], [value("e", T.FLOAT, "N", 4)])
    return model(
        [helper.make_node("If", ["flag"], ["h"], name="if", then_branch=then, else_branch=other),
         helper.make_node("MatMul", ["h", "w"], ["y"], name="fc")],
        [value("x", T.FLOAT, "N", 4), value("flag", T.BOOL)], [value("y", T.FLOAT, "N", 5)],
        [outside("w", 0, 4, 5)], opset, ir)


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    os.makedirs(os.path.join(out, "weights"), exist_ok=True)
    for name, m in {
        "plain-7": plain(7, 3), "stacked-11": stacked(11, 10), "norms-15": norms(15, 8), "branches-21": branches(21, 10),
    }.items():
        with open(os.path.join(out, name + ".onnx"), "wb") as f:
            f.write(m.SerializeToString())
    array(24).tofile(os.path.join(out, "weights", "a.bin"))
    array(4).tofile(os.path.join(out, "b.bin"))
