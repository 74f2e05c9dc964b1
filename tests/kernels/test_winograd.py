"""Winograd's convolutions against numpy: sizes that no tile divides, padding, batches, planes of readers."""

from __future__ import annotations

import numpy as np
import pytest
from float_planes import check_planes, to_planes
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import apply_epilogue, conv2d

from sparsec.codegen_templates.conv_planes import WINOGRAD, plan_conv_planes
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.planes import ConvGeometry, planes_for
from sparsec.codegen_templates.use import Tensor
from sparsec.codegen_templates.winograd import transformed

AVX512 = pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])
SWEEP = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
OPS = (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu"))
TOLERANCE = 3e-5


def normal(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@AVX512
@SWEEP
@given(data=st.data())
def test_any_size(target, data):
    pick = data.draw
    code = pick(st.sampled_from(sorted(WINOGRAD)))
    padding = pick(st.tuples(*[st.integers(0, 3)] * 4))
    size = [pick(st.integers(max(1, 3 - padding[i] - padding[i + 2]), most)) for i, most in ((0, 20), (1, 80))]
    c, o, cuts = pick(st.integers(1, 20)), pick(st.integers(1, 70)), pick(st.integers(1, 4))
    rng = np.random.default_rng([*size, c, o])
    x, w = normal(rng, 2, c, *size), normal(rng, o, c, 3, 3)
    geometry = ConvGeometry((1, 1), (1, 1), padding, 1)
    want = conv2d(x, w, (1, 1), (1, 1), padding, 1)
    extra = [normal(rng, o), normal(rng, *want.shape)]
    tensors = Tensor("float32", x.shape), Tensor("float32", want.shape)
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, OPS, code, "")
    got, status = run_uses(target, uses, [x, w, *extra], want.shape, cuts=cuts)
    want = apply_epilogue(want, OPS, extra, 1)
    assert status == 0
    assert np.abs(got - want).max() <= TOLERANCE * max(np.abs(want).max(), 1)


@AVX512
@SWEEP
@given(data=st.data())
def test_phases_of_strides(target, data):
    pick = data.draw
    taps = pick(st.integers(5, 8))
    padding = pick(st.tuples(*[st.integers(0, 4)] * 4))
    size = [pick(st.integers(max(1, taps - padding[i] - padding[i + 2]), most)) for i, most in ((0, 40), (1, 150))]
    c, o = pick(st.integers(1, 5)), pick(st.integers(1, 40))
    rng = np.random.default_rng([*size, c, o])
    x, w, bias = normal(rng, 2, c, *size), normal(rng, o, c, taps, taps), normal(rng, o)
    geometry = ConvGeometry((2, 2), (1, 1), padding, 1)
    want = apply_epilogue(conv2d(x, w, (2, 2), (1, 1), padding, 1), OPS[::2], [bias], 1)
    tensors = Tensor("float32", x.shape), Tensor("float32", want.shape)
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, OPS[::2], "winograd4", "")
    got, status = run_uses(target, uses, [x, w, bias], want.shape)
    assert status == 0
    assert np.abs(got - want).max() <= TOLERANCE * max(np.abs(want).max(), 1)


@AVX512
@SWEEP
@given(data=st.data())
def test_planes_to_planes(target, data):
    """What lies between the values of planes, here NaN where nobody may read, does not get into the results."""
    pick = data.draw
    size = pick(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 1)

    def planes(strides):
        side = pick(st.integers(0, 3))
        return planes_for(size, [((4, 4), ConvGeometry(strides, (1, 1), (side, side, side, side), 1))])

    own, residual, to = planes((1, 1)), planes((1, 1)), planes(pick(st.sampled_from([(1, 1), (2, 2), (2, 3)])))
    c, o = pick(st.integers(1, 9)), pick(st.integers(1, 40))
    rng = np.random.default_rng([*size, c, o])
    x, w = normal(rng, 2, c, *size), normal(rng, o, c, 3, 3)
    extra = [normal(rng, o), normal(rng, 2, o, *size)]
    want = apply_epilogue(conv2d(x, w, (1, 1), (1, 1), (1, 1, 1, 1), 1), OPS, extra, 1)
    tensors = Tensor("float32", (2, c, own.plane)), Tensor("float32", (2, o, to.plane))
    code = pick(st.sampled_from(sorted(WINOGRAD)))
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, OPS, code, "", {0: own, 3: residual}, to)
    operands = [to_planes(x, own), w, extra[0], to_planes(extra[1], residual)]
    got, status = run_uses(target, uses, operands, tensors[1].shape)
    assert status == 0
    check_planes(got, want, to, TOLERANCE)


@pytest.mark.parametrize("m", [2, 4])
def test_filters_at_the_corners(m):
    """Point 0 in both dimensions holds one corner's weight, infinity that of the opposite one."""
    w = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    points = transformed(w, m).reshape(m + 2, m + 2)
    scale = {2: 1, 4: 4}[m]
    assert points[0, 0] * scale**2 == w[0, 0, 0, 0]
    assert points[-1, -1] == w[0, 0, 2, 2]
    assert points[0, -1] * scale == w[0, 0, 0, 2]
