"""Convolutions compiled into code against numpy: strides, dilation, groups, padding on every side, tails, batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conv_cases import check, normal
from float_planes import check_planes, to_planes
from harness import run_uses, tile_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import apply_epilogue, conv2d, pool2d

from sparsec.codegen_templates import pool
from sparsec.codegen_templates.conv_planes import plan_conv_planes
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.planes import ConvGeometry, planes_for
from sparsec.codegen_templates.use import Tensor

TILES = pytest.mark.parametrize("target", tile_targets())
SWEEP = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EPILOGUES = (
    (),
    (EpilogueOp("bias"), EpilogueOp("relu")),
    (EpilogueOp("bias"), EpilogueOp("silu"), EpilogueOp("add")),
    (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu")),
    (EpilogueOp("add"), EpilogueOp("clip", (-0.5, 0.75))),
)


@TILES
@SWEEP
@given(data=st.data())
def test_any_geometry(target, data):
    pick = data.draw
    code = pick(st.sampled_from(["pattern", "dense", "depthwise"]))
    groups = {"pattern": pick(st.sampled_from([1, 1, 2, 3])), "dense": 1, "depthwise": pick(st.integers(2, 9))}[code]
    most = pick(st.sampled_from([3, 5, 5, 8])) if code == "depthwise" else 5
    taps = pick(st.tuples(st.integers(1, most), st.integers(1, most)))
    dilation = pick(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = pick(st.tuples(*[st.integers(0, 3)] * 4))
    smallest = [
        max(1, (t - 1) * d + 1 - p - q) for t, d, p, q in zip(taps, dilation, padding[:2], padding[2:], strict=True)
    ]
    size = tuple(pick(st.integers(s, s + 25)) for s in smallest)
    strides = pick(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    channels = (groups * pick(st.integers(1, 40)), pick(st.integers(1, 7)))
    if code == "depthwise":
        channels = (groups * pick(st.integers(1, 2)), 1)
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


@TILES
@SWEEP
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    o=st.integers(1, 60),
    c=st.integers(1, 20),
    ops=st.sampled_from(EPILOGUES[2:]),
    dense=st.booleans(),
)
def test_pointwise(target, size, o, c, ops, dense):
    geometry = ConvGeometry((1, 1), (1, 1), (0, 0, 0, 0), 1)
    check(target, (2, c, *size), (o, c, 1, 1), geometry, 0.3, ops, "dense" if dense else "pattern")


@TILES
@pytest.mark.parametrize("op", [EpilogueOp("relu"), EpilogueOp("clip", (-0.5, 0.75))])
def test_nan_stays_nan(target, op):
    x, w = np.full((1, 1, 3, 40), np.nan, np.float32), np.ones((2, 1, 1, 1), np.float32)
    tensors = Tensor("float32", x.shape), Tensor("float32", (1, 2, 3, 40))
    geometry = ConvGeometry((1, 1), (1, 1), (0, 0, 0, 0), 1)
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, (op,), "pattern", "")
    got, _ = run_uses(target, uses, [x, w], tensors[1].shape)
    assert np.isnan(got).all()


@TILES
@pytest.mark.parametrize("code", ["pattern", "dense"])
def test_runs_of_positions(target, code):
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 1)
    check(target, (1, 200, 45, 45), (30, 200, 3, 3), geometry, 0.05, EPILOGUES[1], code, cuts=4)


def draw_readers(pick, size, strides) -> list:
    """Convolutions of one stride that the same planes serve."""
    readers = []
    for _ in range(pick(st.integers(1, 2))):
        taps = pick(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        padding = pick(st.tuples(*[st.integers(0, 3)] * 4))
        padding = tuple(max(p, t - 1 - n) for p, t, n in zip(padding, taps * 2, size * 2, strict=True))
        readers.append((taps, ConvGeometry(strides, (1, 1), padding, 1)))
    return readers


@TILES
@SWEEP
@given(data=st.data())
def test_planes_to_planes(target, data):
    pick = data.draw
    size = pick(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    strides = pick(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 2)]))
    readers = draw_readers(pick, size, strides)
    code = pick(st.sampled_from(["pattern", "dense", "depthwise"]))
    own = planes_for(size, draw_readers(pick, size, (1, 1)) if code == "depthwise" else readers)
    taps, geometry = pick(st.sampled_from(readers))
    c, o = pick(st.integers(1, 9)), pick(st.integers(1, 40))
    if code == "depthwise":
        o, geometry = c * pick(st.integers(1, 2)), replace(geometry, groups=c)
    rng = np.random.default_rng([*size, c, o])
    x, w = normal(rng, 2, c, *size), normal(rng, o, 1 if code == "depthwise" else c, *taps)
    if code == "pattern":
        w *= rng.random(w.shape) < 0.3
    out = conv2d(x, w, strides, (1, 1), geometry.padding, geometry.groups)
    to = planes_for(out.shape[2:], draw_readers(pick, out.shape[2:], pick(st.sampled_from([(1, 1), (2, 2), (2, 3)]))))
    residual = planes_for(out.shape[2:], draw_readers(pick, out.shape[2:], (1, 1)))
    ops = (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp(pick(st.sampled_from(["hard_swish", "relu"]))))
    extra = [normal(rng, o), normal(rng, *out.shape)]
    tensors = Tensor("float32", (2, c, own.plane)), Tensor("float32", (2, o, to.plane))
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, ops, code, "", {0: own, 3: residual}, to)
    assert len(uses) == 1, "the planes are read as they are"
    operands = [to_planes(x, own), w, extra[0], to_planes(extra[1], residual)]
    got, status = run_uses(target, uses, operands, tensors[1].shape)
    assert status == 0
    check_planes(got, apply_epilogue(out, ops, extra, 1), to, 5e-6)


@TILES
def test_planes_that_do_not_serve_are_copied(target):
    size, geometry = (9, 12), ConvGeometry((2, 2), (1, 1), (1, 1, 1, 1), 1)
    own = planes_for(size, [((5, 5), ConvGeometry((1, 1), (1, 1), (2, 2, 2, 2), 1))])
    rng = np.random.default_rng(0)
    x, w = normal(rng, 1, 6, *size), normal(rng, 6, 6, 3, 3)
    want = conv2d(x, w, geometry.strides, geometry.dilation, geometry.padding, geometry.groups)
    tensors = Tensor("float32", (1, 6, own.plane)), Tensor("float32", want.shape)
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, (), "pattern", "", {0: own})
    got, _ = run_uses(target, uses, [to_planes(x, own), w], want.shape)
    np.testing.assert_allclose(got, want, atol=1e-4)


@TILES
@SWEEP
@given(data=st.data(), kind=st.sampled_from(["max", "avg"]))
def test_pools_of_planes(target, data, kind):
    pick = data.draw
    size, kernel = pick(st.tuples(st.integers(4, 40), st.integers(4, 40))), pick(st.tuples(*[st.integers(1, 4)] * 2))
    strides, padding = pick(st.tuples(*[st.integers(1, 3)] * 2)), tuple(k // 2 for k in kernel) * 2
    own = planes_for(size, draw_readers(pick, size, (1, 1)))
    x = normal(np.random.default_rng(size), 1, 3, *size)
    want = pool2d(x, kind, kernel, strides, (1, 1), padding, False)
    to = planes_for(want.shape[2:], draw_readers(pick, want.shape[2:], (1, 1)))
    tensors = Tensor("float32", (1, 3, own.plane)), Tensor("float32", (1, 3, to.plane))
    uses = pool.plan_pool(target.isa, *tensors, kind, kernel, strides, (1, 1), padding, False, {0: own}, to)
    got, _ = run_uses(target, uses, [to_planes(x, own)], tensors[1].shape)
    check_planes(got, want, to, 2e-6)
    mean = pool.plan_global_average(target.isa, tensors[0], {0: own})
    got, _ = run_uses(target, mean, [to_planes(x, own)], (1, 3, 1, 1))
    np.testing.assert_allclose(got, x.mean((2, 3), keepdims=True), atol=1e-5)
