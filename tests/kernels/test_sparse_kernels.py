"""Pattern-compiled products against numpy: float within rounding, int8 bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import apply_epilogue

from sparsec.codegen_templates import integer, spmm
from sparsec.codegen_templates.attention import Quantized
from sparsec.codegen_templates.epilogue import EpilogueOp

AVX512 = pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])
SWEEP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EPILOGUES = (
    (),
    (EpilogueOp("bias"), EpilogueOp("gelu_erf")),
    (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu")),
)


def pruned(rng, m: int, k: int, density: float, block: int = 1) -> np.ndarray:
    mask = np.repeat(rng.random((m, -(-k // block))) < density, block, axis=1)[:, :k]
    return rng.standard_normal((m, k)).astype(np.float32) * mask


def to_panels(target, x: np.ndarray, quantized: bool, signed: bool = False) -> np.ndarray:
    n, k = x.shape
    uses = spmm.plan_panels(target.isa, n, k, quantized=quantized, signed=signed)
    shape = spmm.panel_shape(n, k, quantized)
    out, status = run_uses(target, uses, [x], shape, "uint8" if quantized else "float32")
    assert status == 0
    return out


def rows_of(panels: np.ndarray, k: int) -> np.ndarray:
    """u8 panels as rows again."""
    return panels.transpose(0, 2, 1, 3).reshape(-1, k)


def operands_of(rng, ops, m: int, n: int) -> list[np.ndarray]:
    shapes = {"bias": (m,), "add": (n, m)}
    return [rng.standard_normal(shapes[op.kind]).astype(np.float32) for op in ops if op.takes_operand]


@AVX512
@SWEEP
@given(
    m=st.integers(1, 70),
    k=st.integers(1, 90),
    n=st.integers(1, 60),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    ops=st.sampled_from(EPILOGUES),
)
def test_float(target, m, k, n, density, ops):
    rng = np.random.default_rng([m, k, n])
    w, x = pruned(rng, m, k, density), rng.standard_normal((n, k)).astype(np.float32)
    panels = to_panels(target, x, quantized=False)
    np.testing.assert_array_equal(panels.transpose(0, 2, 1).reshape(-1, k)[:n], x)
    extra = operands_of(rng, ops, m, n)
    uses = spmm.plan_spmm(target.isa, n, w, ops, None, "")
    got, _ = run_uses(target, uses, [panels, w, *extra], (n, m))
    want = apply_epilogue(x.astype(np.float64) @ w.T, ops, extra, 1)
    assert np.abs(got - want).max() <= 4e-6 * max(np.abs(want).max(), 1)


def quantized_reference(x, w, zero, scale):
    """Exact sums, then one rounded multiplication."""
    return integer.rescale(integer.accumulate(x, zero, w.T, 0), scale)


@AVX512
@SWEEP
@given(
    m=st.integers(1, 70),
    k=st.integers(1, 40),
    n=st.integers(1, 60),
    zero=st.sampled_from([0, 7, 128, 255]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    extreme=st.booleans(),
    dense=st.booleans(),
)
def test_int8_is_exact(target, m, k, n, zero, density, extreme, dense):
    rng = np.random.default_rng([m, k, n, zero])
    k *= 4
    mask = np.repeat(rng.random((m, k // 4)) < density, 4, axis=1)
    w = (rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))).astype(np.int8) * mask
    w = w.astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    panels = to_panels(target, x, quantized=True)
    start = (-zero * w.astype(np.int64).sum(1)).astype(np.int32)
    uses = spmm.plan_spmm(target.isa, n, w, (), spmm.Quantization(start, scale), "", dense)
    got, _ = run_uses(target, uses, [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


@AVX512
@pytest.mark.parametrize(("m", "n"), [(28, 16), (64, 37), (100, 5)])
def test_int8_to_panels_of_the_next_layer(target, m, n):
    rng = np.random.default_rng([m, n])
    w = rng.integers(-127, 128, (m, 64)).astype(np.int8)
    x = rng.integers(0, 256, (n, 64)).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-3, m).astype(np.float32)
    how = Quantized(0.25, 99)
    uses = spmm.plan_spmm(
        target.isa, n, w, (EpilogueOp("relu"),), spmm.Quantization(np.zeros(m, np.int32), scale), "", False, how
    )
    panels = to_panels(target, x, quantized=True)
    got, _ = run_uses(target, uses, [panels, w], spmm.panel_shape(n, m, True), "uint8")
    y = np.maximum(quantized_reference(x, w, 0, scale), 0)
    want = integer.quantize(y, integer.inverse(how.scale), how.zero_point, "uint8")
    np.testing.assert_array_equal(rows_of(got, m)[:n], want)


@AVX512
def test_signed_activations_move_up(target):
    x = np.random.default_rng(0).integers(-128, 128, (37, 24)).astype(np.int8)
    panels = to_panels(target, x.view(np.uint8), quantized=True, signed=True)
    want = (x.astype(np.int16) + 128).astype(np.uint8)
    np.testing.assert_array_equal(rows_of(panels, 24)[:37], want)


@AVX512
@pytest.mark.parametrize("n", [700, 33])
def test_runs_of_columns(target, n):
    rng = np.random.default_rng(1)
    w, x = pruned(rng, 60, 900, 0.1), rng.standard_normal((n, 900)).astype(np.float32)
    uses = spmm.plan_spmm(target.isa, n, w, (), None, "")
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=False), w], (n, 60), cuts=4)
    np.testing.assert_allclose(got, x.astype(np.float64) @ w.T, atol=1e-4)
