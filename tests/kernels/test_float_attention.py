"""Fused float attention against numpy: masks, strides, tails, heads that share K and V."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsec.codegen_templates.attention import AttentionShape
from sparsec.codegen_templates.float_attention import AttentionAxes, plan_float_attention, plan_panels_attention
from sparsec.codegen_templates.layout import panel_shape
from sparsec.codegen_templates.use import Tensor

TARGETS = pytest.mark.parametrize("target", host_targets())
SWEEP = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
HEADS_LAST = (0, 2, 1, 3)


def f32(array: np.ndarray) -> Tensor:
    return Tensor("float32", array.shape)


def attention(q, k, v, scale, mask):
    """Of [B, H, S, D], in float64; -inf alone in a row gives NaN."""
    scores = scale * np.einsum("bhsd,bhtd->bhst", q.astype(np.float64), k.astype(np.float64))
    scores = scores + (0 if mask is None else mask)
    with np.errstate(invalid="ignore"):
        exp = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhst,bhte->bhse", exp / exp.sum(-1, keepdims=True), v)


def run(target, q, k, v, scale, mask, axes, shape, cuts=3, zeros=False):
    added, out = None if mask is None else f32(mask), Tensor("float32", shape)
    uses = plan_float_attention(target.isa, f32(q), f32(k), f32(v), out, scale, added, axes, zeros)
    got, status = run_uses(target, uses, [q, k, v, *([] if mask is None else [mask])], shape, cuts=cuts)
    assert status == 0
    return got


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@TARGETS
@SWEEP
@given(
    b=st.integers(1, 2),
    h=st.integers(1, 3),
    s=st.integers(1, 70),
    t=st.integers(1, 300),
    d=st.sampled_from([20, 64]),
    mask_shape=st.sampled_from([None, "b11t", "111t", "bhst", "11st"]),
    cuts=st.integers(1, 4),
)
def test_heads_between_sequence_and_depth(target, b, h, s, t, d, mask_shape, cuts):
    rng = np.random.default_rng([b, h, s, t, d])
    q, k, v = normal(rng, b, s, h, d), normal(rng, b, t, h, d), normal(rng, b, t, h, d)
    mask = None
    if mask_shape is not None:
        sizes = {"b": b, "h": h, "s": s, "t": t, "1": 1}
        mask = np.where(rng.random([sizes[c] for c in mask_shape]) < 0.7, 0, -3).astype(np.float32)
        mask[..., 0] = 1
    axes = AttentionAxes(HEADS_LAST, HEADS_LAST, HEADS_LAST, HEADS_LAST)
    got = run(target, q, k, v, d**-0.5, mask, axes, (b, s, h, d), cuts)
    turned = (x.transpose(HEADS_LAST) for x in (q, k, v))
    want = attention(*turned, d**-0.5, mask).transpose(HEADS_LAST)
    assert np.abs(got - want).max() <= 3e-6 * max(np.abs(want).max(), 1)


@TARGETS
def test_heads_first_and_another_depth_of_values(target):
    rng = np.random.default_rng(1)
    q, k, v = normal(rng, 2, 2, 9, 8), normal(rng, 2, 2, 40, 8), normal(rng, 2, 2, 40, 12)
    got = run(target, q, k, v, 0.5, None, AttentionAxes(), (2, 2, 9, 12))
    np.testing.assert_allclose(got, attention(q, k, v, 0.5, None), atol=3e-6)


@TARGETS
def test_keys_stored_along_the_sequence(target):
    rng = np.random.default_rng(2)
    q, k, v = normal(rng, 3, 21, 16), normal(rng, 3, 16, 35), normal(rng, 3, 35, 16)
    got = run(target, q, k, v, 0.25, None, AttentionAxes(k=(0, 2, 1)), (3, 21, 16))
    want = attention(q[None], k.transpose(0, 2, 1)[None], v[None], 0.25, None)[0]
    np.testing.assert_allclose(got, want, atol=3e-6)


@TARGETS
def test_heads_that_share_keys_and_values(target):
    rng = np.random.default_rng(3)
    q, k, v = normal(rng, 2, 4, 33, 16), normal(rng, 2, 1, 50, 16), normal(rng, 2, 1, 50, 16)
    got = run(target, q, k, v, 0.25, None, AttentionAxes(), q.shape)
    every = (np.broadcast_to(x, (2, 4, 50, 16)) for x in (k, v))
    np.testing.assert_allclose(got, attention(q, *every, 0.25, None), atol=3e-6)


@TARGETS
@pytest.mark.parametrize("keys", [40, 300])
def test_large_scores_and_keys_masked_out(target, keys):
    """Causal masks of -inf, whole blocks of keys masked, a query without keys, scores far outside of exp's range."""
    rng = np.random.default_rng(4)
    q, k, v = (np.rint(30 * normal(rng, 1, 2, keys, 16)) for _ in range(3))
    mask = np.where(np.tri(keys, dtype=bool), 0, -np.inf).astype(np.float32)[None, None]
    mask[..., 5, :] = -np.inf
    mask[..., -1, :-3] = -np.inf
    got = run(target, q, k, v, 1.0, mask, AttentionAxes(), q.shape)
    want = attention(q, k, v, 1.0, mask)
    assert np.isnan(want[:, :, 5]).all()
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-4)
    got = run(target, q, k, v, 1.0, mask, AttentionAxes(), q.shape, zeros=True)
    np.testing.assert_allclose(got, np.nan_to_num(want), rtol=2e-6, atol=1e-4)


def to_panels(x: np.ndarray) -> np.ndarray:
    """[tokens, features] in panels of 16 columns; what the last one has too many is NaN."""
    padded = np.full((-(-len(x) // 16) * 16, x.shape[1]), np.nan, np.float32)
    padded[: len(x)] = x
    return np.ascontiguousarray(padded.reshape(-1, 16, x.shape[1]).transpose(0, 2, 1))


@pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("b", "s", "t"), [(1, 37, 37), (1, 5, 150), (3, 16, 48)])
def test_panels(target, masked, b, s, t):
    h, d = 2, 16
    rng = np.random.default_rng([b, s, t])
    q, k, v = normal(rng, b, s, h, d), normal(rng, b, t, h, d), normal(rng, b, t, h, d)
    mask = np.where(rng.random((b, 1, 1, t)) < 0.7, 0, -3).astype(np.float32)
    uses = plan_panels_attention(target.isa, AttentionShape(b, s, t, h, d), 0.25, f32(mask) if masked else None)
    panels = [to_panels(x.reshape(-1, h * d)) for x in (q, k, v)]
    got, status = run_uses(target, uses, [*panels, *([mask] if masked else [])], panel_shape(b * s, h * d, False))
    assert status == 0
    got = got.transpose(0, 2, 1).reshape(-1, h, d)[: b * s].reshape(b, s, h, d)
    turned = (x.transpose(HEADS_LAST) for x in (q, k, v))
    want = attention(*turned, 0.25, mask if masked else None).transpose(HEADS_LAST)
    np.testing.assert_allclose(got, want, atol=3e-6)
