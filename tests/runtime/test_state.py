"""States: outputs that become inputs of the next run."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from raw_context import ERR_ARGUMENT, ERR_SHAPE, OK, RawContext

import sparsec
from sparsec.errors import InputError

_ROOM = 6


def _accumulator() -> onnx.ModelProto:
    """total' = total + x [batch, 3]; log' = log ++ x [batch, past, 3]; y = 2 * total'."""
    nodes = [
        helper.make_node("Add", ["total", "x"], ["total_out"], "sum"),
        helper.make_node("Unsqueeze", ["x", "one"], ["row"], "row"),
        helper.make_node("Concat", ["log", "row"], ["log_out"], "append", axis=1),
        helper.make_node("Add", ["total_out", "total_out"], ["y"], "twice"),
    ]

    def info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "accumulator",
        [info("x", "batch", 3), info("total", "batch", 3), info("log", "batch", "past", 3)],
        [info("total_out", "batch", 3), info("y", "batch", 3), info("log_out", "batch", "grown", 3)],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


STATE = {"total_out": "total", "log_out": "log"}


@pytest.fixture(scope="module")
def accumulator_so(folder):
    dims = {"batch": (1, 4), "past": (0, _ROOM)}
    return sparsec.build(_accumulator(), output=folder / "accumulator.so", dims=dims)


def _rows(n: int, batch: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    return [rng.standard_normal((batch, 3)).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_to_passing_it_by_hand(accumulator_so, threads):
    bound = sparsec.load(accumulator_so, threads=threads, state=STATE)
    by_hand = sparsec.load(accumulator_so)
    total, log = np.zeros((2, 3), np.float32), np.zeros((2, 0, 3), np.float32)
    for x in _rows(_ROOM):
        expected = by_hand.run({"x": x, "total": total, "log": log})
        total, log = expected["total_out"], expected["log_out"]
        found = bound.run({"x": x})
        assert list(found) == ["y"]
        np.testing.assert_array_equal(found["y"], expected["y"])
        np.testing.assert_array_equal(bound.state_get("total"), total)
        np.testing.assert_array_equal(bound.state_get("log"), log)


def test_a_full_state_is_refused_and_kept(accumulator_so):
    model = sparsec.load(accumulator_so, state=STATE)
    rows = _rows(_ROOM)
    for x in rows:
        model.run({"x": x})
    with pytest.raises(InputError, match=rf"log_out would have {_ROOM + 1} along axis 1, the state log has room for 6"):
        model.run({"x": rows[0]})
    np.testing.assert_array_equal(model.state_get("log"), np.stack(rows, 1))
    model.state_reset()
    np.testing.assert_array_equal(model.run({"x": rows[0]})["y"], 2 * rows[0])
    assert model.state_get("log").shape == (2, 1, 3)


def test_set_and_get(accumulator_so):
    model = sparsec.load(accumulator_so, state=STATE)
    rows = np.stack(_rows(8, 3)).transpose(1, 0, 2)[:, ::2]  # not contiguous
    model.state_set("log", rows)
    np.testing.assert_array_equal(model.state_get("log"), rows)
    model.run({"x": rows[:, 0].copy()})
    assert model.state_get("log").shape == (3, 5, 3)
    with pytest.raises(InputError, match=r"past is 7, but the artifact was built for 0\.\.6"):
        model.state_set("log", np.zeros((1, 7, 3), np.float32))
    with pytest.raises(InputError, match="y is no state; inputs that are: total, log"):
        model.state_get("y")


def test_another_batch_needs_a_reset(accumulator_so):
    model = sparsec.load(accumulator_so, state=STATE)
    model.run({"x": _rows(1, 2)[0]})
    with pytest.raises(InputError, match="batch is 2, but 3 in another place; it is a state: reset or set it first"):
        model.run({"x": _rows(1, 3)[0]})
    model.state_reset()
    assert model.run({"x": _rows(1, 3)[0]})["y"].shape == (3, 3)


def test_contexts_have_states_of_their_own(accumulator_so):
    one = sparsec.load(accumulator_so, state=STATE)
    two = one.new_context()
    x = _rows(1)[0]
    one.run({"x": x})
    np.testing.assert_array_equal(two.run({"x": x})["y"], 2 * x)
    np.testing.assert_array_equal(one.run({"x": x})["y"], 4 * x)


def test_a_forked_child_goes_on_from_the_state(accumulator_so):
    model = sparsec.load(accumulator_so, threads=2, state=STATE)
    x = _rows(1)[0]
    model.run({"x": x})
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(model.run({"x": x})["y"], 4 * x) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.testing.assert_array_equal(model.run({"x": x})["y"], 4 * x)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"nothing": "total"}, "there is no output nothing to bind as a state; the model's: total_out, y, log_out"),
        ({"y": "nothing"}, "there is no input nothing to bind as a state"),
        ({"y": "log"}, "output y cannot be the state of input log: dtype or number of axes differ"),
        ({"y": "total", "total_out": "total"}, "one of them belongs to another state already"),
    ],
)
def test_pairs_that_do_not_fit(accumulator_so, state, message):
    with pytest.raises(InputError, match=message):
        sparsec.load(accumulator_so, state=state)


def test_in_c(accumulator_so):
    with RawContext(accumulator_so) as c:
        pairs = c.ffi.new("sparsec_state[]", [(0, 1), (2, 2)])
        assert c.create(states=pairs, n_states=2) == OK
        x, y = np.ones((1, 3), np.float32), np.empty((1, 3), np.float32)
        null = c.ffi.NULL
        for n in (1, 2, 3):
            assert c.run([x, null, null], [null, y, null]) == OK
            np.testing.assert_array_equal(y, 2 * n * x)
        assert c.run([x, x, null], [null, y, null]) == ERR_ARGUMENT
        assert c.message() == "input total is a state: its tensor must be NULL"
        assert c.run([x, null, null], [y, y, null]) == ERR_ARGUMENT
        view = c.ffi.new("DLTensor *")
        assert c.call("state_get", c.context, 2, view) == OK
        assert [view.shape[i] for i in range(view.ndim)] == [1, 3, 3]
        assert c.call("state_set", c.context, 2, view) == OK  # of itself
        assert c.call("state_get", c.context, 0, view) == ERR_ARGUMENT
        assert c.message() == "input 0 is bound to no state"
        wrong = c.tensor(np.zeros((1, 2), np.float32))
        assert c.call("state_set", c.context, 1, wrong) == ERR_SHAPE
        assert c.call("state_reset", c.context) == OK
        assert c.run([x, null, null], [null, y, null]) == OK
        np.testing.assert_array_equal(y, 2 * x)
    with RawContext(accumulator_so) as c:
        assert c.create(states=pairs, n_states=9) == ERR_ARGUMENT
