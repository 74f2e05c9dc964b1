"""Recurrent layers with dynamic length and batch, against onnxruntime."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from relax_vm import run_onnxruntime

import sparsec
from sparsec.errors import UnsupportedError

INPUTS, HIDDEN = 5, 9


def layer(kind, direction, constant, lengths, rng, **attrs):
    """(model, the values of its inputs) of one layer over 7 steps and 3 rows."""
    directions, gates = 1 + (direction == "bidirectional"), {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]

    def values(*shape):
        return (0.5 * rng.normal(size=shape)).astype(np.float32)

    weights = {
        "w": values(directions, gates * HIDDEN, INPUTS),
        "r": values(directions, gates * HIDDEN, HIDDEN),
        "b": values(directions, 2 * gates * HIDDEN),
    }
    feeds = {"x": values(7, 3, INPUTS), "h": values(directions, 3, HIDDEN)}
    shapes = {"x": ["steps", "rows", INPUTS], "h": [directions, "rows", HIDDEN]}
    if lengths:
        feeds["lengths"], shapes["lengths"] = np.array([7, 3, 1], np.int32), ["rows"]
    if kind == "LSTM":
        feeds["c"], shapes["c"] = values(directions, 3, HIDDEN), [directions, "rows", HIDDEN]
    if not constant:
        feeds |= weights
    names = ["x", "w", "r", "b", "lengths" if lengths else "", "h", *(["c"] if kind == "LSTM" else [])]
    results = ["y", "last", *(["cell"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, names, results, hidden_size=HIDDEN, direction=direction, **attrs)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), shapes.get(n, v.shape))
        for n, v in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results]
    stored = [numpy_helper.from_array(v, n) for n, v in weights.items()] if constant else []
    graph = helper.make_graph([node], "layer", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), feeds


@pytest.mark.parametrize(
    ("kind", "direction", "constant", "lengths", "attrs"),
    [
        ("LSTM", "forward", True, False, {}),
        ("LSTM", "bidirectional", False, True, {}),
        ("GRU", "reverse", True, True, {"linear_before_reset": 0}),
        ("GRU", "bidirectional", True, False, {"linear_before_reset": 1}),
        ("RNN", "bidirectional", True, True, {}),
        ("RNN", "forward", False, False, {"activations": ["Relu"]}),
    ],
)
def test_recurrent_layer(kind, direction, constant, lengths, attrs, tmp_path):
    model, feeds = layer(kind, direction, constant, lengths, np.random.default_rng(1), **attrs)
    wanted = run_onnxruntime(model, feeds)
    path = sparsec.build(model, output=tmp_path / "layer.so", dims={"steps": (1, 16), "rows": (1, 4)})
    with sparsec.load(path, threads=2) as loaded:
        found = loaded.run(feeds)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_in_half_precision(kind, tmp_path):
    model, feeds = layer(kind, "bidirectional", True, True, np.random.default_rng(0))
    want = run_onnxruntime(model, feeds)
    half = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = half
    path = sparsec.build(model, output=tmp_path / "m.so", dims={"steps": (1, 9), "rows": 3})
    halves = {n: v.astype(np.float16) if v.dtype == np.float32 else v for n, v in feeds.items()}
    for name, value in sparsec.load(path).run(halves).items():
        assert value.dtype == np.float16
        np.testing.assert_allclose(value.astype(np.float32), want[name], rtol=0, atol=4e-3)


def test_other_activations_are_refused(tmp_path):
    model, _ = layer("LSTM", "forward", True, False, np.random.default_rng(1), activations=["Relu", "Tanh", "Tanh"])
    with pytest.raises(UnsupportedError, match="activations"):
        sparsec.build(model, output=tmp_path / "layer.so", dims={"steps": 7, "rows": 3})
