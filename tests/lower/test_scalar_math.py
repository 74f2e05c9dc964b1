"""The errors that `scalar_math.h` states, measured against float64 over the whole range."""

import ctypes
import math
import re
from importlib import resources

import numpy as np
import pytest
from programs import compiled

from sparsec.compiler.lower.program import KernelSource

NAMES = ("exp", "tanh", "erf", "sigmoid", "rsqrt", "round")
SOURCE = KernelSource(
    "loops",
    '#include "scalar_math.h"\n'
    + "".join(
        f"void loop_{name}(const float *x, float *y, int64_t n) {{"
        f" for (int64_t i = 0; i < n; ++i) y[i] = sparsec_{name}_float32(x[i]); }}\n"
        for name in NAMES
    )
    + "".join(
        f"void loop_{name}(const int64_t *a, const int64_t *b, int64_t *y, int64_t n) {{"
        f" for (int64_t i = 0; i < n; ++i) y[i] = sparsec_{name}(a[i], b[i]); }}\n"
        for name in ("floordiv", "floormod")
    ),
)


def stated(name):
    """The error that the header's comment on a function promises."""
    header = (resources.files("sparsec.codegen_templates") / "scalar_math.h").read_text()
    return float(re.search(rf"/\* {re.escape(name)}\b.*?error below ([\d.e-]+\d)", header).group(1))


@pytest.fixture(scope="module")
def apply(tmp_path_factory):
    library = compiled([SOURCE], tmp_path_factory.mktemp("math"))

    def call(name, *arrays):
        arrays = [np.ascontiguousarray(a) for a in arrays]
        y = np.empty_like(arrays[0])
        library[f"loop_{name}"](*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, y)), ctypes.c_int64(y.size))
        return y

    return call


def every_float(step=4001):
    """One in `step` of all finite floats, denormal ones included."""
    bits = np.arange(0, 0x7F800000, step, dtype=np.uint32).view(np.float32)
    return np.concatenate([-bits[::-1], bits])


def dense(low, high):
    return np.linspace(low, high, 2_000_001, dtype=np.float64).astype(np.float32)


def test_exp(apply):
    x = np.concatenate([every_float(), dense(-104, 89)])
    got = apply("exp", x).astype(np.float64)
    with np.errstate(over="ignore"):
        want = np.exp(x.astype(np.float64))
        rounded = want.astype(np.float32)
    normal = (rounded >= np.finfo(np.float32).tiny) & np.isfinite(rounded)
    assert np.max(np.abs(got[normal] / want[normal] - 1)) < stated("e^x")
    tiny = rounded < np.finfo(np.float32).tiny
    assert np.max(np.abs(got[tiny] - want[tiny])) <= 2 * 2.0**-149
    assert (got[np.isinf(rounded)] == np.inf).all()


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
def test_absolute_error(name, apply):
    bound = 2e-7 if name == "sigmoid" else stated(name)
    x = np.concatenate([every_float(), dense(-12, 12)])
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        want = {"tanh": np.tanh, "sigmoid": lambda v: 1 / (1 + np.exp(-v))}.get(name)
        want = want(wide) if want else np.array([math.erf(v) for v in wide])
    got = apply(name, x).astype(np.float64)
    assert np.max(np.abs(got - want)) < bound
    assert np.max(np.abs(got)) <= 1 + bound


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_and_relative_near_zero(name, apply):
    x = dense(1e-30, 0.1)
    got = apply(name, x)
    assert (apply(name, -x) == -got).all()
    want = np.tanh(x.astype(np.float64)) if name == "tanh" else np.array([math.erf(v) for v in x.astype(np.float64)])
    assert np.max(np.abs(got / want - 1)) < 4e-7


@pytest.mark.parametrize(
    ("name", "at_minus_infinity", "at_infinity"),
    [("exp", 0, np.inf), ("tanh", -1, 1), ("erf", -1, 1), ("sigmoid", 0, 1)],
)
def test_limits(name, at_minus_infinity, at_infinity, apply):
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0], np.float32)
    got = apply(name, x)
    assert got[0] == at_minus_infinity
    assert got[1] == at_infinity
    assert np.isnan(got[2])
    if name in ("tanh", "erf"):
        assert got[3:].tobytes() == x[3:].tobytes(), "the sign of zero"


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sigmoid"])
def test_a_vector_loop_and_its_remainder_agree(name, apply):
    x = dense(-9, 9)[:20_000]
    whole = apply(name, x)
    for length in (1, 3, 4, 7, 12):
        parts = [apply(name, part) for part in np.split(x[:3000], range(length, 3000, length))]
        assert np.concatenate(parts).tobytes() == whole[:3000].tobytes()


def test_rsqrt_and_round(apply):
    x = np.abs(every_float())
    with np.errstate(divide="ignore"):
        assert np.max(np.abs(apply("rsqrt", x[x > 0]) * np.sqrt(x[x > 0].astype(np.float64)) - 1)) < 2e-7
    y = np.concatenate([every_float(), np.arange(-9, 9, 0.5, dtype=np.float32)])
    assert (apply("round", y) == np.rint(y)).all()


def test_floor_division(apply):
    a, b = (v.reshape(-1) for v in np.meshgrid(np.arange(-40, 41), [-9, -3, -1, 1, 2, 7]))
    assert (apply("floordiv", a, b) == a // b).all()
    assert (apply("floormod", a, b) == a % b).all()
