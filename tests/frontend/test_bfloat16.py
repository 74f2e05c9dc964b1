"""bfloat16 inside of a model and at its ends: each operator rounds its result to it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from graphs import floats, node
from onnx import helper, numpy_helper

import sparsec

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_QUANTUM = 2.0**-7


def model(nodes, inputs, kind, **constants):
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", kind, None)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("target", ["native", "x86-64"])
def test_a_network_between_casts(target, tmp_path):
    nodes = [
        node("Cast", "x", "h", to=onnx.TensorProto.BFLOAT16),
        node("MatMul", "h w", "p"),
        node("Add", "p b", "s"),
        node("Tanh", "s", "t"),
        node("Softmax", "t", "q", axis=-1),
        node("Max", "q c", "m"),
        node("Cast", "m", "y", to=onnx.TensorProto.FLOAT),
    ]
    w, b, c = (v.astype(BFLOAT16) for v in (floats(8, 4, seed=1), floats(4, seed=2), np.full(1, 0.2, np.float32)))
    made = model(nodes, {"x": ["n", 8]}, onnx.TensorProto.FLOAT, w=w, b=b, c=c)
    loaded = sparsec.load(sparsec.build(made, output=tmp_path / "m.so", dims={"n": (1, 5)}, target=target))
    for n in (1, 5):
        x = floats(n, 8, seed=n)
        product = (x.astype(BFLOAT16).astype(np.float32) @ w.astype(np.float32)).astype(BFLOAT16)
        bent = np.tanh((product + b).astype(np.float32)).astype(BFLOAT16).astype(np.float32)
        powers = np.exp(bent - bent.max(-1, keepdims=True))
        want = np.maximum((powers / powers.sum(-1, keepdims=True)).astype(BFLOAT16), c).astype(np.float32)
        np.testing.assert_allclose(loaded.run({"x": x})["y"], want, rtol=2 * _QUANTUM)


def test_inputs_and_outputs(tmp_path):
    """Rounding is to even, infinities and NaN stay what they are."""
    made = model([node("Mul", "a b", "y")], {"a": ["n"], "b": ["n"]}, onnx.TensorProto.BFLOAT16)
    loaded = sparsec.load(sparsec.build(made, output=tmp_path / "m.so", dims={"n": (1, 100)}))
    a, b = (np.append(floats(64, seed=s), [np.inf, np.nan, 1e38, 0.0, 1.0]).astype(BFLOAT16) for s in (1, 2))
    found = loaded.run({"a": a, "b": b})["y"]
    assert found.dtype == BFLOAT16
    want = (a.astype(np.float32) * b.astype(np.float32)).astype(BFLOAT16)
    np.testing.assert_array_equal(found.astype(np.float32), want.astype(np.float32))
