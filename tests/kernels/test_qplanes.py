"""Layouts of quantized images, and pooling on them, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_uses, tile_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planes import check_padding, from_planes, to_planes

from sparsec.codegen_templates import integer, qplanes
from sparsec.codegen_templates.qplanes import Geometry
from sparsec.codegen_templates.qplanes_move import (
    plan_copy_planes,
    plan_from_planes,
    plan_pool_planes,
    plan_to_planes,
    plan_unroll_rows,
    unrolled,
)
from sparsec.codegen_templates.use import Tensor

TILES = pytest.mark.parametrize("target", tile_targets())
SWEEP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 40))


@TILES
@SWEEP
@given(n=st.integers(1, 2), c=st.integers(1, 9), size=SIZES, gap=st.integers(0, 3), zero=st.sampled_from([0, 9, 255]))
def test_from_and_to_nchw(target, n, c, size, gap, zero):
    rng = np.random.default_rng([n, c, *size])
    planes = qplanes.plain(*size, size[1] + gap, 5, 7)
    floats = np.float32(20) * rng.standard_normal((n, c, *size)).astype(np.float32)
    floats.flat[::7] = np.nan
    cases = [
        (floats, integer.quantize(floats, float(integer.inverse(0.3)), zero, "uint8")),
        (rng.integers(0, 256, floats.shape).astype(np.uint8), None),
        (rng.integers(-128, 128, floats.shape).astype(np.int8), None),
    ]
    for x, want in cases:
        want = x.view(np.uint8) ^ np.uint8(128 if x.dtype == np.int8 else 0) if want is None else want
        uses = plan_to_planes(target.isa, Tensor(str(x.dtype), x.shape), planes, 0.3, zero)
        got, _ = run_uses(target, uses, [x], planes.shape(n, c), "uint8")
        np.testing.assert_array_equal(got, to_planes(want, planes, zero))
        if x.dtype != np.float32:
            back, _ = run_uses(
                target,
                plan_from_planes(target.isa, planes, Tensor(str(x.dtype), x.shape)),
                [got],
                x.shape,
                str(x.dtype),
            )
            np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("target", tile_targets("unroll_rows"))
@SWEEP
@given(
    n=st.integers(1, 2),
    c=st.integers(1, 3),
    size=SIZES,
    kernel=st.tuples(st.integers(1, 3), st.integers(2, 7)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 3)),
    gap=st.integers(0, 2),
    zero=st.sampled_from([0, 9, 255]),
    dtype=st.sampled_from(["float32", "uint8", "int8"]),
)
def test_rows_are_unrolled(target, n, c, size, kernel, strides, pads, gap, zero, dtype):
    rng = np.random.default_rng([n, c, *size, *kernel])
    window = Geometry(kernel, strides, (1, 1), pads)
    out = [(s + a + b - k) // t + 1 for s, a, b, k, t in zip(size, pads[:2], pads[2:], kernel, strides, strict=True)]
    if min(out) < 1:
        return
    planes = qplanes.phased(size[0], out[1], unrolled(window), tuple(out), out[1] + gap)
    if dtype == "float32":
        x = np.float32(20) * rng.standard_normal((n, c, *size)).astype(np.float32)
        steps = integer.quantize(x, float(integer.inverse(0.3)), zero, "uint8")
    else:
        x = rng.integers(0, 256, (n, c, *size)).astype(np.uint8).view(dtype)
        steps = x.view(np.uint8) ^ np.uint8(128 if dtype == "int8" else 0)
    padded = np.pad(steps, ((0, 0), (0, 0), (0, 0), (pads[1], pads[3])), constant_values=zero)
    columns = [padded[..., k : k + (out[1] - 1) * strides[1] + 1 : strides[1]] for k in range(kernel[1])]
    depth = kernel[1] * c
    uses = plan_unroll_rows(target.isa, Tensor(dtype, x.shape), planes, 0.3, zero, window)
    got, _ = run_uses(target, uses, [x], planes.shape(n, depth), "uint8")
    want = np.stack(columns, 1).reshape(n, depth, size[0], out[1])
    np.testing.assert_array_equal(
        from_planes(got, planes, depth), from_planes(to_planes(want, planes, zero), planes, depth)
    )
    check_padding(got, planes, zero)


@TILES
@SWEEP
@given(
    window=st.builds(
        Geometry,
        kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        padding=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    ),
    size=st.tuples(st.integers(3, 9), st.integers(3, 40)),
    channels=st.integers(1, 6),
)
def test_windows(target, window, size, channels):
    """The planes of a window with strides, and the maximum over it."""
    rng = np.random.default_rng([*size, channels])
    top, left, bottom, right = window.padding
    out = tuple(
        (extent + sum(window.padding[i::2]) - reach - 1) // stride + 1
        for i, (extent, reach, stride) in enumerate(zip(size, window.reach(), window.strides, strict=True))
    )
    if min(out) < 1:
        return
    x = rng.integers(0, 256, (2, channels, *size)).astype(np.uint8)
    own = qplanes.plain(*size, size[1] + 1, 3, 3)
    given_planes = to_planes(x, own, 11)
    tensor = Tensor("uint8", given_planes.shape)
    pitch = qplanes.pitch_for(window, size[1], out[1])
    planes = qplanes.phased(*size, window, out, pitch)
    uses = plan_copy_planes(target.isa, [(tensor, own)], planes, 11, "")
    got, _ = run_uses(target, uses, [given_planes], planes.shape(2, channels), "uint8")
    np.testing.assert_array_equal(got, to_planes(x, planes, 11))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    want = np.zeros((2, channels, *out), np.uint8)
    for y, z in window.taps():
        part = padded[:, :, y:, z:][:, :, :: window.strides[0], :: window.strides[1]][:, :, : out[0], : out[1]]
        want = np.maximum(want, part)
    written = qplanes.plain(*out, out[1] + 2, 20, 20)
    uses = plan_pool_planes(target.isa, tensor, own, written, window, 11)
    got, _ = run_uses(target, uses, [given_planes], written.shape(2, channels), "uint8")
    np.testing.assert_array_equal(from_planes(got, written, channels), want)


@TILES
@pytest.mark.parametrize("repeat", [(1, 1), (2, 2), (1, 3)])
def test_side_by_side_and_repeated(target, repeat):
    rng = np.random.default_rng(sum(repeat))
    parts = [rng.integers(0, 256, (2, c, 5, 19)).astype(np.uint8) for c in (8, 4)]
    own = [qplanes.plain(5, 19, 20, 7, 7), qplanes.plain(5, 19, 19)]
    given_planes = [to_planes(x, p, 3) for x, p in zip(parts, own, strict=True)]
    planes = qplanes.plain(5 * repeat[0], 19 * repeat[1], 19 * repeat[1] + 1, 30, 9)
    sources = [(Tensor("uint8", g.shape), p) for g, p in zip(given_planes, own, strict=True)]
    uses = plan_copy_planes(target.isa, sources, planes, 3, "", repeat)
    got, _ = run_uses(target, uses, given_planes, planes.shape(2, 12), "uint8")
    want = np.concatenate(parts, 1).repeat(repeat[0], 2).repeat(repeat[1], 3)
    np.testing.assert_array_equal(from_planes(got, planes, 12), want)
    check_padding(got, planes, 3)
