"""Which kernel a product with constant weights takes, by predicted cycles on AVX-512 (measured on one Zen 4 core).

Of AArch64 neon_cost.py predicts.

One function per kernel predicts the cycles of a whole product: what it computes for every tile of 16 columns, and what
it reads from memory once, weights and code alike. Kernels leave the same epilogue to do, which is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...codegen_templates import amx, indexed, n_of_m
from ...codegen_templates.blended import blend_blocks, rows_per_blend
from ...codegen_templates.catalogue import base_isa, has
from ...codegen_templates.gemv import MAX_COLUMNS, Storage, stored_bytes
from ...codegen_templates.pattern import rows_per_block
from ...codegen_templates.spmm import units_of
from . import avx2_cost, neon_cost
from .patterns import Pattern, find_pattern
from .prediction import Prediction, Predictor

_TILE = 16
LOAD_CYCLES = 0.35
"""Of one vector of activations beside the multiply-accumulates that use it."""
_PLANE_CYCLES = 1.5
"""Per vector of activations turned from rows into planes, or back."""
_GEMM_EFFICIENCY = 0.95
_UNIT_CODE_BYTES, _LOAD_CODE_BYTES, _BLEND_CODE_BYTES = 7, 10, 6
_BLEND_CYCLES = 0.5
"""Of a blend or a multiply-accumulate of blended code; two multiply-accumulates never start in one cycle."""
_BLEND_BLOCK_CYCLES = 20
"""For the masks of a block."""
_N_OF_M_CYCLES = 1.5
_INDEXED_CYCLES = {1: 2.6, 2: 1.6, 4: 1.25}
"""Per unit, by how many rows share a list."""
_TILE_CYCLES, _TILE_GATHER_CYCLES = 16.0, 16.0
"""Of AMX, not measured: 16 from one product of whole tiles to the next (Intel's optimization manual); as many to copy
16 lines of a panel, a load and a store each."""
_SAMPLED_BLOCKS = 2
_WEIGHT_BANDWIDTH = 9.0
"""Bytes of weights per cycle from memory."""
_CODE_BANDWIDTH = 6.0
"""The same of code."""
_EXPAND_CYCLES = {"f32": 3.0, "mask": 3.3, "mask4": 3.0, "dense": 1.0}
_EXPAND_BANDWIDTH = {"f32": 6.5, "u8s8": 16.0}
_COLUMN_CYCLES = 0.9
_MARGIN = 1.03
"""A prediction must be so much better than the dense kernel's."""
_NOT_EVERYWHERE = {"blend": "blended_u8s8", "tiles": "tiles_u8s8", "tile_blocks": "tile_blocks_u8s8"}
"""Kernel -> the catalogue's family that some ISAs lack."""
CODE_LIMIT = 2.0
"""Code and its weights may take this many times the bytes of the dense weights."""


@dataclass(frozen=True)
class Choice:
    """`gemm`: rows times panels; `gemv_*`: rows; the others: panels."""

    kernel: str
    reason: str
    gain: float = 1.0
    """Predicted cycles of the dense kernel over those of this one."""

    @property
    def storage(self) -> str | None:
        """Of the weights, where the kernel is one for few columns."""
        return self.kernel.removeprefix("gemv_") if self.kernel.startswith("gemv_") else None


def kernels_of(isa: str, quantized: bool) -> dict[str, Predictor]:
    """Kernel -> what it is predicted to take; the dense one first."""
    if base_isa(isa) == "neon":
        if not quantized:
            return neon_cost.FLOAT
        return neon_cost.MATRIX_INTEGER if isa == "neon-i8mm" else neon_cost.INTEGER
    if base_isa(isa) == "avx2":
        return avx2_cost.kernels(isa, quantized)
    kernels = INTEGER if quantized else FLOAT
    return {name: one for name, one in kernels.items() if has(_NOT_EVERYWHERE.get(name, "panels"), isa)}


def code_limit(isa: str) -> float:
    """How many times the bytes of the dense weights code and its weights may take."""
    return avx2_cost.CODE_LIMIT if base_isa(isa) == "avx2" else CODE_LIMIT


def choose_float(
    weights: np.ndarray, columns: int, forced: str | None = None, smallest: bool = False, isa: str = "avx512"
) -> Choice:
    """For float32 `weights`[M, K] and at most `columns` columns.

    `forced` names the kernel; `smallest` asks for the fewest bytes that are not slower than the dense kernel.

    Raises:
        ValueError: `forced` is no kernel for these weights.
    """
    return _choose(weights, columns, kernels_of(isa, False), "gemm", forced, smallest, code_limit(isa))


def choose_integer(
    weights: np.ndarray,
    columns: int,
    forced: str | None = None,
    smallest: bool = False,
    among: Sequence[str] | None = None,
    isa: str = "avx512",
) -> Choice:
    """The same for int8 `weights`[M, K], K a multiple of 4; `among` names the kernels that the caller can use."""
    kernels = kernels_of(isa, True)
    if among is not None:
        kernels = {name: kernels[name] for name in among if name in kernels}
    return _choose(weights, columns, kernels, "dense", forced, smallest, code_limit(isa))


def predictions(weights: np.ndarray, columns: int, isa: str = "avx512") -> dict[str, Prediction]:
    """Every kernel that can compute float32 or int8 `weights`[M, K], with what it is predicted to take."""
    kernels = kernels_of(isa, weights.dtype == np.int8)
    found = find_pattern(weights)
    predicted = {name: predict(weights, columns) for name, predict in kernels.items() if not _hopeless(name, found)}
    return {name: one for name, one in predicted.items() if one is not None}


def _choose(
    weights: np.ndarray,
    columns: int,
    kernels: dict[str, Predictor],
    dense: str,
    forced: str | None,
    smallest: bool,
    limit: float,
) -> Choice:
    found = find_pattern(weights)
    dense_one = kernels[dense](weights, columns)
    assert dense_one is not None
    if forced is not None:
        if forced not in kernels:
            raise ValueError(f"there is no kernel {forced} for {weights.dtype} weights; one of: {', '.join(kernels)}")
        one = kernels[forced](weights, columns)
        if one is None:
            raise ValueError(f"{forced} cannot compute it: {found.text()}, {columns} columns")
        return Choice(forced, f"{found.text()}: asked for", dense_one.cycles / max(one.cycles, 1.0))
    if smallest:
        return _smallest(weights, columns, kernels, dense, found)
    best, cycles, too_large = dense, dense_one.cycles, ""
    for name, predict in kernels.items():
        one = None if name == dense or _hopeless(name, found) else predict(weights, columns)
        if one is None or one.cycles * _MARGIN >= cycles:
            continue
        if one.is_code and one.nbytes > limit * weights.nbytes:
            too_large = f", {name} would take {one.nbytes / weights.nbytes:.1f} times the bytes of dense weights"
            continue
        best, cycles = name, one.cycles
    gain = dense_one.cycles / max(cycles, 1.0)
    few = f", {columns} column" + "s" * (columns > 1) if columns <= MAX_COLUMNS else ""
    if best == dense:
        return Choice(dense, f"{found.text()}{few}: dense" + (too_large or ", nothing is predicted to be faster"))
    return Choice(best, f"{found.text()}{few}: {best} predicted at {gain:.2f}x dense{too_large}", gain)


def _smallest(weights: np.ndarray, columns: int, kernels: dict[str, Predictor], dense: str, found: Pattern) -> Choice:
    predicted = {name: predict(weights, columns) for name, predict in kernels.items() if not _hopeless(name, found)}
    limit = predicted[dense]
    assert limit is not None
    fit = {name: one for name, one in predicted.items() if one is not None and one.cycles <= limit.cycles}
    best = min(fit, key=lambda name: (fit[name].nbytes, fit[name].cycles))
    gain = limit.cycles / max(fit[best].cycles, 1.0)
    share = fit[best].nbytes / weights.nbytes
    return Choice(best, f"{found.text()}: {best} is smallest, {share:.2f} times the bytes of dense weights", gain)


def _hopeless(name: str, found: Pattern) -> bool:
    """Saves the time of predicting what never pays."""
    if name == "blend":
        return found.sparsity < 0.3 or found.name.endswith(("x4", "x8", "x16"))
    return name == "pattern" and found.sparsity < 0.1


def _once(cycles: float, nbytes: float, bandwidth: float) -> float:
    """Reading overlaps with computing."""
    return max(cycles, nbytes / bandwidth)


def _tiles(columns: int) -> int:
    return -(-columns // _TILE)


# --- float32 ----------------------------------------------------------------------------------------------------------


def _gemm(weights: np.ndarray, columns: int) -> Prediction:
    cycles = weights.size * columns / _TILE / _GEMM_EFFICIENCY
    return Prediction(_once(cycles, weights.nbytes, _WEIGHT_BANDWIDTH), weights.nbytes)


def _pattern_f32(weights: np.ndarray, columns: int) -> Prediction:
    M, K = weights.shape
    cycles, nbytes = pattern_cost(units_of(weights))
    per_tile = cycles + (M + K) * _PLANE_CYCLES
    return Prediction(_once(per_tile * _tiles(columns), nbytes, _CODE_BANDWIDTH), nbytes, is_code=True)


def _gemv_f32(weights: np.ndarray, columns: int) -> Prediction | None:
    return _gemv(weights, columns, "mask", "f32")


# --- int8 -------------------------------------------------------------------------------------------------------------


def _dense_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    return Prediction(_once(weights.size / 4 * _tiles(columns), weights.nbytes, _WEIGHT_BANDWIDTH), weights.nbytes)


def _pattern_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    cycles, nbytes = pattern_cost(units_of(weights))
    return Prediction(_once(cycles * _tiles(columns), nbytes, _CODE_BANDWIDTH), nbytes, is_code=True)


def _blend_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    """From some of the blocks."""
    height = rows_per_blend(len(weights))
    rows, share = _sample(weights, height)
    blocks = blend_blocks(rows != 0)
    macs, loads = (share * sum(map(len, part)) for part in zip(*((b.row, b.unit) for b in blocks), strict=True))
    blends = share * sum(b.blends() for b in blocks)
    cycles = max(macs, _BLEND_CYCLES * (macs + blends)) + LOAD_CYCLES * loads
    cycles += _BLEND_BLOCK_CYCLES * -(-len(weights) // height)
    nbytes = macs * (_UNIT_CODE_BYTES + 4) + blends * _BLEND_CODE_BYTES + loads * _LOAD_CODE_BYTES
    return Prediction(_once(cycles * _tiles(columns), nbytes, _CODE_BANDWIDTH), nbytes, is_code=True)


def _sample(weights: np.ndarray, height: int) -> tuple[np.ndarray, float]:
    """(the rows of some blocks of so many, how often all rows have as many)."""
    blocks = -(-len(weights) // height)
    some = np.unique(np.linspace(0, blocks - 1, min(blocks, _SAMPLED_BLOCKS)).astype(int))
    rows = np.concatenate([weights[b * height : (b + 1) * height] for b in some])
    return rows, len(weights) / len(rows)


def _n_of_m_u8s8(weights: np.ndarray, columns: int) -> Prediction | None:
    if not n_of_m.fits(weights):
        return None
    rows = -(-len(weights) // n_of_m.BLOCK) * n_of_m.BLOCK
    cycles = _N_OF_M_CYCLES * rows * weights.shape[1] / n_of_m.GROUP * _tiles(columns)
    return Prediction(_once(cycles, weights.nbytes, _WEIGHT_BANDWIDTH), weights.nbytes)


def _gemv_u8s8(storage: Storage) -> Predictor:
    return lambda weights, columns: _gemv(weights, columns, storage, "u8s8")


def _gemv(weights: np.ndarray, columns: int, storage: Storage, kind: str) -> Prediction | None:
    if columns > MAX_COLUMNS:
        return None
    nbytes = stored_bytes(weights, storage)
    units = weights.size / _TILE / (4 if kind == "u8s8" else 1)
    expand = _EXPAND_CYCLES["f32" if kind == "f32" else storage]
    cycles = units * (expand + _COLUMN_CYCLES * (columns - 1))
    return Prediction(_once(cycles, nbytes, _EXPAND_BANDWIDTH[kind]), nbytes)


def _indexed(shared: int, kind: str) -> Predictor:
    def predict(weights: np.ndarray, columns: int) -> Prediction:
        M, K = weights.shape
        units = int(np.count_nonzero(indexed.occupied_groups(units_of(weights), shared)))
        nbytes = units * (4 * shared + 1)
        per_tile = _INDEXED_CYCLES[shared] * units * shared + ((M + K) * _PLANE_CYCLES if kind == "f32" else 0)
        return Prediction(_once(per_tile * _tiles(columns), nbytes, _WEIGHT_BANDWIDTH), nbytes)

    return predict


FLOAT: dict[str, Predictor] = {
    "gemm": _gemm,
    "pattern": _pattern_f32,
    "gemv_mask": _gemv_f32,
    **{f"indexed{n}": _indexed(n, "f32") for n in indexed.SHARED},
}


def _tiles_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    M, K = weights.shape
    count = -(-M // amx.TILE_ROWS) * -(-K // amx.TILE_DEPTH)
    return _by_tiles(count, _TILE_CYCLES, columns)


def _tile_blocks_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    M, K = weights.shape
    rows = -(-M // amx.TILE_ROWS) * amx.TILE_ROWS
    padded = np.zeros((rows, K), np.int8)
    padded[:M] = weights
    occupied = padded.reshape(-1, amx.TILE_ROWS, K // amx.GROUP, amx.GROUP).any((1, 3))
    count = int((-(-occupied.sum(1) // amx.TILE_GROUPS)).sum())
    return _by_tiles(count, _TILE_CYCLES + _TILE_GATHER_CYCLES, columns)


def _by_tiles(count: int, cycles: float, columns: int) -> Prediction:
    nbytes = count * amx.TILE_ROWS * amx.TILE_DEPTH
    return Prediction(_once(count * cycles * _tiles(columns), nbytes, _WEIGHT_BANDWIDTH), nbytes)


INTEGER: dict[str, Predictor] = {
    "dense": _dense_u8s8,
    "pattern": _pattern_u8s8,
    "blend": _blend_u8s8,
    "n_of_m": _n_of_m_u8s8,
    "tiles": _tiles_u8s8,
    "tile_blocks": _tile_blocks_u8s8,
    **{f"indexed{n}": _indexed(n, "u8s8") for n in indexed.SHARED},
    "gemv_dense": _gemv_u8s8("dense"),
    "gemv_mask": _gemv_u8s8("mask"),
    "gemv_mask4": _gemv_u8s8("mask4"),
}


def pattern_cost(units: np.ndarray) -> tuple[float, float]:
    """Of the code of `units`[M, units along k]: (cycles per tile of columns, bytes of code and weights)."""
    occupied = units != 0
    macs = int(np.count_nonzero(occupied))
    height = rows_per_block(len(units))
    loads = sum(int(occupied[first : first + height].any(0).sum()) for first in range(0, len(units), height))
    return macs + LOAD_CYCLES * loads, macs * (_UNIT_CODE_BYTES + 4) + loads * _LOAD_CODE_BYTES


def sparsity_text(density: float) -> str:
    """For reasons."""
    return f"{100 * (1 - density):.0f} % zero"
