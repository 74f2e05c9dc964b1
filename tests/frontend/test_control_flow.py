"""If, Loop and Scan against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.errors import InputError, UnsupportedError

_FLOAT, _BOOL, _INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def _info(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(nodes, inputs, outputs, **constants):
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "main", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _agrees(model, tmp_path, feeds, turns=None, **dims):
    so = sparsec.build(model, output=tmp_path / "m.so", dims=dims, turns=turns)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with sparsec.load(so) as ours:
        for feed in feeds:
            expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
            found = ours.run(feed)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


X = _info("x", _FLOAT, [2, 3])
Y = _info("y", _FLOAT, None)


def _x(seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal((2, 3))).astype(np.float32)


def _if(then, other, condition="c"):
    branches = {}
    for name, nodes in (("then_branch", then), ("else_branch", other)):
        branches[name] = helper.make_graph(nodes, name, [], [_info("r", _FLOAT, None)])
    return helper.make_node("If", [condition], ["y"], "the_if", **branches)


@pytest.mark.parametrize("shape", [[], [1]])
def test_if_at_run_time(shape, tmp_path):
    inner = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Add", ["h", "x"], ["r"])]
    node = _if(inner, [helper.make_node("Neg", ["x"], ["r"])])
    model = _model([node], [X, _info("c", _BOOL, shape)], [Y])
    _agrees(model, tmp_path, [{"x": _x(), "c": np.full(shape, value)} for value in (True, False)])


def test_nested_if(tmp_path):
    deep = {
        "then_branch": helper.make_graph([helper.make_node("Exp", ["x"], ["s"])], "t", [], [_info("s", _FLOAT, None)]),
        "else_branch": helper.make_graph([helper.make_node("Abs", ["x"], ["s"])], "e", [], [_info("s", _FLOAT, None)]),
    }
    inner = [helper.make_node("If", ["d"], ["r"], "inner", **deep)]
    model = _model([_if(inner, [helper.make_node("Neg", ["x"], ["r"])])],
                   [X, _info("c", _BOOL, []), _info("d", _BOOL, [])], [Y])  # fmt: skip
    feeds = [{"x": _x(), "c": np.array(c), "d": np.array(d)} for c in (True, False) for d in (True, False)]
    _agrees(model, tmp_path, feeds)


def test_branches_of_other_shapes_are_refused(tmp_path):
    node = _if([helper.make_node("ReduceSum", ["x"], ["r"], keepdims=0)], [helper.make_node("Neg", ["x"], ["r"])])
    with pytest.raises(UnsupportedError, match=r"the_if.*cannot choose between float32\[\] and float32\[2,3\]"):
        sparsec.build(_model([node], [X, _info("c", _BOOL, [])], [Y]), output=tmp_path / "m.so")


def _loop(body, outputs, states=("x",), trips="trips", condition=""):
    """`body`'s nodes make `again`, `next` and, where asked for, `row`."""
    results = [_info("again", _BOOL, []), _info("next", _FLOAT, None)]
    if len(outputs) > len(states):
        results.append(_info("row", _FLOAT, None))
    inputs = [_info("turn", _INT64, []), _info("active", _BOOL, []), _info("state", _FLOAT, None)]
    graph = helper.make_graph(body, "body", inputs, results)
    return helper.make_node("Loop", [trips, condition, *states], list(outputs), "the_loop", body=graph)


_GROW = [helper.make_node("Add", ["state", "x"], ["next"])]
_ALWAYS = [helper.make_node("Identity", ["active"], ["again"])]
_BELOW = [helper.make_node("ReduceMax", ["next"], ["largest"], keepdims=0),
          helper.make_node("Less", ["largest", "limit"], ["again"])]  # fmt: skip


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_loop_of_known_length(trips, tmp_path):
    model = _model([_loop([*_GROW, *_ALWAYS], ["y"])], [X], [Y], trips=np.array(trips))
    _agrees(model, tmp_path, [{"x": _x()}])


def test_scanned_outputs_and_the_turn(tmp_path):
    body = [
        *_ALWAYS,
        helper.make_node("Cast", ["turn"], ["number"], to=_FLOAT),
        helper.make_node("Mul", ["state", "number"], ["row"]),
        helper.make_node("Add", ["state", "x"], ["next"]),
    ]
    model = _model([_loop(body, ["y", "rows"])], [X], [Y, _info("rows", _FLOAT, None)], trips=np.array(4))
    _agrees(model, tmp_path, [{"x": _x()}])


def test_loop_that_ends_by_its_data(tmp_path):
    model = _model([_loop([*_GROW, *_BELOW], ["y"], condition="true")], [X], [Y], trips=np.array(12),
                   true=np.array(True), limit=np.float32(9))  # fmt: skip
    _agrees(model, tmp_path, [{"x": _x(0, scale)} for scale in (0.1, 1.0, 3.0, 100.0)])


def test_loop_whose_condition_is_an_input(tmp_path):
    model = _model(
        [_loop([*_GROW, *_ALWAYS], ["y"], condition="c")], [X, _info("c", _BOOL, [])], [Y], trips=np.array(3)
    )
    _agrees(model, tmp_path, [{"x": _x(), "c": np.array(value)} for value in (True, False)])


def test_while_over_constants(tmp_path):
    body = [*_GROW, helper.make_node("Less", ["turn", "last"], ["again"])]
    model = _model([_loop(body, ["y"], trips="", condition="true")], [X], [Y], true=np.array(True), last=np.array(6))
    _agrees(model, tmp_path, [{"x": _x()}])


_ROW = helper.make_node("Mul", ["state", "state"], ["row"])
_N = _info("trips", _INT64, [])


@pytest.mark.parametrize("scanned", [False, True])
def test_loop_that_a_run_counts(scanned, tmp_path):
    """By an input, and by a condition as well; the scanned output has a row for each turn that took place."""
    loop = _loop([*_GROW, *_BELOW, *([_ROW] if scanned else [])], ["y", "rows"][: 1 + scanned], condition="true")
    outputs = [Y, _info("rows", _FLOAT, None)][: 1 + scanned]
    model = _model([loop], [X, _N], outputs, true=np.array(True), limit=np.float32(9))
    feeds = [{"x": _x(0, scale), "trips": np.array(n)} for scale, n in ((0.1, 6), (0.1, 1), (3.0, 6), (0.1, 4))]
    _agrees(model, tmp_path, feeds, turns={"the_loop": 6})


def test_more_turns_than_stated(tmp_path):
    so = sparsec.build(_model([_loop([*_GROW, *_ALWAYS], ["y"])], [X, _N], [Y]), output=tmp_path / "m.so",
                       turns={"the_loop": 3})  # fmt: skip
    loaded = sparsec.load(so)
    np.testing.assert_allclose(loaded.run({"x": _x(), "trips": np.array(3)})["y"], 4 * _x(), rtol=1e-6)
    with pytest.raises(InputError, match="the_loop: more turns than --turns allows"):
        loaded.run({"x": _x(), "trips": np.array(4)})


def test_while(tmp_path):
    model = _model([_loop([*_GROW, *_BELOW], ["y"], trips="", condition="true")], [X], [Y], true=np.array(True),
                   limit=np.float32(9))  # fmt: skip
    _agrees(model, tmp_path, [{"x": np.abs(_x(0, scale)) + 1} for scale in (0.1, 1.0, 3.0)], turns={"y": 12})


def test_as_many_turns_as_a_dimension(tmp_path):
    """A loop over the rows of a dynamic input: a turn beyond the last reads none."""
    body = [*_ALWAYS, helper.make_node("Gather", ["rows_of", "turn"], ["one"], axis=0),
            helper.make_node("Add", ["state", "one"], ["next"]),
            helper.make_node("Neg", ["next"], ["row"])]  # fmt: skip
    nodes = [helper.make_node("Shape", ["rows_of"], ["extents"]),
             helper.make_node("Gather", ["extents", "zero"], ["trips"]), _loop(body, ["y", "rows"])]  # fmt: skip
    inputs = [_info("x", _FLOAT, [3]), _info("rows_of", _FLOAT, ["n", 3])]
    model = _model(nodes, inputs, [Y, _info("rows", _FLOAT, None)], zero=np.array(0))
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    _agrees(model, tmp_path, [{"x": rows[0], "rows_of": rows[:n]} for n in (7, 2, 5)], n=(2, 7))


@pytest.mark.parametrize("steps", [5, (1, 6)])
@pytest.mark.parametrize(("backwards", "turned"), [(0, 0), (1, 0), (1, 1)])
def test_scan(steps, backwards, turned, tmp_path):
    """Along any axis, from either end, of a length that may be dynamic."""
    body = [helper.make_node("Mul", ["state", "decay"], ["less"]), helper.make_node("Add", ["less", "part"], ["next"]),
            helper.make_node("Neg", ["next"], ["row"])]  # fmt: skip
    info = [_info(n, _FLOAT, [2, 3]) for n in ("state", "part", "next", "row")]
    graph = helper.make_graph(body, "body", info[:2], info[2:])
    scan = helper.make_node("Scan", ["x", "parts"], ["y", "rows"], "the_scan", body=graph, num_scan_inputs=1,
                            scan_input_axes=[1], scan_input_directions=[backwards], scan_output_axes=[2],
                            scan_output_directions=[turned])  # fmt: skip
    inputs = [X, _info("parts", _FLOAT, [2, "t", 3])]
    model = _model([scan], inputs, [Y, _info("rows", _FLOAT, None)], decay=np.float32(0.5))
    parts = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    lengths = [steps] if isinstance(steps, int) else [6, 1, 4]
    _agrees(model, tmp_path, [{"x": _x(), "parts": parts[:, :n]} for n in lengths], t=steps)


def test_scan_of_too_many_steps(tmp_path):
    infos = [_info(n, _FLOAT, [3]) for n in ("state", "part", "next")]
    body = [helper.make_node("Add", ["state", "part"], ["next"])]
    graph = helper.make_graph(body, "body", infos[:2], infos[2:])
    scan = helper.make_node("Scan", ["x", "parts"], ["y"], "the_scan", body=graph, num_scan_inputs=1)
    model = _model([scan], [_info("x", _FLOAT, [3]), _info("parts", _FLOAT, ["t", 3])], [Y])
    with pytest.raises(UnsupportedError, match=r"the_scan.*runs 65 times"):
        sparsec.build(model, output=tmp_path / "m.so", dims={"t": (1, 65)})


@pytest.mark.parametrize(
    ("loop", "inputs", "constants", "reason"),
    [
        (_loop([*_GROW, *_ALWAYS], ["y"]), [_info("trips", _INT64, [])], {}, "known only at run time"),
        (_loop([*_GROW, *_ALWAYS], ["y"]), [], {"trips": np.array(65)}, "more than 64 times"),
        (_loop([*_GROW, *_BELOW], ["y"], trips="", condition="true"), [],
         {"true": np.array(True), "limit": np.float32(9)}, "known only at run time"),
    ],
)  # fmt: skip
def test_loops_that_are_refused(loop, inputs, constants, reason, tmp_path):
    outputs = [Y, _info("rows", _FLOAT, None)][: len(loop.output)]
    with pytest.raises(UnsupportedError, match=f"the_loop.*{reason}"):
        sparsec.build(_model([loop], [X, *inputs], outputs, **constants), output=tmp_path / "m.so")
