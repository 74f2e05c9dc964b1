"""Division of integers on every type: what wraps, what rounds where, and the divisor zero."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import sparsec

TYPES = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64)


def build(folder, op, dtype, **attributes):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [helper.make_tensor_value_info(n, kind, [64]) for n in "aby"]
    node = helper.make_node(op, ["a", "b"], ["y"], name="division", **attributes)
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return sparsec.build(model, output=folder / "m.so")


def operands(dtype):
    """All sizes, all signs, and the one quotient that does not fit."""
    rng, limits = np.random.default_rng(0), np.iinfo(dtype)
    a, b = rng.integers(limits.min, limits.max, (2, 64), dtype, endpoint=True)
    b[:32] = rng.integers(-5 if limits.min else 0, 5, 32, dtype, endpoint=True)
    b[b == 0] = 3
    a[0], b[0] = limits.min, -1 if limits.min else 1
    return a, b


def wrapped(values, dtype):
    limits = np.iinfo(dtype)
    return np.array([(v - limits.min) % (1 << limits.bits) + limits.min for v in values], object).astype(dtype)


def towards_zero(x, y):
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


REFERENCES = {
    ("Div", None): towards_zero,
    ("Mod", 0): lambda x, y: x % y,
    ("Mod", 1): lambda x, y: x - y * towards_zero(x, y),
}


@pytest.mark.parametrize(("op", "fmod"), list(REFERENCES))
@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
def test_division(op, fmod, dtype, tmp_path):
    a, b = operands(dtype)
    pairs = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    want = wrapped([REFERENCES[op, fmod](x, y) for x, y in pairs], dtype)
    with sparsec.load(build(tmp_path, op, dtype, **({} if fmod is None else {"fmod": fmod}))) as model:
        np.testing.assert_array_equal(model.run({"a": a, "b": b})["y"], want)
        b[5] = 0
        with pytest.raises(sparsec.SparsecError, match="'division': an integer is divided by zero"):
            model.run({"a": a, "b": b})
