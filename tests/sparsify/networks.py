"""Small seeded networks for the tests of sparsify, with inputs that have structure, as real ones have."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def perceptron(depth: int = 32, hidden: int = 48, classes: int = 8, seed: int = 0) -> onnx.ModelProto:
    """x[n, depth] -> MatMul, Add, Relu -> Gemm -> scores[n, classes]."""
    rng = np.random.default_rng(seed)
    constants = {
        "w1": rng.standard_normal((depth, hidden)) / np.sqrt(depth),
        "b1": 0.1 * rng.standard_normal(hidden),
        "w2": rng.standard_normal((classes, hidden)) / np.sqrt(hidden),
        "b2": 0.1 * rng.standard_normal(classes),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["product"], name="first"),
        helper.make_node("Add", ["product", "b1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"], name="second", transB=1),
    ]
    return model(nodes, constants, ["n", depth], ["n", classes])


def pixels(seed: int = 0) -> onnx.ModelProto:
    """x[n, 4, 12, 12] -> two convolutions with a residual around the second, a depthwise one, a linear head."""
    rng = np.random.default_rng(seed)
    constants = {
        "w1": rng.standard_normal((8, 4, 3, 3)) / 6,
        "b1": 0.1 * rng.standard_normal(8),
        "w2": rng.standard_normal((8, 8, 3, 3)) / 9,
        "w3": rng.standard_normal((8, 1, 3, 3)) / 3,
        "w4": rng.standard_normal((8, 5)) / 3,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="body", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s2"]),
        helper.make_node("Conv", ["s2", "w3"], ["c3"], name="depthwise", group=8),
        helper.make_node("GlobalAveragePool", ["c3"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w4"], ["scores"], name="head"),
    ]
    return model(nodes, constants, ["n", 4, 12, 12], ["n", 5])


def correlated(count: int, *shape: int, seed: int = 1) -> np.ndarray:
    """[count, *shape] float32 whose entries depend on each other, with a mean."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    mixing = rng.standard_normal((size, size)) * np.exp(rng.standard_normal(size)) / np.sqrt(size)
    values = rng.standard_normal((count, size)) @ mixing + 0.3 * rng.standard_normal(size)
    return values.reshape(count, *shape).astype(np.float32)


def model(nodes, constants, shape, result) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
