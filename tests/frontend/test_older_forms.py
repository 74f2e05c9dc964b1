"""Operators as opsets 1 to 6 wrote them, against numpy."""

import numpy as np
import pytest
from graphs import floats, model, node
from relax_vm import run_model

from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.errors import UnsupportedError

X = floats(2, 3, 4, 5)


def result(node_, opset, **constants):
    made = model([node_], {"x": ("float32", list(X.shape))}, "y", opset=opset, **constants)
    return run_model(made, {"x": X})["y"]


@pytest.mark.parametrize(
    ("shape", "axis", "as_numpy"),
    [((3, 4), 1, (3, 4, 1)), ((3,), 1, (3, 1, 1)), ((4, 5), None, (4, 5)), ((3,), -3, (3, 1, 1)), ((1,), None, (1,))],
)
def test_broadcast_from_an_axis(shape, axis, as_numpy):
    b = floats(*shape, seed=1)
    attrs = {} if axis is None else {"axis": axis}
    found = result(node("Mul", "x b", "y", broadcast=1, **attrs), 6, b=b)
    np.testing.assert_array_equal(found, X * b.reshape(as_numpy))


@pytest.mark.parametrize("count", [1, 3])
def test_prelu_with_a_slope_per_channel(count):
    slope = floats(count, seed=1)
    found = result(node("PRelu", "x slope", "y"), 6, slope=slope)
    np.testing.assert_allclose(found, np.where(X < 0, X * slope[:, None, None], X), rtol=1e-6)


@pytest.mark.parametrize(
    ("node_", "opset", "want"),
    [
        (node("Cast", "x", "y", to="INT32"), 1, X.astype(np.int32)),
        (node("Pad", "x", "y", paddings=[0, 0, 1, 0, 0, 0, 0, 2], value=3.0), 1,
         np.pad(X, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=3)),
        (node("Reshape", "x", "y", shape=[6, -1]), 1, X.reshape(6, 20)),
        (node("Selu", "x", "y"), 1, np.where(X > 0, 1.0507 * X, 1.0507 * 1.6732 * np.expm1(X))),
        (node("Upsample", "x", "y", height_scale=2.0, width_scale=3.0), 1, X.repeat(2, 2).repeat(3, 3)),
        (node("Concat", "x x", "y"), 1, np.concatenate([X, X], 1)),
        (node("Tile", "x n a", "y"), 5, np.tile(X, (1, 1, 3, 1))),
        (node("Relu", "x", "y", consumed_inputs=[0]), 1, np.maximum(X, 0)),
        (node("Dropout", "x", "y", is_test=0), 6, X),
    ],
)  # fmt: skip
def test_forms(node_, opset, want):
    constants = {"n": np.array(3), "a": np.array(2)} if node_.op_type == "Tile" else {}
    np.testing.assert_allclose(result(node_, opset, **constants), want, rtol=1e-5, atol=1e-6)


def test_tiles_known_at_run_time_only():
    made = model([node("Tile", "x n a", "y", name="repeat")],
                 {"x": ("float32", [2, 3]), "n": ("int64", [])}, "y", opset=5, a=np.array(0))  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"repeat.*must be constant"):
        prepare(load(made)).diagnostics.check()
