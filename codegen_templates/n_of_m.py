"""int8 with at most 4 of every 8 weights: 2:4, 4:8, and whatever else fits; half of the multiplications, no code.

Eight k of a column are a quadword. One byte permutation takes the four that a row needs and the four that the next row
needs, and one multiply-accumulate adds both rows' products for eight columns. Which bytes, is data beside the weights:
together they take the bytes of dense weights. A permutation and a multiply-accumulate share a port of Zen 4: 1.5 cycles
for both, 1.33 times the rate of dense weights.
"""

from __future__ import annotations

import numpy as np

from .catalogue import find, source
from .epilogue import EpilogueOp
from .layout import COLUMNS, ROWS, Layout
from .tile_epilogue import Quantization, tile_epilogue
from .use import KernelUse, Operand, Packed, Size, ceil_div

KEPT, GROUP = 4, 8
BLOCK = 24
"""Rows of a block: two accumulators for every two of them."""
_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the blocks of rows pass by."""


def fits(weights: np.ndarray) -> bool:
    """Whether `weights`[M, K] keep at most 4 of every 8 consecutive k."""
    M, K = weights.shape
    return K % GROUP == 0 and bool((np.count_nonzero(weights.reshape(M, -1, GROUP), axis=2) <= KEPT).all())


def plan_n_of_m(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization,
    reason: str,
    layouts: tuple[Layout, ...] = (ROWS,),
    first_extra: int = 2,
) -> list[KernelUse]:
    """int8 `weights`[M, K] that fit times u8 panels in groups of four -> [columns, M], in each of `layouts`.

    Epilogue operands are the layer's operands from `first_extra` on.
    """
    row = find("n_of_m_u8s8", isa)
    M, K = weights.shape
    finish = tile_epilogue(epilogue, quantization, layouts, first_extra)
    name = f"{row.name}_{finish.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, rows=BLOCK, e=finish.values)
    run = max(COLUMNS, _RUN_BYTES // K // COLUMNS * COLUMNS)
    extent = ceil_div(columns, run) * -(-M // BLOCK)
    pointers = (Operand(0), Packed(_pack(weights)), *finish.pointers)
    macs = columns * int(np.count_nonzero(weights))
    return [
        KernelUse(row.name, symbol, (unit,), pointers, (M, K, columns, run), extent, reason, macs,
                  n_outputs=finish.n_outputs)
    ]  # fmt: skip


def code_stream(weights: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For code of blocks of `height` rows, an even number.

    Returns (int32, all blocks in order; where each begins and the last one ends).
    """
    parts = [
        np.ascontiguousarray(block[:, : min(height, len(weights) - height * b) // 2]).view(np.int32).reshape(-1)
        for b, block in enumerate(_pack(weights, height))
    ]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def _pack(weights: np.ndarray, height: int = BLOCK) -> np.ndarray:
    """uint8 [blocks, eights of k, pairs of rows, 16]: four weights of either row, then where they lie in the eight."""
    M, K = weights.shape
    blocks = -(-M // height)
    padded = np.zeros((blocks * height, K // GROUP, GROUP), np.int8)
    padded[:M] = weights.reshape(M, -1, GROUP)
    places = np.sort(np.argsort(padded == 0, axis=2, kind="stable")[..., :KEPT], axis=2)
    kept = np.take_along_axis(padded, places, 2)
    both = np.stack([kept.view(np.uint8), places.astype(np.uint8)], 2)  # rows, eights, what, 4
    paired = both.reshape(blocks, height // 2, 2, K // GROUP, 2, KEPT).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(paired).reshape(blocks, K // GROUP, height // 2, 16)
