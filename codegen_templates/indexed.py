"""Sparse products whose pattern is data: small code, for artifacts that must be small, and for blocks of rows.

A unit is four bytes of weights: one float, or four int8 of consecutive k. One, two or four rows with their units in
the same k share one list of them: a byte per k, the distance from the last one. With one row the loads of activations
bound the rate, with four they hide.
"""

from __future__ import annotations

import numpy as np

from .catalogue import find, source
from .epilogue import EpilogueOp
from .layout import COLUMNS, ROWS, Layout
from .pattern import rows_per_block
from .spmm import units_of
from .tile_epilogue import Quantization, tile_epilogue
from .use import KernelUse, Operand, Packed, Size, ceil_div

SHARED = (1, 2, 4)
"""Rows that may share a list."""
_TILES = 2
_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the blocks of rows pass by."""
_FARTHEST = 255


def plan_indexed(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization | None,
    reason: str,
    shared: int,
    layouts: tuple[Layout, ...] = (ROWS,),
    first_extra: int = 2,
) -> list[KernelUse]:
    """`weights`[M, K] (float32, or int8 with K a multiple of 4) times panels -> [columns, M], in each of `layouts`.

    `shared` rows have one list. Epilogue operands are the layer's operands from `first_extra` on.
    """
    kind = "f32" if quantization is None else "u8s8"
    row = find(f"indexed{shared}_{kind}", isa)
    M = len(weights)
    units = units_of(weights)
    finish = tile_epilogue(epilogue, quantization, layouts, first_extra)
    rows = rows_per_block(M)
    name = f"{row.name}_r{rows}_{finish.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, rows=rows, shared=shared, tiles=_TILES, e=finish.values)
    per_column = units.shape[1] * 4
    step = COLUMNS * _TILES
    run = max(step, _RUN_BYTES // per_column // step * step)
    values, distances, starts = pack_indexed(units, shared)
    pointers = (Operand(0), Packed(values), Packed(distances), Packed(starts), *finish.pointers)
    extent = ceil_div(columns, run) * -(-M // rows)
    macs = columns * int(np.count_nonzero(weights))
    scalars = (M, columns, per_column * COLUMNS, run)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, reason, macs, n_outputs=finish.n_outputs)]


def occupied_groups(units: np.ndarray, shared: int) -> np.ndarray:
    """Where at least one of `shared` rows of `units`[M, k] has a unit."""
    padded = np.zeros((-(-len(units) // shared) * shared, units.shape[1]), bool)
    padded[: len(units)] = units != 0
    return np.asarray(padded.reshape(-1, shared, units.shape[1]).any(1))


def pack_indexed(units: np.ndarray, shared: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the units [n, shared], the distance of each from the one before it in its list, where each list begins)."""
    occupied = occupied_groups(units, shared)
    while True:  # a distance that no byte holds is halved by a unit of zeros
        group, k = np.nonzero(occupied)
        distance = np.diff(k, prepend=0)
        first = np.diff(group, prepend=-1) != 0
        distance[first] = k[first]
        far = distance > _FARTHEST
        if not far.any():
            break
        occupied[group[far], k[far] - distance[far] + _FARTHEST] = True
    padded = np.zeros((len(occupied) * shared, units.shape[1]), np.int32)
    padded[: len(units)] = units
    values = padded.reshape(len(occupied), shared, -1)[group, :, k]
    starts = np.searchsorted(group, np.arange(len(occupied) + 1)).astype(np.int64)
    return np.ascontiguousarray(values), distance.astype(np.uint8), starts
