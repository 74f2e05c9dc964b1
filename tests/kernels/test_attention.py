"""Fused quantized attention against numpy, integer sums exact."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses

from sparsec.codegen_templates.attention import AttentionParameters, plan_attention
from sparsec.codegen_templates.layout import Quantized
from sparsec.codegen_templates.use import Tensor

AVX512 = pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])


def round_trip(x: np.ndarray, how: Quantized) -> np.ndarray:
    """Quantized and dequantized, in float64."""
    inverse = np.float32(1) / np.float32(how.scale)
    integers = np.clip(np.rint(x.astype(np.float32) * inverse) + how.zero_point, 0, 255)
    return (integers - how.zero_point) * np.float64(how.scale)


@AVX512
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("b", "s", "t", "h", "d"),
    [(1, 16, 16, 1, 64), (2, 37, 37, 3, 32), (1, 5, 70, 2, 20), (1, 1, 1, 1, 4), (1, 128, 128, 2, 64)],
)
def test_attention(target, masked, b, s, t, h, d):
    rng = np.random.default_rng([b, s, t, d])
    q, k, v = (rng.standard_normal((b, n, h, d)).astype(np.float32) for n in (s, t, t))
    mask = np.where(rng.random((b, 1, 1, t)) < 0.8, 0, -10000).astype(np.float32)
    ways = (Quantized(0.03125, 120), Quantized(0.03, 131), Quantized(1 / 255, 0), Quantized(0.028, 117))
    scale = ways[0].scale * ways[1].scale * d**-0.5
    how = AttentionParameters(*ways, scale, ways[2].scale * ways[3].scale)
    f32 = lambda a: Tensor("float32", a.shape)  # noqa: E731
    uses = plan_attention(target.isa, f32(q), f32(k), how, f32(mask) if masked else None)
    got, status = run_uses(target, uses, [q, k, v, mask] if masked else [q, k, v], q.shape, cuts=2)
    assert status == 0
    scores = np.einsum("bshd,bthd->bhst", round_trip(q, how.q), round_trip(k, how.k)) * d**-0.5
    scores = scores + (mask if masked else 0)
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    p = round_trip((exp / exp.sum(-1, keepdims=True)).astype(np.float32), how.p)
    want = np.einsum("bhst,bthd->bshd", p, round_trip(v, how.v))
    # A probability on the border between two integers may fall to either side.
    quantum = how.p.scale * np.abs(v).max() * 1.01
    assert np.abs(got - want).max() <= quantum
    assert (np.abs(got - want) > 1e-5).mean() < 0.02
