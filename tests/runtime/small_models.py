"""Models of a few nodes that between them reach every part of the runtime."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONVNET_DIMS = {"batch": (1, 8)}
LOOKUP_DIMS = {"batch": (1, 4), "words": (1, 16)}

Shape = list[int | str]


def _weights(seed: int = 0, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    return [numpy_helper.from_array((0.1 * rng.standard_normal(s)).astype(np.float32), n) for n, s in shapes.items()]


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, Shape],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convnet() -> onnx.ModelProto:
    """image [batch, 3, 16, 16] -> scores [batch, 10]; steps heavy enough for several threads."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Flatten", ["r2"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "g", "c"], ["logits"], "gemm"),
        helper.make_node("Softmax", ["logits"], ["scores"], "softmax", axis=1),
    ]
    weights = _weights(w1=(24, 3, 3, 3), b1=(24,), w2=(40, 24, 3, 3), b2=(40,), g=(40 * 8 * 8, 10), c=(10,))
    inputs = {"image": (TensorProto.FLOAT, ["batch", 3, 16, 16])}
    return _model(nodes, inputs, {"scores": ["batch", 10]}, weights)


TABLE_ROWS = 11


def lookup() -> onnx.ModelProto:
    """ids [batch, words] int64 and bias [batch, words, 8] -> vectors [batch, words, 12]: an index, shared dims."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], "embed"),
        helper.make_node("Add", ["embedded", "bias"], ["sum"], "add"),
        helper.make_node("MatMul", ["sum", "w"], ["vectors"], "project"),
    ]
    weights = _weights(table=(TABLE_ROWS, 8), w=(8, 12))
    inputs: dict[str, tuple[int, Shape]] = {
        "ids": (TensorProto.INT64, ["batch", "words"]),
        "bias": (TensorProto.FLOAT, ["batch", "words", 8]),
    }
    return _model(nodes, inputs, {"vectors": ["batch", "words", 12]}, weights)


def product(seed: int, k: int = 6, n: int = 4) -> onnx.ModelProto:
    """x [rows, k] -> y [rows, n]; another seed gives other weights."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    return _model(nodes, {"x": (TensorProto.FLOAT, ["rows", k])}, {"y": ["rows", n]}, _weights(seed, w=(k, n)))


def matrix(product_model: onnx.ModelProto) -> np.ndarray:
    """The weights of a `product` model."""
    return numpy_helper.to_array(product_model.graph.initializer[0])
