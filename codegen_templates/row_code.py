"""Row blocks (pattern.py) as an ISA computes them: in slices of rows, and with weights that it multiplies exactly.

AVX-512 has registers for the sums of a whole block, and broadcasts weights as it multiplies. AVX2 sums a few rows at a
time. Without VNNI bytes are multiplied in 16 bits that saturate: where the weights do not rule that out, a unit comes
twice, with half the weights each; where all weights are taken, they have 16 bits themselves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .catalogue import base_isa
from .pattern import MOST_ROWS, PatternCode, RowBlock, dense_blocks, row_blocks, rows_per_block

_SATURATING = ("avx2", "avx512-novnni")
"""ISAs that multiply unsigned bytes by signed ones, and add two products, in 16 bits that saturate."""
_LOW_BLOCKS = (12, 8, 4)
"""Rows that blocks of AVX2 may have."""
_UNIT_BYTES = {"f32": 30, "u8s8": 44}
"""Of AVX2's code, about, with the loads of activations."""
_CODE_BYTES = 28 << 10
_SAFE = 128
"""Of two weights of one sign: 255 times their sum is the most that 16 bits hold."""
_UNROLLED = 8


def sparse_rows(isa: str, kind: str, units: np.ndarray) -> int:
    """Rows of the blocks of `units`[rows, k] whose pattern is code.

    AVX2 takes three instructions and more for what AVX-512 does by one: there a block is as high as leaves its code
    in the first cache from one tile to the next.
    """
    rows = rows_per_block(len(units))
    if not isa.startswith("avx2"):
        return rows
    per_row = _UNIT_BYTES[kind] * np.count_nonzero(units) / max(len(units), 1)
    return min(rows, next((n for n in _LOW_BLOCKS if n * per_row <= _CODE_BYTES), _LOW_BLOCKS[-1]))


def saturates(isa: str) -> bool:
    """Whether products of bytes are added in 16 bits."""
    return isa in _SATURATING


def sparse_code(
    isa: str, kind: str, units: np.ndarray, offsets: np.ndarray, height: int = 0, **how: Any
) -> tuple[PatternCode, np.ndarray, np.ndarray]:
    """(code, stream, starts) of the `units`[rows, k] that are not zero; where each block's stream begins, and the end.

    `height` as in `row_blocks`; `how` are further fields of the code.
    """
    blocks, parts, first = [], [], 0
    for block in row_blocks(units != 0, height):
        found = _sliced(block, isa, kind)
        values = units[first + found.row, found.k]
        if kind == "u8s8" and saturates(isa):
            found, values = _split(found, values)
        blocks.append(found)
        parts.append(values)
        first += block.rows
    return PatternCode(kind, offsets, tuple(blocks), isa=isa, **how), *_joined(parts)


def dense_code(
    isa: str, kind: str, units: np.ndarray, offsets: np.ndarray, turn_bytes: int, height: int = 0, **how: Any
) -> tuple[PatternCode, np.ndarray, np.ndarray]:
    """The same of all `units`[rows, k], by a loop: the k of each turn have `offsets`, turn after turn."""
    if kind == "u8s8" and saturates(isa):
        kind, units = "u8s16", _widened(units)
    turns = units.shape[1] // len(offsets)
    if base_isa(isa) == "neon" and len(offsets) == 1:  # its loop takes several k a turn
        together = next(n for n in range(min(_UNROLLED, turns), 0, -1) if turns % n == 0)
        offsets, turns, turn_bytes = (
            offsets + turn_bytes * np.arange(together),
            turns // together,
            turn_bytes * together,
        )
    blocks = [_sliced(block, isa, kind) for block in dense_blocks(len(units), len(offsets), height)]
    parts, first = [], 0
    if kind == "u8s8" and isa == "neon-i8mm":
        kind = "s8_pairs"
        code = PatternCode(kind, offsets, tuple(blocks), isa=isa, turns=turns, turn_bytes=turn_bytes, **how)
        for block in blocks:
            parts.append(matrix_stream(units[first : first + block.rows], len(offsets)))
            first += block.rows
        return code, *_joined(parts)
    for block in blocks:
        slices = (units[first + low : first + high] for low, high in block.slices())
        parts.append(np.concatenate([part.swapaxes(0, 1).reshape(-1) for part in slices]))
        first += block.rows
    code = PatternCode(kind, offsets, tuple(blocks), isa=isa, turns=turns, turn_bytes=turn_bytes, **how)
    return code, *_joined(parts)


def matrix_stream(units: np.ndarray, together: int) -> np.ndarray:
    """int32 [rows, k] -> the stream of a block of rows, `together` of whose k make a turn.

    Rows are filled up to fours and a turn's k to twos, with zeros: [turn, k / 2, rows / 2, 2 rows, 2 k].
    """
    rows, depth = units.shape
    whole = np.zeros((-(-rows // 4) * 4, depth // together, -(-together // 2) * 2), np.int32)
    whole[:rows, :, :together] = units.reshape(rows, -1, together)
    pairs = whole.reshape(len(whole) // 2, 2, whole.shape[1], -1, 2)
    return np.ascontiguousarray(pairs.transpose(2, 3, 0, 1, 4)).reshape(-1)


def halves(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of units with that sum, of which no two products leave 16 bits; the second is zero where one does."""
    weights = np.ascontiguousarray(units).view(np.int8).reshape(*units.shape, 4).astype(np.int16)
    pairs = weights.reshape(*units.shape, 2, 2)
    most = np.maximum(np.maximum(pairs, 0).sum(-1), np.maximum(-pairs, 0).sum(-1)).max(-1, initial=0)
    second = np.where((most > _SAFE)[..., None], weights >> 1, 0)
    both = (np.ascontiguousarray(part.astype(np.int8)).view(np.int32)[..., 0] for part in (weights - second, second))
    first, rest = both
    return first, rest


def _split(block: RowBlock, values: np.ndarray) -> tuple[RowBlock, np.ndarray]:
    """Units that cannot be multiplied at once come twice."""
    first, second = halves(values)
    count = 1 + (second != 0)
    split = np.repeat(second, count)
    split[np.cumsum(count) - count] = first
    return replace(block, k=np.repeat(block.k, count), row=np.repeat(block.row, count)), split


def _sliced(block: RowBlock, isa: str, kind: str) -> RowBlock:
    """Its units slice by slice."""
    slices = -(-block.rows // _sums_at_once(isa, kind))
    if slices == 1:
        return block
    height = -(-block.rows // slices)
    order = np.argsort(block.row // height, kind="stable")
    return replace(block, k=block.k[order], row=block.row[order], height=height)


def _sums_at_once(isa: str, kind: str) -> int:
    """Rows whose sums fit the registers, 16 columns of each: two of AVX2's 16 for each, and some for operands."""
    if not isa.startswith("avx2"):
        return MOST_ROWS
    return 6 if kind == "f32" or isa.startswith("avx2-vnni") else 5


def _widened(units: np.ndarray) -> np.ndarray:
    """int32 [rows, k] of four bytes -> [rows, k, 2], the even bytes and the odd ones as pairs of 16 bits."""
    weights = np.ascontiguousarray(units).view(np.int8).reshape(*units.shape, 2, 2).astype(np.int16)
    return np.ascontiguousarray(weights.swapaxes(2, 3)).view(np.int32)[..., 0]


def _joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One after the other; where each begins and the last one ends."""
    ends = np.cumsum([0, *(part.size for part in parts)])
    return np.ascontiguousarray(np.concatenate(parts)), np.asarray(ends, np.int64)
