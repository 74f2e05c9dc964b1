"""A two-layer decoder with KV caches as exporters write them, 64 tokens, its caches bound as states."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec

_LAYERS, _HEADS, _DEPTH, _WORDS, _TOKENS = 2, 4, 8, 50, 64
_HIDDEN = _HEADS * _DEPTH


class _Decoder:
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
        split = self.constant(np.array([0, 0, _HEADS, _DEPTH], np.int64))
        return self.op("Transpose", self.op("Reshape", self.op("MatMul", x, self.weight(_HIDDEN, _HIDDEN)), split),
                       perm=[0, 2, 1, 3])  # fmt: skip

    def block(self, x: str, layer: int) -> str:
        ones, zeros = self.constant(np.ones(_HIDDEN, np.float32)), self.constant(np.zeros(_HIDDEN, np.float32))
        h = self.op("LayerNormalization", x, ones, zeros)
        q, k, v = self.heads(h), self.heads(h), self.heads(h)
        k = self.op("Concat", f"past_key_{layer}", k, out=f"present_key_{layer}", axis=2)
        v = self.op("Concat", f"past_value_{layer}", v, out=f"present_value_{layer}", axis=2)
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Softmax", self.op("Div", scores, self.constant(np.float32(np.sqrt(_DEPTH)))), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.constant(np.array([0, 0, _HIDDEN], np.int64)))
        x = self.op("Add", x, self.op("MatMul", joined, self.weight(_HIDDEN, _HIDDEN)))
        inner = self.op("Relu", self.op("MatMul", self.op("LayerNormalization", x, ones, zeros),
                                        self.weight(_HIDDEN, 2 * _HIDDEN)))  # fmt: skip
        return self.op("Add", x, self.op("MatMul", inner, self.weight(2 * _HIDDEN, _HIDDEN)))

    def model(self) -> onnx.ModelProto:
        x = self.op("Gather", self.weight(_WORDS, _HIDDEN), "token")
        for layer in range(_LAYERS):
            x = self.block(x, layer)
        self.op("MatMul", x, self.weight(_HIDDEN, _WORDS), out="logits")
        names = [f"{kind}_{layer}" for layer in range(_LAYERS) for kind in ("key", "value")]
        info = helper.make_tensor_value_info
        inputs = [info("token", TensorProto.INT64, ["batch", 1])]
        inputs += [info(f"past_{n}", TensorProto.FLOAT, ["batch", _HEADS, "past", _DEPTH]) for n in names]
        outputs = [info("logits", TensorProto.FLOAT, ["batch", 1, _WORDS])]
        outputs += [info(f"present_{n}", TensorProto.FLOAT, ["batch", _HEADS, "total", _DEPTH]) for n in names]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_sixty_four_tokens(tmp_path):
    model = _Decoder().model()
    names = [i.name for i in model.graph.input if i.name.startswith("past")]
    so = sparsec.build(model, output=tmp_path / "decoder.so", dims={"batch": 1, "past": (0, _TOKENS)})
    bound = sparsec.load(so, state={name.replace("past", "present"): name for name in names})
    free = sparsec.load(so)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    caches = {name: np.zeros((1, _HEADS, 0, _DEPTH), np.float32) for name in names}
    token = np.array([[7]], np.int64)
    for step in range(_TOKENS):
        expected = session.run(None, {"token": token, **caches})
        unbound = free.run({"token": token, **caches})
        logits = bound.run({"token": token})["logits"]
        np.testing.assert_array_equal(logits, unbound["logits"])
        np.testing.assert_allclose(logits, expected[0], atol=1e-4 * np.abs(expected[0]).max())
        caches = {name: unbound[name.replace("past", "present")] for name in names}
        assert bound.state_get(names[0]).shape[2] == step + 1
        token = logits.argmax(-1)
    with pytest.raises(sparsec.SparsecError, match="has room for 64"):
        bound.run({"token": token})
