"""A two-layer decoder with caches of keys and values as exporters write them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HEADS, DEPTH, WORDS, TOKENS = 2, 4, 8, 50, 64
HIDDEN = HEADS * DEPTH


class Decoder:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.n = 0

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def op(self, kind: str, *inputs: str, out: str = "", **attrs: object) -> str:
        self.n += 1
        out = out or f"t{self.n}"
        self.nodes.append(helper.make_node(kind, inputs, [out], f"{kind}_{self.n}", **attrs))
        return out

    def heads(self, x: str) -> str:
        """[batch, 1, hidden] -> [batch, heads, 1, depth]."""
        split = self.constant(np.array([0, 0, HEADS, DEPTH], np.int64))
        return self.op("Transpose", self.op("Reshape", self.op("MatMul", x, self.weight(HIDDEN, HIDDEN)), split),
                       perm=[0, 2, 1, 3])  # fmt: skip

    def block(self, x: str, layer: int) -> str:
        ones, zeros = self.constant(np.ones(HIDDEN, np.float32)), self.constant(np.zeros(HIDDEN, np.float32))
        h = self.op("LayerNormalization", x, ones, zeros)
        q, k, v = self.heads(h), self.heads(h), self.heads(h)
        k = self.op("Concat", f"past_key_{layer}", k, out=f"present_key_{layer}", axis=2)
        v = self.op("Concat", f"past_value_{layer}", v, out=f"present_value_{layer}", axis=2)
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Softmax", self.op("Div", scores, self.constant(np.float32(np.sqrt(DEPTH)))), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.constant(np.array([0, 0, HIDDEN], np.int64)))
        x = self.op("Add", x, self.op("MatMul", joined, self.weight(HIDDEN, HIDDEN)))
        inner = self.op("Relu", self.op("MatMul", self.op("LayerNormalization", x, ones, zeros),
                                        self.weight(HIDDEN, 2 * HIDDEN)))  # fmt: skip
        return self.op("Add", x, self.op("MatMul", inner, self.weight(2 * HIDDEN, HIDDEN)))

    def model(self) -> onnx.ModelProto:
        x = self.op("Gather", self.weight(WORDS, HIDDEN), "token")
        for layer in range(LAYERS):
            x = self.block(x, layer)
        self.op("MatMul", x, self.weight(HIDDEN, WORDS), out="logits")
        names = [f"{kind}_{layer}" for layer in range(LAYERS) for kind in ("key", "value")]
        info = helper.make_tensor_value_info
        inputs = [info("token", TensorProto.INT64, ["batch", "tokens"])]
        inputs += [info(f"past_{n}", TensorProto.FLOAT, ["batch", HEADS, "past", DEPTH]) for n in names]
        outputs = [info("logits", TensorProto.FLOAT, ["batch", "tokens", WORDS])]
        outputs += [info(f"present_{n}", TensorProto.FLOAT, ["batch", HEADS, "total", DEPTH]) for n in names]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
