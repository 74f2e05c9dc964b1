"""int8 products by AMX tiles (Intel SDM, chapter "Intel AMX instruction set"): dense, and sparse in blocks of 16x4.

A tile of weights is 16 rows by 64 k, one of activations 16 groups of four k by 16 columns, as panels have them; one
instruction adds their product to 16 x 16 sums. Where blocks of 16 rows x 4 k are zero, the groups that are left are
gathered, 16 to a tile. Written from the manual: no machine with these tiles has run it yet. The tests run the same C
with the instructions' meaning in C, and look for the instructions themselves in what is compiled.
"""

from __future__ import annotations

import numpy as np

from .catalogue import find, source
from .epilogue import EpilogueOp
from .layout import COLUMNS, ROWS, Layout
from .tile_epilogue import Quantization, tile_epilogue
from .use import KernelUse, Operand, Packed, Size, ceil_div

TILE_ROWS, TILE_GROUPS, GROUP = 16, 16, 4
TILE_DEPTH = TILE_GROUPS * GROUP
_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the rows of tiles pass by."""


def plan_amx(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization,
    reason: str,
    sparse: bool,
    layouts: tuple[Layout, ...] = (ROWS,),
    first_extra: int = 2,
) -> list[KernelUse]:
    """int8 `weights`[M, K], K a multiple of 4, times u8 panels in groups of four -> [columns, M], in each of `layouts`.

    `sparse` leaves out blocks of 16 rows x 4 k that are zero. Epilogue operands are the layer's operands from
    `first_extra` on.
    """
    row = find("tile_blocks_u8s8" if sparse else "tiles_u8s8", isa)
    M, K = weights.shape
    finish = tile_epilogue(epilogue, quantization, layouts, first_extra)
    name = f"{row.name}_{finish.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, sparse=sparse, e=finish.values)
    run = max(COLUMNS, _RUN_BYTES // K // COLUMNS * COLUMNS)
    extent = ceil_div(columns, run) * -(-M // TILE_ROWS)
    tiles, groups, starts = pack(weights, sparse)
    lists = (Packed(groups), Packed(starts)) if sparse else ()
    pointers = (Operand(0), Packed(tiles), *lists, *finish.pointers)
    macs = columns * (tiles.size if sparse else weights.size)
    return [
        KernelUse(row.name, symbol, (unit,), pointers, (M, K, columns, run), extent, reason, macs,
                  n_outputs=finish.n_outputs)
    ]  # fmt: skip


def pack(weights: np.ndarray, sparse: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tiles int8 [tiles, 16 rows, 64 k], groups, starts): the tiles of every 16 rows, padded with zeros.

    With `sparse`: the groups of four k that the tiles hold, int32 [tiles * 16], those that only fill a tile up being
    group 0; and int64 [blocks of rows + 1], where the tiles of each 16 rows begin.
    """
    M, K = weights.shape
    blocks = -(-M // TILE_ROWS)
    padded = np.zeros((blocks * TILE_ROWS, K // GROUP, GROUP), np.int8)
    padded[:M] = weights.reshape(M, -1, GROUP)
    by_block = padded.reshape(blocks, TILE_ROWS, K // GROUP, GROUP)
    tiles, groups, starts = [], [], [0]
    for block in by_block:
        kept = np.flatnonzero(block.any((0, 2))) if sparse else np.arange(K // GROUP)
        count = -(-len(kept) // TILE_GROUPS)
        own = np.zeros((TILE_ROWS, count * TILE_GROUPS, GROUP), np.int8)
        own[:, : len(kept)] = block[:, kept]
        tiles.append(own.reshape(TILE_ROWS, count, TILE_DEPTH).transpose(1, 0, 2))
        groups.append(np.pad(kept, (0, count * TILE_GROUPS - len(kept))))
        starts.append(starts[-1] + count)
    return (
        np.ascontiguousarray(np.concatenate(tiles)),
        np.concatenate(groups).astype(np.int32),
        np.asarray(starts, np.int64),
    )
