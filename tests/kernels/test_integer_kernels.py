"""Products of 8-bit integers against their definition, bit for bit, on every target of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsec.codegen_templates import dynamic, integer, qgemm
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.use import Operand, Tensor

TARGETS = pytest.mark.parametrize("target", host_targets())
SWEEP = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
TYPES = st.sampled_from(["uint8", "int8"])


def integers(rng, shape, dtype: str, extreme: bool) -> np.ndarray:
    limits = np.iinfo(dtype)
    if extreme:
        return rng.choice(np.array([limits.min, limits.max], dtype), shape)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def zero_of(rng, dtype: str) -> int:
    limits = np.iinfo(dtype)
    return int(rng.choice([limits.min, 0, 7, limits.max]))


@TARGETS
@SWEEP
@given(
    m=st.integers(1, 40),
    k=st.integers(1, 71),
    n=st.integers(1, 110),
    dtype=TYPES,
    w_dtype=TYPES,
    extreme=st.booleans(),
    per_column=st.booleans(),
    biased=st.booleans(),
)
def test_linear(target, m, k, n, dtype, w_dtype, extreme, per_column, biased):
    rng = np.random.default_rng([m, k, n])
    x, w = integers(rng, (m, k), dtype, extreme), integers(rng, (k, n), w_dtype, extreme)
    zero, w_zero = zero_of(rng, dtype), zero_of(rng, w_dtype)
    bias = rng.integers(-(2**31), 2**31, n).astype(np.int32) if biased else None
    scale = rng.uniform(1e-4, 1e-2, n if per_column else 1).astype(np.float32)
    shift = rng.standard_normal(n).astype(np.float32)
    centred = w.astype(np.int16) - w_zero
    how = qgemm.constant_quantization(0.7, zero, dtype)
    weights = centred.astype(np.int8) if abs(centred).max() < 128 else centred
    uses = qgemm.plan_qlinear(
        target.isa, Tensor(dtype, (m, k)), how, weights, scale, bias, (EpilogueOp("bias"), EpilogueOp("relu")), 2
    )
    got, status = run_uses(target, uses, [x, weights, shift], (m, n))
    assert status == 0
    total = integer.accumulate(x, zero, w, w_zero, 0 if bias is None else bias)
    want = np.maximum(integer.rescale(total, integer.multiplier(np.float32(0.7), scale)) + shift, 0)
    np.testing.assert_array_equal(got, want)


@TARGETS
@SWEEP
@given(
    b=st.integers(1, 3),
    h=st.integers(1, 3),
    m=st.integers(1, 20),
    k=st.integers(1, 40),
    n=st.integers(1, 60),
    dtype=TYPES,
    extreme=st.booleans(),
    shared=st.booleans(),
)
def test_activations(target, b, h, m, k, n, dtype, extreme, shared):
    """Scales and zero points are tensors of the run; heads are transposed on all three sides."""
    rng = np.random.default_rng([b, h, m, k, n])
    x = integers(rng, (b, m, h, k), "uint8", extreme)
    y = integers(rng, (1 if shared else b, n, h, k), dtype, extreme)
    x_zero, y_zero = zero_of(rng, "uint8"), zero_of(rng, dtype)
    scales = np.array([0.01], np.float32), np.array([0.3], np.float32)
    given_zeros = np.array([x_zero], np.uint8), np.array([y_zero], dtype)
    quantizations = tuple(qgemm.Quantization(Operand(2 + 2 * i), Operand(3 + 2 * i)) for i in range(2))
    out = Tensor("float32", (b, m, h, n))
    uses = qgemm.plan_qmatmul(
        target.isa, Tensor("uint8", x.shape), Tensor(dtype, y.shape), out, quantizations,
        ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), (), 6,
    )  # fmt: skip
    operands = [x, y, scales[0], given_zeros[0], scales[1], given_zeros[1]]
    got, status = run_uses(target, uses, operands, out.shape)
    assert status == 0
    total = integer.accumulate(x.transpose(0, 2, 1, 3), x_zero, y.transpose(0, 2, 3, 1), y_zero)
    want = integer.rescale(total, integer.multiplier(*scales)).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(got, want)


@TARGETS
def test_blocks_of_rows(target):
    rng = np.random.default_rng(3)
    x, w = integers(rng, (300, 900), "uint8", False), integers(rng, (900, 50), "int8", False)
    how = qgemm.constant_quantization(1.0, 128, "uint8")
    uses = qgemm.plan_qlinear(target.isa, Tensor("uint8", x.shape), how, w, np.ones(1, np.float32), None, (), 2)
    got, _ = run_uses(target, uses, [x, w], (300, 50), cuts=5)
    np.testing.assert_array_equal(got, integer.rescale(integer.accumulate(x, 128, w, 0), 1))


@TARGETS
@SWEEP
@given(n=st.integers(1, 9000), low=st.floats(-20, 5), width=st.sampled_from([0.0, 1e-30, 3.0, 1e6]))
def test_dynamic_quantization(target, n, low, width):
    x = np.random.default_rng(n).uniform(low, low + width, n).astype(np.float32)
    how, _ = run_uses(target, dynamic.plan_range(target.isa, Tensor("float32", (n,))), [x], (2,))
    scale, zero = integer.dynamic_parameters(x)
    np.testing.assert_array_equal(how, [scale, zero])
    got, _ = run_uses(target, dynamic.plan_quantize(target.isa, Tensor("float32", (n,))), [x, how], (n,), "uint8")
    np.testing.assert_array_equal(got, integer.quantize_linear(x, scale, int(zero), "uint8"))
