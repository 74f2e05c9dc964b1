"""A two-layer decoder with KV caches as exporters write them, 64 tokens, its caches bound as states."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from raw_context import RawContext

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
        inputs = [info("token", TensorProto.INT64, ["batch", "tokens"])]
        inputs += [info(f"past_{n}", TensorProto.FLOAT, ["batch", _HEADS, "past", _DEPTH]) for n in names]
        outputs = [info("logits", TensorProto.FLOAT, ["batch", "tokens", _WORDS])]
        outputs += [info(f"present_{n}", TensorProto.FLOAT, ["batch", _HEADS, "total", _DEPTH]) for n in names]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def decoder():
    return _Decoder().model()


@pytest.fixture(scope="module")
def names(decoder):
    return [i.name for i in decoder.graph.input if i.name.startswith("past")]


@pytest.fixture(scope="module")
def artifact(decoder, tmp_path_factory):
    dims = {"batch": (1, 2), "tokens": (1, 8), "past": (0, _TOKENS)}
    return sparsec.build(decoder, output=tmp_path_factory.mktemp("decoder") / "decoder.so", dims=dims)


def _state(names):
    return {name.replace("past", "present"): name for name in names}


@pytest.mark.parametrize(("batch", "prompt", "threads"), [(1, 1, 1), (2, 8, 2)])
def test_sixty_four_tokens(decoder, names, artifact, batch, prompt, threads):
    """Equal to passing the caches by hand, and right; a prompt may come first, several tokens at once."""
    bound = sparsec.load(artifact, threads=threads, state=_state(names))
    free = sparsec.load(artifact)
    session = ort.InferenceSession(decoder.SerializeToString(), providers=["CPUExecutionProvider"])
    caches = {name: np.zeros((batch, _HEADS, 0, _DEPTH), np.float32) for name in names}
    token = np.random.default_rng(1).integers(0, _WORDS, (batch, prompt))
    length = 0
    while length < _TOKENS:
        length += token.shape[1]
        expected = session.run(None, {"token": token, **caches})
        unbound = free.run({"token": token, **caches})
        logits = bound.run({"token": token})["logits"]
        np.testing.assert_array_equal(logits, unbound["logits"])
        np.testing.assert_allclose(logits, expected[0], atol=1e-4 * np.abs(expected[0]).max())
        caches = {name: unbound[name.replace("past", "present")] for name in names}
        token = logits[:, -1:].argmax(-1)
        for name, value in caches.items():
            if length % 16 == 0:
                np.testing.assert_array_equal(bound.state_get(name), value)
    with pytest.raises(sparsec.SparsecError, match="has room for 64"):
        bound.run({"token": token})
    for name, value in caches.items():
        np.testing.assert_array_equal(bound.state_get(name), value)


def test_rows_are_appended_where_they_stay(names, artifact):
    """No run moves a cache or writes a row that is there, and what copies past and present takes no time."""
    with RawContext(artifact) as c:
        n = len(names)
        times = c.ffi.new("int64_t[]", 200)
        pairs = c.ffi.new("sparsec_state[]", [(1 + i, 1 + i) for i in range(n)])
        assert c.create(states=pairs, n_states=n, layer_nanoseconds=times) == 0
        token, logits, null = np.array([[3]], np.int64), np.empty((1, 1, _WORDS), np.float32), c.ffi.NULL
        view, places = c.ffi.new("DLTensor *"), set()
        for step in range(5):
            assert c.run([token, *[null] * n], [logits, *[null] * n]) == 0
            assert c.call("state_get", c.context, 1, view) == 0
            places.add(int(c.ffi.cast("intptr_t", view.data)))
            assert [view.shape[i] for i in range(4)] == [1, _HEADS, step + 1, _DEPTH]
            rows = np.frombuffer(c.ffi.buffer(view.data, 4 * (step + 1) * _HIDDEN), np.float32).reshape(step + 1, -1)
            assert (rows[:step] == 7).all() and not (rows[step] == 7).any()
            rows[step] = 7
        assert len(places) == 1
    manifest = sparsec.load(artifact).manifest
    copies = [
        i for i, layer in enumerate(manifest["layers"]) if layer["reason"] in ("past of the caller", "for the caller")
    ]
    assert len(copies) == 2 * n and not any(times[i] for i in copies)
    assert any(times[i] for i in range(len(manifest["layers"])))
    assert [row["output"] for row in manifest["caches"]] == list(_state(names))


def test_a_cache_is_cut_set_and_reset(names, artifact):
    """Going back to an earlier token, and to another sequence."""
    model = sparsec.load(artifact, state=_state(names))
    tokens = np.random.default_rng(2).integers(0, _WORDS, (2, 8))
    model.run({"token": tokens[:, :5]})
    want = model.run({"token": tokens[:, 5:6]})["logits"]
    kept = {name: model.state_get(name) for name in names}
    for name in names:
        model.state_set(name, kept[name][:, :, :5])
    np.testing.assert_array_equal(model.run({"token": tokens[:, 5:6]})["logits"], want)
    for name in names:
        model.state_set(name, kept[name][1:, :, :5])  # one sequence of the two
    np.testing.assert_allclose(model.run({"token": tokens[1:, 5:6]})["logits"], want[1:], rtol=1e-5, atol=1e-6)
    model.state_reset()
    assert model.state_get(names[0]).shape[2] == 0
    model.run({"token": tokens[:, :5]})
    np.testing.assert_array_equal(model.run({"token": tokens[:, 5:6]})["logits"], want)


def test_bound_to_another_input(names, artifact):
    """Two buffers that change places: the cache of that input is not the output's."""
    state = {"present_key_0": "past_value_0", "present_value_0": "past_key_0"}
    crossed, free = sparsec.load(artifact, state=state), sparsec.load(artifact)
    rest = {name: np.zeros((1, _HEADS, 0, _DEPTH), np.float32) for name in names if name.endswith("1")}
    both = [np.zeros((1, _HEADS, 0, _DEPTH), np.float32)] * 2
    for token in ([[3]], [[9]], [[4]]):
        inputs = {"token": np.array(token), **rest}
        want = free.run({**inputs, "past_key_0": both[0], "past_value_0": both[1]})
        np.testing.assert_array_equal(crossed.run(inputs)["logits"], want["logits"])
        both = [want["present_value_0"], want["present_key_0"]]
        rest = {name: want[name.replace("past", "present")] for name in rest}
        crossed_present = crossed.state_get("past_key_0")
        np.testing.assert_array_equal(crossed_present, both[0])
