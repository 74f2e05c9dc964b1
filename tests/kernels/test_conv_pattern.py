"""Convolutions compiled into code against numpy: strides, dilation, groups, padding on every side, tails, batches."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import apply_epilogue, conv2d

from sparsec.codegen_templates import conv
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.planes import ConvGeometry
from sparsec.codegen_templates.use import Tensor

AVX512 = pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])
SWEEP = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EPILOGUES = (
    (),
    (EpilogueOp("bias"), EpilogueOp("relu")),
    (EpilogueOp("bias"), EpilogueOp("silu"), EpilogueOp("add")),
)


def normal(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def check(target, x_shape, w_shape, geometry, density, ops=(), code="pattern", cuts=3):
    rng = np.random.default_rng([*x_shape, *w_shape])
    x, w = normal(rng, *x_shape), normal(rng, *w_shape) * (rng.random(w_shape) < density)
    want = conv2d(x, w, geometry.strides, geometry.dilation, geometry.padding, geometry.groups)
    extra = [
        normal(rng, w_shape[0]) if op.kind == "bias" else normal(rng, *want.shape) for op in ops if op.takes_operand
    ]
    tensors = Tensor("float32", x.shape), Tensor("float32", want.shape)
    uses = conv.plan_conv(target.isa, tensors[0], w, tensors[1], geometry, ops, code)
    got, status = run_uses(target, uses, [x, w, *extra], want.shape, cuts=cuts)
    want = apply_epilogue(want, ops, extra, 1)
    assert status == 0
    assert np.abs(got - want).max() <= 5e-6 * max(np.abs(want).max(), 1e-30)


@AVX512
@SWEEP
@given(data=st.data())
def test_any_geometry(target, data):
    pick = data.draw
    code = pick(st.sampled_from(["pattern", "dense"]))
    groups = pick(st.sampled_from([1, 1, 2, 3])) if code == "pattern" else 1
    taps = pick(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = pick(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = pick(st.tuples(*[st.integers(0, 3)] * 4))
    smallest = [
        max(1, (t - 1) * d + 1 - p - q) for t, d, p, q in zip(taps, dilation, padding[:2], padding[2:], strict=True)
    ]
    size = tuple(pick(st.integers(s, s + 25)) for s in smallest)
    strides = pick(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    channels = (groups * pick(st.integers(1, 40)), pick(st.integers(1, 7)))
    check(
        target,
        (pick(st.integers(1, 2)), groups * channels[1], *size),
        (channels[0], channels[1], *taps),
        ConvGeometry(strides, dilation, padding, groups),
        pick(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        pick(st.sampled_from(EPILOGUES)),
        code,
        pick(st.integers(1, 4)),
    )


@AVX512
@SWEEP
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    o=st.integers(1, 60),
    c=st.integers(1, 20),
    dense=st.booleans(),
)
def test_pointwise(target, size, o, c, dense):
    geometry = ConvGeometry((1, 1), (1, 1), (0, 0, 0, 0), 1)
    check(target, (2, c, *size), (o, c, 1, 1), geometry, 0.3, EPILOGUES[2], "dense" if dense else "pattern")


@AVX512
@pytest.mark.parametrize("code", ["pattern", "dense"])
def test_runs_of_positions(target, code):
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 1)
    check(target, (1, 200, 45, 45), (30, 200, 3, 3), geometry, 0.05, EPILOGUES[1], code, cuts=4)
