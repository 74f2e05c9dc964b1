"""Fused quantized attention against numpy, integer sums exact."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_uses, tile_targets

from sparsec.codegen_templates import integer
from sparsec.codegen_templates.attention import AttentionParameters, AttentionShape, plan_attention
from sparsec.codegen_templates.layout import ROWS, Quantized, panel_shape
from sparsec.codegen_templates.use import Tensor

TILES = pytest.mark.parametrize("target", tile_targets())


OUT = Quantized(0.01, 101)


def round_trip(x: np.ndarray, how: Quantized) -> np.ndarray:
    """Quantized and dequantized, in float64."""
    integers = integer.quantize(x, integer.inverse(how.scale), how.zero_point, "uint8").astype(np.float64)
    return (integers - how.zero_point) * np.float64(how.scale)


def in_panels(x: np.ndarray, how: Quantized) -> np.ndarray:
    """Floats [b, s, h, d] to panels of bytes; columns behind the last are 0xee."""
    rows = integer.quantize(x, integer.inverse(how.scale), how.zero_point, "uint8").reshape(-1, x.shape[2] * x.shape[3])
    padded = np.full((-(-len(rows) // 16) * 16, rows.shape[1]), 0xEE, np.uint8)
    padded[: len(rows)] = rows
    return np.ascontiguousarray(padded.reshape(-1, 16, rows.shape[1] // 4, 4).transpose(0, 2, 1, 3))


WAYS = [(False, ROWS), (True, OUT), (True, ROWS), (False, OUT)]
"""Operands are panels; the output's layout."""
SIZES = {64: (1, 128, 128, 2), 32: (3, 37, 37, 3), 20: (2, 5, 70, 2), 4: (1, 1, 1, 1), 48: (4, 3, 18, 1)}
CASES = [(SIZES[d], d, True, *way) for d in (64, 32) for way in WAYS]
CASES += [(SIZES[d], d, masked, *WAYS[1]) for d, masked in ((20, True), (4, False), (48, True))]
CASES += [((1, 16, 16, 1), 64, False, *WAYS[1]), (SIZES[20], 20, False, *WAYS[0])]


@TILES
@pytest.mark.parametrize(("size", "d", "masked", "panels", "layout"), CASES)
def test_attention(target, size, d, masked, panels, layout):
    b, s, t, h = size
    rng = np.random.default_rng([b, s, t, d])
    q, k, v = (rng.standard_normal((b, n, h, d)).astype(np.float32) for n in (s, t, t))
    q[0, 0, 0, :2] = 1e20, -1e20
    mask = np.where(rng.random((b, 1, 1, t)) < 0.8, 0, -10000).astype(np.float32)
    ways = (Quantized(0.03125, 120), Quantized(0.03, 131), Quantized(1 / 255, 0), Quantized(0.028, 117))
    scale = ways[0].scale * ways[1].scale * d**-0.5
    settled = Quantized(0.0625, 120) if panels and layout == ROWS else None
    if settled:
        scale = settled.scale * d**-0.5
    product_scale = ways[0].scale * ways[1].scale
    how = AttentionParameters(*ways, scale, ways[2].scale * ways[3].scale, product_scale, settled)
    described = Tensor("float32", mask.shape) if masked else None
    uses = plan_attention(target.isa, AttentionShape(b, s, t, h, d), how, described, panels, layout)
    operands = [in_panels(q, how.q), in_panels(k, how.k), in_panels(v, how.v)] if panels else [q, k, v]
    shape, dtype = (q.shape, "float32") if layout == ROWS else (panel_shape(b * s, h * d, True), "uint8")
    got, status = run_uses(target, uses, [*operands, mask] if masked else operands, shape, dtype, cuts=2)
    assert status == 0
    if layout != ROWS:
        columns = got.transpose(0, 2, 1, 3).reshape(-1, h * d)
        assert (columns[b * s :] == 0xA5).all() or not len(columns[b * s :])
        got = (columns[: b * s].reshape(q.shape).astype(np.float64) - layout.zero_point) * layout.scale
    scores = np.einsum("bshd,bthd->bhst", round_trip(q, how.q), round_trip(k, how.k))
    scores = round_trip(scores.astype(np.float32), settled) if settled else scores
    scores = scores * d**-0.5 + (mask if masked else 0)
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    p = round_trip((exp / exp.sum(-1, keepdims=True)).astype(np.float32), how.p)
    want = np.einsum("bhst,bthd->bshd", p, round_trip(v, how.v))
    if layout != ROWS:
        want = round_trip(want.astype(np.float32), layout)
    # A probability on the border between two integers may fall to either side.
    quantum = max(how.p.scale * np.abs(v).max() * 1.01, 0 if layout == ROWS else layout.scale * 1.01)
    assert np.abs(got - want).max() <= quantum
    assert (np.abs(got - want) > 1e-5).mean() < 0.02
