"""Sparse products whose pattern is data: small code, for artifacts that must be small, and for blocks of rows.

A unit is four bytes of weights: one float, or four int8 of consecutive k. One, two or four rows with their units in
the same k share one list of them: a byte per k, the distance from the last one. With one row the loads of activations
bound the rate, with four they hide.
"""

from __future__ import annotations

import numpy as np

from .catalogue import base_isa, find, source
from .epilogue import EpilogueOp
from .layout import COLUMNS, ROWS, Layout
from .pattern import rows_per_block
from .row_code import halves, saturates
from .spmm import units_of
from .tile_epilogue import Quantization, tile_epilogue
from .use import KernelUse, Operand, Packed, Size, ceil_div

SHARED = (1, 2, 4)
"""Rows that may share a list."""
_TILES = 2
_REGISTERS = {("avx2", "u8s8"): {1: (2, 1), 2: (2, 1), 4: (1, 1)}, ("avx2", "f32"): {1: (3, 1), 2: (2, 1), 4: (1, 1)}}
"""By ISA and kind: for how many rows that share a list, tiles at a time, and sets of sums, where two tiles and four
sums for each column are too many for the registers."""
_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the blocks of rows pass by."""
_PART_BYTES = 24 << 10
"""Of activations, for all k of a part, that stay in the L1 cache while the rows of a block pass by."""
_LINE = 4 * COLUMNS
"""Bytes of a k of a tile."""
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
    tiles, ways = _REGISTERS.get((base_isa(isa), kind), {}).get(shared, (_TILES, 4 // shared))
    name = f"{row.name}_r{rows}_{finish.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, rows=rows, shared=shared, tiles=tiles, ways=ways, e=finish.values)
    per_column = units.shape[1] * 4
    step = COLUMNS * tiles
    run = max(step, _RUN_BYTES // per_column // step * step)
    parts = ceil_div(_LINE * tiles * units.shape[1], _PART_BYTES)
    width = ceil_div(units.shape[1], parts)
    values, distances, starts = pack_indexed(_by_parts(units, rows, width), shared)
    if kind == "u8s8" and saturates(isa):
        values, distances, starts = _split(values, distances, starts)
    pointers = (Operand(0), Packed(values), Packed(distances), Packed(starts), *finish.pointers)
    extent = ceil_div(columns, run) * -(-M // rows)
    macs = columns * int(np.count_nonzero(weights))
    scalars = (M, columns, per_column * COLUMNS, run, parts, _LINE * width)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, reason, macs, n_outputs=finish.n_outputs)]


def _by_parts(units: np.ndarray, rows: int, width: int) -> np.ndarray:
    """`units`[M, k] as [blocks * parts * rows, width]: block by block of so many rows, part by part of so many k."""
    blocks, parts = -(-len(units) // rows), -(-units.shape[1] // width)
    padded = np.zeros((blocks * rows, parts * width), units.dtype)
    padded[: len(units), : units.shape[1]] = units
    return np.ascontiguousarray(padded.reshape(blocks, rows, parts, width).swapaxes(1, 2).reshape(-1, width))


def _split(values: np.ndarray, distances: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units that cannot be multiplied at once come twice, the second time at no distance."""
    first, second = halves(values)
    again = np.flatnonzero(second.any(1))
    values = np.insert(first, again + 1, second[again], axis=0)
    return values, np.insert(distances, again + 1, 0), starts + np.searchsorted(again, starts)


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
