"""Scaled dot-product attention with quantized operands, fused: no scores in memory beyond one tile."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from typing import Any

from .catalogue import find, source
from .epilogue import c_float
from .layout import Quantized
from .use import OUT, KernelUse, Operand, Pointer, Temp, Tensor

MAX_DEPTH = 64
"""16 registers hold the queries of a tile."""
_LANES = 16


@dataclass(frozen=True)
class AttentionParameters:
    """How Q, K, the probabilities P and V are quantized.

    Scores are score_scale * Σ (q - zq)(k - zk), the output is out_scale * Σ (p - zp)(v - zv).
    """

    q: Quantized
    k: Quantized
    p: Quantized
    v: Quantized
    score_scale: float
    out_scale: float


def plan_attention(
    isa: str, q: Tensor, k: Tensor, parameters: AttentionParameters, mask: Tensor | None
) -> list[KernelUse]:
    """Q[B, S, H, D], K and V[B, T, H, D], mask[B or 1, 1, 1, T] added to the scores -> [B, S, H, D], all float32.

    D is a multiple of 4 and at most `MAX_DEPTH`.
    """
    row = find("attention_u8", isa)
    p = parameters
    depth = q.shape[3]
    values = {
        **{f"{name}_scale": c_float(getattr(p, name).scale) for name in "qkpv"},
        **{f"{name}_zero": getattr(p, name).zero_point for name in "qkpv"},
        "score_scale": c_float(p.score_scale),
        "out_scale": c_float(p.out_scale),
    }
    digest = hashlib.sha256(repr(astuple(p)).encode()).hexdigest()[:8]
    name = f"attention_u8_d{depth}_{'masked_' if mask else ''}{digest}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, depth=depth, masked=mask is not None, **values)
    batch, queries, heads = q.shape[:3]
    keys = k.shape[1]
    padded = (keys + 63) // 64 * 64
    scratch_bytes = padded * (_LANES * 4 + _LANES + 4 + 2 * depth)
    scratch = Temp("scratch", "uint8", (batch * heads, scratch_bytes))
    masks: tuple[Pointer, ...] = () if mask is None else (Operand(3),)
    scalars: tuple[Any, ...] = (heads, queries, keys, scratch_bytes)
    if mask is not None:
        scalars += (0 if isinstance(mask.shape[0], int) and mask.shape[0] == 1 else keys,)
    macs = 2 * batch * heads * queries * keys * depth
    pointers = (Operand(0), Operand(1), Operand(2), *masks, scratch, OUT)
    return [
        KernelUse(row.name, symbol, (unit,), pointers, scalars, batch * heads, "quantized attention", macs, n_outputs=2)
    ]
