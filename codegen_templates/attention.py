"""Scaled dot-product attention with quantized operands, fused: no scores in memory beyond one tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .catalogue import find, source
from .integer import inverse
from .layout import COLUMNS, ROWS, Layout, Quantized
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Temp, Tensor, ceil_div

MAX_DEPTH = 64
"""16 registers hold the queries of a tile."""


@dataclass(frozen=True)
class AttentionParameters:
    """How Q, K, the probabilities P and V are quantized.

    Scores are score_scale * Σ (q - zq)(k - zk), the output is out_scale * Σ (p - zp)(v - zv). Where `settled` is given,
    the sums times `product_scale` are rounded to its steps, and the scores are score_scale times these.
    """

    q: Quantized
    k: Quantized
    p: Quantized
    v: Quantized
    score_scale: float
    out_scale: float
    product_scale: float = 1.0
    settled: Quantized | None = None

    def packed(self, out: Quantized) -> np.ndarray:
        """The numbers that the kernel reads; it computes exponentials as powers of two."""
        scales = [inverse(how.scale) for how in (self.q, self.k, self.v, self.p)]
        zeros = [how.zero_point for how in (self.q, self.k, self.v, self.p, out)]
        factors = [self.score_scale * math.log2(math.e), self.out_scale, inverse(out.scale)]
        steps = self.settled or Quantized(1.0, 0)
        settling = [self.product_scale, inverse(steps.scale), -steps.zero_point, 255 - steps.zero_point]
        return np.array([*scales, *factors, *zeros, *settling], np.float32)


@dataclass(frozen=True)
class AttentionShape:
    """Q is [batch, queries, heads, depth], K and V are [batch, keys, heads, depth]; depth is a constant."""

    batch: Size
    queries: Size
    keys: Size
    heads: Size
    depth: int


def plan_attention(
    isa: str,
    shape: AttentionShape,
    parameters: AttentionParameters,
    mask: Tensor | None,
    panels: bool = False,
    layout: Layout = ROWS,
) -> list[KernelUse]:
    """Operands Q, K, V and mask[B or 1, 1, 1, keys], which is added to the scores -> like Q.

    Q, K and V are rows of floats, or `panels` of bytes with all batches' tokens in one row and all heads' features in
    another; the output is rows of floats or panels of bytes. The depth is a multiple of 4 and at most `MAX_DEPTH`.
    """
    row = find("attention_u8", isa)
    depth = shape.depth
    out = layout if isinstance(layout, Quantized) else Quantized(1.0, 0)
    kinds = [mask and "masked", panels and "panels", layout != ROWS and "u8", parameters.settled and "settled"]
    name = "_".join([f"attention_u8_d{depth}", *(kind for kind in kinds if kind)])
    symbol = f"sparsec_k_{name}"
    unit = source(
        row.template, name, symbol=symbol, depth=depth, masked=mask is not None, panels=panels,
        element="const uint8_t *" if panels else "const float *", bytes_out=layout != ROWS,
        settled=parameters.settled is not None,
    )  # fmt: skip
    padded = ceil_div(shape.keys, COLUMNS) * COLUMNS
    scratch_bytes = ceil_div(padded * (COLUMNS * 4 + COLUMNS + 8 + 2 * depth), 64) * 64
    scratch = Temp("scratch", "uint8", (shape.batch * shape.heads, scratch_bytes))
    masks: tuple[Pointer, ...] = () if mask is None else (Operand(3),)
    scalars: tuple[Any, ...] = (shape.batch, shape.heads, shape.queries, shape.keys, scratch_bytes)
    if mask is not None:
        scalars += (0 if isinstance(mask.shape[0], int) and mask.shape[0] == 1 else shape.keys,)
    units = shape.batch * shape.heads
    macs = 2 * units * shape.queries * shape.keys * depth
    pointers = (Operand(0), Operand(1), Operand(2), *masks, Packed(parameters.packed(out)), scratch, OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, units, "quantized attention", macs, n_outputs=2)]
