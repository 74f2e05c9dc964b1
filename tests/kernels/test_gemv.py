"""Products with few columns against numpy: float within rounding, int8 bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_uses, tile_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import apply_epilogue

from sparsec.codegen_templates import integer
from sparsec.codegen_templates.epilogue import EpilogueOp, fake_quantize_operand
from sparsec.codegen_templates.gemv import plan_gemv, stored_bytes
from sparsec.codegen_templates.tile_epilogue import constant_quantization

TILES = pytest.mark.parametrize("target", tile_targets())
SWEEP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIZES = {"m": st.integers(1, 50), "k": st.integers(1, 40), "n": st.integers(1, 19)}
DENSITY = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@TILES
@SWEEP
@given(**SIZES, density=DENSITY, tail=st.booleans())
def test_float(target, m, k, n, density, tail):
    rng = np.random.default_rng([m, k, n])
    w = (rng.standard_normal((m, k)) * (rng.random((m, k)) < density)).astype(np.float32)
    x, bias, add = (rng.standard_normal(s).astype(np.float32) for s in ((n, k), (m,), (n, m)))
    ops = (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu")) if tail else ()
    uses = plan_gemv(target.isa, n, w, ops, None, "", "mask")
    got, _ = run_uses(target, uses, [x, w, *((bias, add) if tail else ())], (n, m))
    want = apply_epilogue(x.astype(np.float64) @ w.T, ops, [bias, add], 1)
    assert np.abs(got - want).max() <= 2e-6 * max(np.abs(want).max(), 1)


@TILES
@SWEEP
@given(
    **SIZES,
    density=DENSITY,
    storage=st.sampled_from(["dense", "mask", "mask4"]),
    zero=st.sampled_from([0, 7, 128, 255]),
    signed=st.booleans(),
    extreme=st.booleans(),
)
def test_int8_is_exact(target, m, k, n, density, storage, zero, signed, extreme):
    rng = np.random.default_rng([m, k, n, zero])
    k *= 4
    w = rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))
    w = (w * (rng.random((m, k)) < density)).astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    how = constant_quantization(w, zero, scale, None)
    given_x = (x.astype(np.int16) - 128).astype(np.int8) if signed else x
    uses = plan_gemv(target.isa, n, w, (), how, "", storage, signed)
    got, _ = run_uses(target, uses, [given_x, w], (n, m))
    np.testing.assert_array_equal(got, integer.rescale(integer.accumulate(x, zero, w.T, 0), scale))


@TILES
def test_round_trip_through_bytes(target):
    rng = np.random.default_rng(4)
    w, x = (rng.integers(0, 100, (r, 32)) for r in (19, 3))
    w, x, ops = w.astype(np.int8), x.astype(np.uint8), (EpilogueOp("fake_quantize"), EpilogueOp("relu"))
    numbers, scale = fake_quantize_operand(0.5, 99, "uint8"), np.full(19, 1e-3, np.float32)
    uses = plan_gemv(target.isa, 3, w, ops, constant_quantization(w, 60, scale, None), "", "dense")
    got, _ = run_uses(target, uses, [x, w, numbers], (3, 19))
    sums = integer.rescale(integer.accumulate(x, 60, w.T, 0), scale)
    np.testing.assert_array_equal(got, np.maximum(integer.round_trip(sums, 0.5, 99, "uint8"), 0))


def test_bytes_that_are_stored():
    w = np.zeros((32, 64), np.int8)
    w[:, ::8] = 1
    assert stored_bytes(w, "dense") == w.size
    assert stored_bytes(w, "mask") == w.size // 8 + w.size // 8
    assert stored_bytes(w, "mask4") == w.size // 32 + w.size // 2
    assert stored_bytes(w.astype(np.float32), "mask") == w.size // 8 + 4 * w.size // 8
