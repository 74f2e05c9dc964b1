"""Every kernel of the catalogue against numpy: shapes, tails, strides, splits, and no byte outside of its arrays."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import ACTIVATIONS, apply_epilogue, conv2d, pool2d

from sparsec.codegen_templates import conv, gather, gemm, norm, planes, pool
from sparsec.codegen_templates.catalogue import CATALOGUE
from sparsec.codegen_templates.epilogue import STATEMENTS, EpilogueOp, fake_quantize_operand
from sparsec.codegen_templates.use import Tensor

TARGETS = pytest.mark.parametrize("target", host_targets())
SWEEP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
BIAS_RELU = (EpilogueOp("bias"), EpilogueOp("relu"))


def rng_of(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def normal(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def f32(*shape) -> Tensor:
    return Tensor("float32", shape)


def close(got, want, tolerance: float = 2e-6) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= tolerance * max(np.abs(want).max(initial=0), 1e-30)


@TARGETS
@SWEEP
@given(m=st.integers(1, 40), k=st.integers(1, 70), n=st.integers(1, 110), cuts=st.integers(1, 5))
def test_linear(target, m, k, n, cuts):
    rng = rng_of(m, k, n)
    a, w, bias = normal(rng, m, k), normal(rng, k, n), normal(rng, n)
    uses = gemm.plan_linear(target.isa, f32(m, k), w, BIAS_RELU)
    got, status = run_uses(target, uses, [a, w, bias], (m, n), cuts=cuts)
    assert status == 0
    close(got, np.maximum(a.astype(np.float64) @ w + bias, 0), 4e-6)


@TARGETS
def test_linear_blocks_of_rows(target):
    rng = rng_of(1)
    a, w = normal(rng, 300, 600), normal(rng, 600, 100)
    got, _ = run_uses(target, gemm.plan_linear(target.isa, f32(300, 600), w, ()), [a, w], (300, 100))
    close(got, a.astype(np.float64) @ w, 4e-6)


@TARGETS
@pytest.mark.parametrize(
    ("a_shape", "a_axes", "b_shape", "b_axes", "out_axes"),
    [
        ((2, 3, 9, 17), None, (2, 3, 17, 21), None, None),
        ((2, 9, 3, 17), (0, 2, 1, 3), (2, 21, 3, 17), (0, 2, 3, 1), None),  # scores of attention
        ((2, 3, 9, 50), None, (2, 50, 3, 16), (0, 2, 1, 3), (0, 2, 1, 3)),  # context of attention
        ((1, 3, 9, 7), None, (4, 1, 7, 60), None, None),
        ((5, 7), None, (3, 7, 4), None, None),
        ((2, 2, 2, 3, 4), None, (4, 5), None, None),
    ],
)
def test_product_of_activations(target, a_shape, a_axes, b_shape, b_axes, out_axes):
    rng = rng_of(2)
    a, b = normal(rng, *a_shape), normal(rng, *b_shape)
    want = np.matmul(
        (a if a_axes is None else a.transpose(a_axes)).astype(np.float64),
        b if b_axes is None else b.transpose(b_axes),
    )
    want = want if out_axes is None else np.ascontiguousarray(want.transpose(out_axes))
    ops = (EpilogueOp("scale", (0.125,)),)
    uses = gemm.plan_matmul(target.isa, f32(*a_shape), f32(*b_shape), f32(*want.shape), ops, a_axes, b_axes, out_axes)
    got, _ = run_uses(target, uses, [a, b], want.shape)
    close(got, want * 0.125, 4e-6)


def check_conv(target, n, c, o, h, w, taps, strides, dilation, padding, groups, ops=(), cuts=3):
    rng = rng_of(n, c, o, h, w, *taps)
    x, weights = normal(rng, n, c, h, w), normal(rng, o, c // groups, *taps)
    want = conv2d(x, weights, strides, dilation, padding, groups)
    extra = [
        normal(rng, o) if op.kind in ("bias", "prelu") else normal(rng, *want.shape) for op in ops if op.takes_operand
    ]
    geometry = planes.ConvGeometry(strides, dilation, padding, groups)
    uses = conv.plan_conv(target.isa, f32(n, c, h, w), weights, f32(*want.shape), geometry, ops)
    got, _ = run_uses(target, uses, [x, weights, *extra], want.shape, cuts=cuts)
    close(got, apply_epilogue(want, ops, extra, 1), 5e-6)


@TARGETS
@SWEEP
@given(data=st.data())
def test_convolution(target, data):
    pick = data.draw
    groups = pick(st.sampled_from([1, 1, 1, 2, 3]))
    taps = pick(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = pick(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = pick(st.tuples(*[st.integers(0, 3)] * 4))
    smallest = [
        max(1, (t - 1) * d + 1 - p - q) for t, d, p, q in zip(taps, dilation, padding[:2], padding[2:], strict=True)
    ]
    h, w = (pick(st.integers(s, s + 30)) for s in smallest)
    check_conv(
        target,
        pick(st.integers(1, 2)),
        groups * pick(st.integers(1, 5)),
        groups * pick(st.integers(1, 19)),
        h,
        w,
        taps,
        pick(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        dilation,
        padding,
        groups,
        BIAS_RELU,
        pick(st.integers(1, 5)),
    )


@TARGETS
@SWEEP
@given(h=st.integers(1, 20), w=st.integers(1, 20), c=st.integers(1, 9), o=st.integers(1, 20))
def test_pointwise_convolution(target, h, w, c, o):
    check_conv(target, 2, c, o, h, w, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, (EpilogueOp("bias"), EpilogueOp("add")))


@TARGETS
@SWEEP
@given(data=st.data())
def test_depthwise_convolution(target, data):
    pick = data.draw
    taps = pick(st.sampled_from([(3, 3), (5, 5), (1, 7), (2, 4)]))
    c = pick(st.integers(2, 5))
    check_conv(
        target,
        pick(st.integers(1, 2)),
        c,
        c * pick(st.integers(1, 2)),
        pick(st.integers(9, 24)),
        pick(st.integers(13, 70)),
        taps,
        pick(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        pick(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        pick(st.tuples(*[st.integers(0, 2)] * 4)),
        c,
        (EpilogueOp("bias"), EpilogueOp("prelu")),
    )


@TARGETS
def test_convolution_of_the_whole_image(target):
    check_conv(target, 3, 7, 20, 4, 5, (4, 5), (1, 1), (1, 1), (0, 0, 0, 0), 1, BIAS_RELU)


@TARGETS
def test_runs_of_positions(target):
    check_conv(target, 1, 40, 9, 60, 60, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, BIAS_RELU)


@TARGETS
@pytest.mark.parametrize("kind", sorted(STATEMENTS))
def test_epilogue(target, kind):
    params = {"scale": (0.3,), "clip": (-0.5, 0.75), "leaky_relu": (0.2,)}.get(kind, ())
    op = EpilogueOp(kind, params)
    rng = rng_of(3)
    a = np.linspace(-12, 12, 60, dtype=np.float32).reshape(60, 1)
    w = normal(rng, 1, 37)
    extra = [normal(rng, 37) if kind in ("bias", "prelu") else normal(rng, 60, 37)] if op.takes_operand else []
    if kind == "fake_quantize":
        extra = [fake_quantize_operand(0.0625, 100, "uint8")]
    got, _ = run_uses(target, gemm.plan_linear(target.isa, f32(60, 1), w, (op,)), [a, w, *extra], (60, 37))
    close(got, apply_epilogue(a.astype(np.float64) @ w, (op,), extra, 1), 1e-6)


@TARGETS
@pytest.mark.parametrize("kind", sorted(ACTIVATIONS))
def test_epilogue_keeps_nan(target, kind):
    a, w = np.array([[np.nan], [1.0]], np.float32), np.ones((1, 3), np.float32)
    got, _ = run_uses(target, gemm.plan_linear(target.isa, f32(2, 1), w, (EpilogueOp(kind),)), [a, w], (2, 3))
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()


@TARGETS
@SWEEP
@given(data=st.data(), kind=st.sampled_from(["max", "avg"]), include=st.booleans())
def test_pooling(target, data, kind, include):
    pick = data.draw
    kernel = pick(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = pick(st.tuples(st.integers(1, 2), st.integers(1, 2))) if kind == "max" else (1, 1)
    padding = tuple(pick(st.integers(0, (k - 1) // 2)) for k in kernel) + tuple(
        pick(st.integers(0, k - 1)) for k in kernel
    )
    strides = pick(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    h, w = pick(st.integers(9, 20)), pick(st.integers(9, 40))
    x = normal(rng_of(h, w), 2, 3, h, w)
    want = pool2d(x, kind, kernel, strides, dilation, padding, include)
    uses = pool.plan_pool(
        target.isa, f32(*x.shape), f32(*want.shape), kind, kernel, strides, dilation, padding, include
    )
    got, _ = run_uses(target, uses, [x], want.shape)
    close(got, want)


@TARGETS
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 5, 7, 7), (2, 2, 13, 31)])
def test_global_average(target, shape):
    x = normal(rng_of(4), *shape)
    got, _ = run_uses(target, pool.plan_global_average(target.isa, f32(*shape)), [x], (*shape[:2], 1, 1))
    close(got, x.astype(np.float64).mean((2, 3), keepdims=True))


@TARGETS
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("count", [1, 3, 16, 50, 131])
def test_softmax(target, log, count):
    x = 20 * normal(rng_of(5), 4, 3, count)
    got, _ = run_uses(target, norm.plan_softmax(target.isa, f32(*x.shape), log), [x], x.shape)
    shifted = x.astype(np.float64) - x.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    close(got, logs if log else np.exp(logs), 1e-6)


@TARGETS
def test_softmax_of_masked_rows(target):
    x = np.full((3, 20), -np.inf, np.float32)
    x[0, :3] = 1.0
    x[1, 5] = np.nan
    got, _ = run_uses(target, norm.plan_softmax(target.isa, f32(3, 20), False), [x], x.shape)
    np.testing.assert_allclose(got[0], np.r_[np.full(3, 1 / 3), np.zeros(17)], rtol=1e-6)
    assert np.isnan(got[1:]).all()


@TARGETS
@pytest.mark.parametrize("count", [1, 7, 16, 384, 771])
def test_layer_norm(target, count):
    rng = rng_of(6, count)
    x, gamma, beta = 3 + normal(rng, 5, count), normal(rng, count), normal(rng, count)
    got, _ = run_uses(target, norm.plan_layer_norm(target.isa, f32(5, count), 1e-5), [x, gamma, beta], x.shape)
    centred = x.astype(np.float64) - x.astype(np.float64).mean(-1, keepdims=True)
    want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    close(got, want, 5e-6)


@TARGETS
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(target, dtype, axis):
    data = rng_of(7).integers(0, 200, (4, 6, 5)).astype(dtype)
    indices = np.array([[0, -1, 2], [3, -4, 1]], np.int64)
    want = np.take(data, indices, axis=axis)
    uses = gather.plan_gather(target.isa, Tensor(dtype, data.shape), Tensor("int64", indices.shape), axis)
    got, status = run_uses(target, uses, [data, indices], want.shape, dtype)
    assert status == 0
    np.testing.assert_array_equal(got, want)


@TARGETS
@pytest.mark.parametrize("index", [4, -5, 2**40])
def test_gather_refuses_an_index_outside_of_the_axis(target, index):
    data, indices = np.zeros((4, 3), np.float32), np.array([0, index], np.int64)
    uses = gather.plan_gather(target.isa, f32(4, 3), Tensor("int64", (2,)), 0)
    assert run_uses(target, uses, [data, indices], (2, 3))[1] == gather.INDEX_ERROR


def test_names_are_unique():
    names = [kernel.name for kernel in CATALOGUE]
    assert len(set(names)) == len(names)
