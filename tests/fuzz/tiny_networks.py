"""Tiny networks of the usual kinds, at random sizes: what the mutations start from, beside the node tests of onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Rng = np.random.Generator


class Builder:
    """Collects nodes and weights; every method that adds one returns the name of what it computes."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        names = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"node_{len(self.nodes)}", **attributes))
        return names[0] if count == 1 else names

    def constant(self, array: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        """Floats of which some, or most, are zero."""
        keep = self.rng.random(shape) < self.rng.choice([1.0, 0.5, 0.15])
        return self.constant((self.rng.standard_normal(shape) * keep).astype(np.float32))

    def quantized(self, name: str, scale: float = 0.05) -> str:
        """Through uint8 and back, as a QDQ export does."""
        q = self.constant(np.float32(scale)), self.constant(np.uint8(self.rng.integers(0, 256)))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", name, *q), *q)

    def quantized_weight(self, *shape: int, axis: int = 0) -> str:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        scales = self.rng.uniform(0.01, 0.02, shape[axis]).astype(np.float32)
        zero = np.zeros(shape[axis], np.int8)
        parts = self.constant(codes), self.constant(scales), self.constant(zero)
        return self.node("DequantizeLinear", *parts, axis=axis)

    def model(self, inputs: Sequence[tuple[str, Sequence[Any]]], output: str, opset: int) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape)) for n, shape in inputs]
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", values, results, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _activation(b: Builder, x: str) -> str:
    ops = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus", "Erf", "Abs", "Neg", "Identity")
    return b.node(str(b.rng.choice(ops)), x)


def perceptron(rng: Rng) -> onnx.ModelProto:
    """Gemm or MatMul layers, the batch free or fixed."""
    b, x = Builder(rng), "x"
    widths = [int(w) for w in rng.choice([1, 3, 4, 8, 16, 17, 32], 3)]
    for k, n in pairwise(widths):
        product = b.node("Gemm", x, b.weight(k, n), b.weight(n)) if rng.random() < 0.5 else None
        x = _activation(b, product or b.node("Add", b.node("MatMul", x, b.weight(k, n)), b.weight(n)))
    batch = "batch" if rng.random() < 0.4 else int(rng.integers(1, 6))
    return b.model([("x", (batch, widths[0]))], x, 17)


def convolutions(rng: Rng) -> onnx.ModelProto:
    """Convolution, pooling, a residual, a concatenation, a classifier."""
    b = Builder(rng)
    c, size, k = int(rng.choice([1, 3, 4, 8])), int(rng.integers(6, 13)), int(rng.choice([1, 3]))
    wide = int(rng.choice([4, 8, 16]))
    x = b.node("Conv", "x", b.weight(wide, c, k, k), b.weight(wide), pads=[k // 2] * 4, strides=[1, 1])
    x = _activation(b, x)
    branch = b.node("Conv", x, b.weight(wide, 1, 3, 3), pads=[1] * 4, group=wide)
    x = b.node("Add", x, branch) if rng.random() < 0.5 else b.node("Concat", x, branch, axis=1)
    pool = str(rng.choice(["MaxPool", "AveragePool"]))
    x = b.node("Flatten", b.node("GlobalAveragePool", b.node(pool, x, kernel_shape=[2, 2], strides=[2, 2])))
    return b.model([("x", (int(rng.integers(1, 3)), c, size, size))], x, 17)


def quantized_convolutions(rng: Rng) -> onnx.ModelProto:
    """Two QDQ convolutions and a product."""
    b, c, wide, size = Builder(rng), int(rng.choice([3, 4])), int(rng.choice([4, 16])), int(rng.integers(5, 10))
    x = b.quantized("x")
    x = b.quantized(b.node("Relu", b.node("Conv", x, b.quantized_weight(wide, c, 3, 3), pads=[1] * 4)))
    x = b.quantized(b.node("Conv", x, b.quantized_weight(wide, wide, 1, 1), strides=[2, 2]))
    x = b.quantized(b.node("Flatten", b.node("GlobalAveragePool", x)))
    return b.model([("x", (1, c, size, size))], b.node("MatMul", x, b.quantized_weight(wide, 5, axis=1)), 17)


def dynamic_quantization(rng: Rng) -> onnx.ModelProto:
    """DynamicQuantizeLinear and MatMulInteger."""
    b, k, n = Builder(rng), int(rng.choice([4, 16, 19])), int(rng.choice([4, 16, 33]))
    q, scale, zero = b.node("DynamicQuantizeLinear", "x", count=3)
    codes = b.constant(rng.integers(-127, 128, (k, n)).astype(np.int8))
    product = b.node("Cast", b.node("MatMulInteger", q, codes, zero), to=TensorProto.FLOAT)
    x = b.node("Mul", product, b.node("Mul", scale, b.constant(np.float32(0.02))))
    return b.model([("x", (int(rng.integers(1, 5)), k))], x, 17)


def attention(rng: Rng) -> onnx.ModelProto:
    """One head with layer normalization, the sequence free or fixed."""
    b, width = Builder(rng), int(rng.choice([4, 8, 16]))
    x = b.node("LayerNormalization", "x", b.weight(width), b.weight(width), axis=-1)
    q, k, v = (b.node("MatMul", x, b.weight(width, width)) for _ in range(3))
    scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 1]))
    scores = b.node("Softmax", b.node("Mul", scores, b.constant(np.float32(width**-0.5))), axis=-1)
    x = b.node("Add", "x", b.node("MatMul", scores, v))
    sequence = "sequence" if rng.random() < 0.4 else int(rng.integers(1, 9))
    return b.model([("x", (1, sequence, width))], x, 17)


def recurrent(rng: Rng) -> onnx.ModelProto:
    """LSTM or GRU over a few steps."""
    b, width, hidden = Builder(rng), int(rng.integers(1, 9)), int(rng.integers(1, 9))
    op, gates = ("LSTM", 4) if rng.random() < 0.5 else ("GRU", 3)
    w, r = b.weight(1, gates * hidden, width), b.weight(1, gates * hidden, hidden)
    y = b.node(op, "x", w, r, b.weight(1, 2 * gates * hidden), hidden_size=hidden)
    return b.model([("x", (int(rng.integers(1, 5)), int(rng.integers(1, 3)), width))], y, 17)


def movement(rng: Rng) -> onnx.ModelProto:
    """Shapes computed from shapes: the arithmetic that exporters leave in graphs."""
    b, rows, columns = Builder(rng), int(rng.integers(2, 7)), int(rng.integers(2, 7))
    size = b.node("Gather", b.node("Shape", "x"), b.constant(np.array([0], np.int64)), axis=0)
    shape = b.node("Concat", b.constant(np.array([-1], np.int64)), size, axis=0)
    x = b.node("Transpose", b.node("Reshape", "x", shape), perm=[1, 0])
    ends = [b.constant(np.array([v], np.int64)) for v in (0, int(rng.integers(1, 9)), 1)]
    x = b.node("ReduceMean", b.node("Slice", x, *ends), axes=[1], keepdims=int(rng.integers(0, 2)))
    return b.model([("x", ("rows" if rng.random() < 0.4 else rows, columns))], x, 17)


NETWORKS: tuple[Callable[[Rng], onnx.ModelProto], ...] = (
    perceptron, convolutions, quantized_convolutions, dynamic_quantization, attention, recurrent, movement,
)  # fmt: skip
