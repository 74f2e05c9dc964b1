"""Outputs whose shape each run finds, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.errors import UnsupportedError

_FLOAT, _INT64, _BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _model(nodes, inputs, outputs, **constants):
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "found", infos, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _built(model, tmp_path, **dims):
    so = sparsec.build(model, output=tmp_path / "m.so", dims=dims)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return sparsec.load(so, threads=2), session


def _agrees(built, feed):
    ours, session = built
    expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    found = ours.run(feed)
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def _sparse(shape, density, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


def test_nonzero_and_what_follows(tmp_path):
    """The found size passes through transposes, gathers, arithmetic, reductions and shapes."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], "places"),
        helper.make_node("Transpose", ["places"], ["rows"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "rows"], ["values"]),
        helper.make_node("Mul", ["values", "values"], ["squares"]),
        helper.make_node("ReduceSum", ["squares"], ["energy"], keepdims=0),
        helper.make_node("Shape", ["squares"], ["count"]),
    ]
    model = _model(nodes, [("x", _FLOAT, ["n", 5, 3])],
                   [("rows", _INT64), ("squares", _FLOAT), ("energy", _FLOAT), ("count", _INT64)])  # fmt: skip
    built = _built(model, tmp_path, n=(1, 9))
    for n, density in ((9, 0.5), (1, 1.0), (4, 0.1), (3, 0.0), (9, 1.0)):
        _agrees(built, {"x": _sparse((n, 5, 3), density, n)})


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 2, 2)])
def test_nonzero_of_types_and_ranks(dtype, shape, tmp_path):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = _model([helper.make_node("NonZero", ["x"], ["y"])], [("x", kind, shape)], [("y", _INT64)])
    _agrees(_built(model, tmp_path), {"x": (np.random.default_rng(0).random(shape) < 0.5).astype(dtype)})


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis, tmp_path):
    attrs = {} if axis is None else {"axis": axis}
    length = 3 if axis == 0 else 5
    model = _model([helper.make_node("Compress", ["x", "keep"], ["y"], **attrs)],
                   [("x", _FLOAT, [3, 6]), ("keep", _BOOL, [length])], [("y", _FLOAT)])  # fmt: skip
    built = _built(model, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(4):
        feed = {"x": rng.standard_normal((3, 6)).astype(np.float32), "keep": rng.random(length) < 0.5}
        _agrees(built, feed)


def _suppression(center, has_score_threshold, most):
    inputs = ["boxes", "scores", "most", "iou"] + (["least_score"] if has_score_threshold else [])
    nodes = [
        helper.make_node("NonMaxSuppression", inputs, ["chosen"], "nms", center_point_box=center),
        helper.make_node("Gather", ["chosen", "two"], ["numbers"], axis=1),
    ]
    return _model(nodes, [("boxes", _FLOAT, ["b", "n", 4]), ("scores", _FLOAT, ["b", 2, "n"]), ("iou", _FLOAT, [1])],
                  [("chosen", _INT64), ("numbers", _INT64)], most=np.array([most]), two=np.array(2),
                  least_score=np.float32([0.3]))  # fmt: skip


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("has_score_threshold", [True, False])
def test_non_max_suppression(center, has_score_threshold, tmp_path_factory):
    built = _built(_suppression(center, has_score_threshold, 4), tmp_path_factory.mktemp("nms"), b=(1, 2), n=(1, 40))

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 2), st.integers(1, 40), st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.booleans()
    )
    def check(batch, n, seed, iou, ties):
        rng = np.random.default_rng(seed)
        boxes = rng.random((batch, n, 4)).astype(np.float32)
        scores = rng.random((batch, 2, n)).astype(np.float32)
        if ties:
            scores = np.round(scores, 1)
        _agrees(built, {"boxes": boxes, "scores": scores, "iou": np.float32([iou])})

    check()


def test_outputs_of_the_callers(tmp_path):
    model = _model([helper.make_node("NonZero", ["x"], ["y"])], [("x", _FLOAT, [2, 3])], [("y", _INT64)])
    ours, _ = _built(model, tmp_path)
    buffer = np.full((2, 6), -1)
    found = ours.run({"x": np.float32([[0, 1, 0], [1, 0, 1]])}, outputs={"y": buffer})["y"]
    np.testing.assert_array_equal(found, [[0, 1, 1], [1, 0, 2]])
    assert np.shares_memory(found, buffer)


def test_what_has_no_bound_is_refused(tmp_path):
    model = _suppression(0, False, 0)
    with pytest.raises(UnsupportedError, match=r"nms.*it gives none"):
        sparsec.build(model, output=tmp_path / "m.so", dims={"b": 1, "n": 5})
