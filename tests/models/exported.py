"""Small networks node by node as torch writes them: shapes read, taken apart and put together again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

TO_THE_END = np.array([2**63 - 1])


@dataclass
class Exported:
    """A graph that grows; operands that are arrays become initializers."""

    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def input(self, name: str, shape: list[int | str], dtype: str = "float32") -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, tensor: str, dtype: str = "float32") -> None:
        self.op("Identity", tensor, out=name)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def constant(self, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:])) or 1
        return self.constant((self.rng.standard_normal(shape) * (scale or fan_in**-0.5)).astype(np.float32))

    def ops(self, kind: str, *operands: Any, outputs: int, **attrs: Any) -> list[str]:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self._add(kind, operands, names, attrs)
        return names

    def op(self, kind: str, *operands: Any, out: str = "", **attrs: Any) -> str:
        names = [out or f"t{len(self.nodes)}"]
        self._add(kind, operands, names, attrs)
        return names[0]

    def _add(self, kind: str, operands: Any, names: list[str], attrs: dict[str, Any]) -> None:
        inputs = [o if isinstance(o, str) else self.constant(o) for o in operands]
        self.nodes.append(helper.make_node(kind, inputs, names, f"/{kind}_{len(self.nodes)}", **attrs))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "exported", self.inputs, self.outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    # --- what exporters write again and again -------------------------------------------------------------------------

    def size(self, x: str, axis: int) -> str:
        return self.op("Gather", self.op("Shape", x), np.array(axis), axis=0)

    def vector(self, *sizes: str | int) -> str:
        parts = [self.unsqueeze(s, 0) if isinstance(s, str) else np.array([s]) for s in sizes]
        return self.op("Concat", *parts, axis=0)

    def unsqueeze(self, x: str, *axes: int) -> str:
        for axis in axes:
            x = self.op("Unsqueeze", x, np.array([axis]))
        return x

    def slice(self, x: str, start: str | int, end: Any, axis: int) -> str:
        first, last = (self.unsqueeze(v, 0) if isinstance(v, str) else np.array([v]) for v in (start, end))
        return self.op("Slice", x, first, last, np.array([axis]), np.array([1]))

    def linear(self, x: str, inputs: int, outputs: int, bias: bool = True) -> str:
        product = self.op("MatMul", x, self.weight(inputs, outputs))
        return self.op("Add", self.weight(outputs, scale=0.1), product) if bias else product

    def layer_norm(self, x: str, width: int) -> str:
        scale = 0.5 + np.abs(self.rng.standard_normal(width)).astype(np.float32)
        if self.opset >= 17:
            return self.op("LayerNormalization", x, scale, self.weight(width, scale=0.1), axis=-1)
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, np.float32(2)), axes=[-1])
        normed = self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, np.float32(1e-5))))
        return self.op("Add", self.op("Mul", normed, scale), self.weight(width, scale=0.1))

    def rms_norm(self, x: str, width: int) -> str:
        mean = self.op("ReduceMean", self.op("Pow", x, np.float32(2)), axes=[-1])
        root = self.op("Sqrt", self.op("Add", mean, np.float32(1e-6)))
        normed = self.op("Mul", x, self.op("Div", np.float32(1), root))
        return self.op("Mul", np.full(width, 1.1, np.float32), normed)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def gelu_tanh(self, x: str) -> str:
        cubic = self.op("Add", x, self.op("Mul", self.op("Pow", x, np.float32(3)), np.float32(0.044715)))
        bent = self.op("Tanh", self.op("Mul", cubic, np.float32(0.7978846)))
        return self.op("Mul", self.op("Mul", x, np.float32(0.5)), self.op("Add", bent, np.float32(1)))

    def heads(self, x: str, count: int, depth: int) -> str:
        shape = self.vector(self.size(x, 0), self.size(x, 1), count, depth)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def joined(self, x: str, width: int) -> str:
        turned = self.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.op("Reshape", turned, self.vector(self.size(turned, 0), self.size(turned, 1), width))

    def expand(self, x: str, shape: str, rank: int) -> str:
        """With -1 for a size that stays, which torch guards against in this way."""
        one = numpy_helper.from_array(np.array([1], np.int64))
        ones = self.op("ConstantOfShape", np.array([rank]), value=one)
        kept = self.op("Equal", shape, self.op("Mul", ones, np.array(-1)))
        return self.op("Expand", x, self.op("Where", kept, ones, shape))
