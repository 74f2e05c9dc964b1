"""Operators on sequences and optionals against onnxruntime; what a run would have to find out is refused."""

import numpy as np
import pytest
from graphs import floats, ints, model, node
from onnx import helper
from relax_vm import run_model, run_onnxruntime

from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.errors import UnsupportedError

X = {"x": ("float32", [5, 4])}


def agrees(nodes, outputs, opset=17, **constants):
    made, feed = model(nodes, X, outputs, opset=opset, **constants), {"x": floats(5, 4)}
    want, got = run_onnxruntime(made, feed), run_model(made, feed)
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def split(**attrs):
    return node("SplitToSequence", "x lengths" if attrs.pop("given", True) else "x", "s", **attrs)


@pytest.mark.parametrize(
    ("node_", "lengths"),
    [
        (split(axis=0), np.array(2)),
        (split(axis=-1), ints(1, 3)),
        (split(axis=1, given=False), None),
        (split(axis=1, given=False, keepdims=0), None),
    ],
)
def test_split_and_concatenate(node_, lengths):
    constants = {} if lengths is None else {"lengths": lengths}
    nodes = [node_, node("SequenceAt", "s last", "y"), node("SequenceLength", "s", "n")]
    agrees(nodes, "y n", last=np.array(-1), **constants)


@pytest.mark.parametrize(("keepdims", "new_axis"), [(1, 0), (0, 1)])
def test_rows_and_back(keepdims, new_axis):
    nodes = [
        split(axis=1, given=False, keepdims=keepdims),
        node("ConcatFromSequence", "s", "y", axis=0, new_axis=new_axis),
    ]
    agrees(nodes, "y")


@pytest.mark.parametrize("place", [None, 0, 1, -1, 2])
def test_insert_and_erase(place):
    at, tail = ({}, "") if place is None else ({"place": np.array(place)}, " place")
    nodes = [
        node("Neg", "x", "a"),
        node("Abs", "x", "b"),
        node("SequenceConstruct", "x a", "two"),
        node("SequenceInsert", f"two b{tail}", "three"),
        node("SequenceErase", "three last", "rest"),
        node("ConcatFromSequence", "rest", "y", axis=0),
        node("ConcatFromSequence", "three", "z", axis=-1, new_axis=1),
    ]
    agrees(nodes, "y z", last=np.array(-1), **at)


def test_a_loop_that_collects():
    """What exporters make of a Python list: a sequence is the loop's state."""
    body = [
        node("Identity", "active", "again"),
        node("Gather", "x turn", "row", axis=0),
        node("SequenceInsert", "rows row", "longer"),
    ]
    sequence = helper.make_tensor_sequence_value_info
    graph = helper.make_graph(
        body,
        "body",
        [helper.make_tensor_value_info("turn", 7, []), helper.make_tensor_value_info("active", 9, []),
         sequence("rows", 1, None)],
        [helper.make_tensor_value_info("again", 9, []), sequence("longer", 1, None)],
    )  # fmt: skip
    nodes = [
        node("SequenceEmpty", "", "none"),
        node("Loop", "trips - none", "all", body=graph),
        node("ConcatFromSequence", "all", "y", axis=0, new_axis=1),
    ]
    agrees(nodes, "y", trips=np.array(3))


def test_map():
    body = helper.make_graph([node("Mul", "element scale", "scaled")], "body",
                             [helper.make_tensor_value_info(n, 1, None) for n in ("element", "scale")],
                             [helper.make_tensor_value_info("scaled", 1, None)])  # fmt: skip
    nodes = [
        split(axis=0, given=False),
        node("SequenceMap", "s x", "scaled_s", body=body),
        node("ConcatFromSequence", "scaled_s", "y", axis=0),
    ]
    made, feed = model(nodes, X, "y"), {"x": floats(5, 4)}
    want = np.concatenate([row[None] * feed["x"] for row in feed["x"]])
    np.testing.assert_array_equal(run_model(made, feed)["y"], want)


def test_optionals():
    nodes = [
        node("Optional", "x", "o"),
        node("OptionalHasElement", "o", "there"),
        node("OptionalGetElement", "o", "held"),
        node("Neg", "held", "y"),
    ]
    agrees(nodes, "y there", opset=18)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("SequenceConstruct", "x x", "s"), node("SequenceAt", "s at", "y", name="pick")],
         "pick.*position in the sequence is known only at run time"),
        ([node("SequenceConstruct", "x x", "s"), node("SequenceAt", "s five", "y", name="pick")],
         "pick.*position 5 is outside"),
        ([node("SequenceConstruct", "x x", "s"), node("Neg", "s", "y", name="minus")], "minus.*'s' is a sequence"),
        ([node("SequenceConstruct", "x x", "y")], "Output 'y' is a sequence"),
        ([node("SequenceEmpty", "", "s"), node("ConcatFromSequence", "s", "y", axis=0, name="join")],
         "join.*sequence is empty"),
        ([node("SplitToSequence", "x at", "s", name="cut"), node("SequenceAt", "s at", "y")],
         "cut.*lengths are known only at run time"),
    ],
)  # fmt: skip
def test_refused(nodes, reason):
    made = model(nodes, {**X, "at": ("int64", [])}, "y", five=np.array(5))
    with pytest.raises(UnsupportedError, match=reason):
        prepare(load(made)).diagnostics.check()
