"""Makes the models of this folder and goldens.json.

Written with Python 3.11, numpy 2.4.6 and onnx 1.23.2. The goldens come from
NumPy in float64, not from ONNX Runtime.

    python make.py            # writes beside itself
"""
import json
import os

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = os.path.dirname(os.path.abspath(__file__))
PIXELS, WIDTH, CLUSTERS = 3 * 4 * 4, 8, 5

rng = np.random.default_rng(1)
# Multiples of 1/64: exact in float16 too.
W0 = rng.integers(-16, 17, (PIXELS, WIDTH)) / 64
B0 = rng.integers(-16, 17, WIDTH) / 64
HEADS = [(rng.integers(-64, 65, (WIDTH, CLUSTERS)) / 64, rng.integers(-64, 65, CLUSTERS) / 64) for _ in range(2)]


def constant(name, value, dtype=np.float32):
    return nh.from_array(np.asarray(value, dtype), name)


def value(name, kind, dims):
    return h.make_tensor_value_info(name, kind, dims)


def save(name, nodes, inputs, outputs, constants=(), **kw):
    graph = h.make_graph(nodes, name, inputs, outputs, list(constants))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    onnx.save(model, os.path.join(HERE, name + ".onnx"), **kw)


def linear(name, kind=T.FLOAT, batch="N", **kw):
    """images [N,3,4,4] -> features [N,8] (ReLU), logits_0 and logits_1 [N,5]."""
    dtype = np.float16 if kind == T.FLOAT16 else np.float32
    nodes = [
        h.make_node("Flatten", ["images"], ["flat"]),
        h.make_node("Gemm", ["flat", "w0", "b0"], ["trunk"]),
        h.make_node("Relu", ["trunk"], ["features"]),
    ]
    constants = [constant("w0", W0, dtype), constant("b0", B0, dtype)]
    for i, (w, b) in enumerate(HEADS):
        nodes.append(h.make_node("Gemm", ["features", f"w{i+1}", f"b{i+1}"], [f"logits_{i}"]))
        constants += [constant(f"w{i+1}", w, dtype), constant(f"b{i+1}", b, dtype)]
    outputs = [value(f"logits_{i}", kind, [batch, CLUSTERS]) for i in range(2)]
    outputs.append(value("features", kind, [batch, WIDTH]))
    save(name, nodes, [value("images", kind, [batch, 3, 4, 4])], outputs, constants, **kw)


def uint8():
    """images uint8 [N,4,4,3] -> logits_0 [N,5], of (x - 128) / 64 in NCHW."""
    w, b = HEADS[0]
    nodes = [
        h.make_node("Cast", ["images"], ["float"], to=T.FLOAT),
        h.make_node("Sub", ["float", "mean"], ["centred"]),
        h.make_node("Div", ["centred", "std"], ["scaled"]),
        h.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        h.make_node("Flatten", ["nchw"], ["flat"]),
        h.make_node("Gemm", ["flat", "w0", "b0"], ["trunk"]),
        h.make_node("Relu", ["trunk"], ["features"]),
        h.make_node("Gemm", ["features", "w1", "b1"], ["logits_0"]),
    ]
    constants = [constant("mean", 128), constant("std", 64), constant("w0", W0), constant("b0", B0),
                 constant("w1", w), constant("b1", b)]
    save("uint8", nodes, [value("images", T.UINT8, ["N", 4, 4, 3])], [value("logits_0", T.FLOAT, ["N", CLUSTERS])], constants)


def loop():
    """x [64,64], trips [1] float -> y: x multiplied by a rotation trips times."""
    n = 64
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    body = h.make_graph(
        [h.make_node("Identity", ["keep_in"], ["keep_out"]), h.make_node("MatMul", ["state_in", "q"], ["state_out"])],
        "body",
        [value("i", T.INT64, []), value("keep_in", T.BOOL, []), value("state_in", T.FLOAT, [n, n])],
        [value("keep_out", T.BOOL, []), value("state_out", T.FLOAT, [n, n])])
    nodes = [
        h.make_node("Cast", ["trips"], ["trips_int"], to=T.INT64),
        h.make_node("Squeeze", ["trips_int"], ["trips_scalar"]),
        h.make_node("Loop", ["trips_scalar", "true", "x"], ["y"], body=body),
    ]
    save("loop", nodes, [value("x", T.FLOAT, [n, n]), value("trips", T.FLOAT, [1])], [value("y", T.FLOAT, [n, n])],
         [constant("q", q), constant("true", True, np.bool_)])


def nan():
    """images [N,4] -> logits [N,4]: the square root, NaN for negative pixels."""
    save("nan", [h.make_node("Sqrt", ["images"], ["logits"])],
         [value("images", T.FLOAT, ["N", 4])], [value("logits", T.FLOAT, ["N", 4])])


def free():
    """images [N,C,H,W] -> flat [N,?]; also labels, of a type no slot carries."""
    save("free", [h.make_node("Flatten", ["images"], ["flat"]),
                  h.make_node("ArgMax", ["flat"], ["labels"], axis=1, keepdims=0)],
         [value("images", T.FLOAT, ["N", "C", "H", "W"])],
         [value("flat", T.FLOAT, ["N", "D"]), value("labels", T.INT64, ["N"])])


def batch_mean():
    """images [N,4] -> logits [N,4]: each row minus the batch's mean row, so that rows depend on their company."""
    save("batch_mean", [h.make_node("ReduceMean", ["images"], ["mean"], axes=[0], keepdims=1),
                        h.make_node("Sub", ["images", "mean"], ["logits"])],
         [value("images", T.FLOAT, ["N", 4])], [value("logits", T.FLOAT, ["N", 4])])


def random_noise():
    """images [N,4] -> logits [N,4] with noise that differs from run to run."""
    save("random_noise", [h.make_node("RandomNormalLike", ["images"], ["noise"]),
                          h.make_node("Add", ["images", "noise"], ["logits"])],
         [value("images", T.FLOAT, ["N", 4])], [value("logits", T.FLOAT, ["N", 4])])


def conv():
    """images [N,3,32,32] -> logits [N,16]: four convolutions, for determinism and benchmarks."""
    nodes, constants, last, channels = [], [], "images", 3
    for i, out in enumerate([16, 16, 32, 32]):
        w = rng.standard_normal((out, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        constants.append(constant(f"c{i}", w.astype(np.float16).astype(np.float32)))
        nodes += [h.make_node("Conv", [last, f"c{i}"], [f"conv{i}"], pads=[1, 1, 1, 1], strides=[1 + i % 2] * 2),
                  h.make_node("Relu", [f"conv{i}"], [f"relu{i}"])]
        last, channels = f"relu{i}", out
    nodes += [h.make_node("GlobalAveragePool", [last], ["pool"]), h.make_node("Flatten", ["pool"], ["flat"]),
              h.make_node("MatMul", ["flat", "w"], ["logits"])]
    constants.append(constant("w", rng.standard_normal((32, 16))))
    save("conv", nodes, [value("images", T.FLOAT, ["N", 3, 32, 32])], [value("logits", T.FLOAT, ["N", 16])], constants)


def pixels(n):
    """The tests' images: (37 i mod 101 - 50) / 32 for the i-th element."""
    return ((37 * np.arange(n * PIXELS)) % 101 - 50) / 32


def reference(x):
    features = np.maximum(x.reshape(-1, PIXELS) @ W0 + B0, 0)
    return [features @ w + b for w, b in HEADS] + [features]


linear("linear")
linear("linear_float16", T.FLOAT16)
linear("linear_batch4", batch=4)
linear("external", save_as_external_data=True, location="external.bin", size_threshold=0)
uint8(), loop(), nan(), free(), batch_mean(), random_noise(), conv()

l0, l1, features = reference(pixels(4))
byte = ((37 * np.arange(4 * PIXELS)) % 256).reshape(4, 4, 4, 3)
u8 = reference((byte.transpose(0, 3, 1, 2) - 128) / 64)[0]
with open(os.path.join(HERE, "goldens.json"), "w") as f:
    json.dump({"logits_0": l0.ravel().tolist(), "logits_1": l1.ravel().tolist(),
               "features": features.ravel().tolist(), "uint8_logits_0": u8.ravel().tolist()}, f)
    f.write("\n")
