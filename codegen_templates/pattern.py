"""Row blocks of a sparse matrix as straight-line code: what the code does, not how an ISA spells it.

A unit is four bytes of weights: one float, or four int8 of consecutive k. The output rows of a matrix are cut into
blocks that fit the registers. For every k that has a unit in the block, one vector of activations (16 columns) is
loaded, then one multiply-accumulate is done per unit, its weight broadcast from a stream that is read front to back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from .epilogue import EpilogueOp

MAX_ROWS = 28
"""Accumulators: 32 vector registers less four for activations."""
MOST_ROWS = 31
"""Accumulators where one register for activations is enough: the CPU renames it."""
MOST_SEGMENTS = 4
"""Of a tile, where the code stores it."""


@dataclass(frozen=True)
class Ending:
    """What code does with a block's sums where it stores them itself, in a plane for every row.

    A plane is stored, and a plane that is added read, by segments: where the lanes of a tile lie in it
    (`tile_segments` of planes.py). Tensors and lanes come with every call, in a `sparsec_ending` of pattern_code.h.
    """

    ops: tuple[EpilogueOp, ...]
    """`bias` first, if at all; then `relu`, `clip`, and at most one `add`."""
    plane_bytes: int
    segments: int
    added_bytes: int = 0
    added_segments: int = 0

    @property
    def has_bias(self) -> bool:
        """Whether the sums begin with it."""
        return bool(self.ops) and self.ops[0].kind == "bias"


@dataclass(frozen=True)
class RowBlock:
    """Units in the order of the stream: by slice, then k, then row; `row` counts inside the block."""

    rows: int
    k: np.ndarray
    row: np.ndarray
    height: int = 0
    """Not 0: rows of a slice; so many are summed at a time."""

    def slices(self) -> list[tuple[int, int]]:
        """First row and last row + 1 of each."""
        step = self.height or self.rows
        return [(first, min(first + step, self.rows)) for first in range(0, self.rows, step)]


@dataclass(frozen=True)
class PatternCode:
    """The code of one layer. The vector of k lies `offsets[k]` bytes after the place that the code is given.

    In a matrix product k is a row of activations; in a convolution it is (channel, tap), and a tap is an offset into a
    padded plane (planes.py).
    """

    kind: str
    """`f32`: float multiply-add; `u8s8`: four products of u8 by s8, added to an int32; `u8s16`: the same with weights
    in 16 bits, the two of even k in one place of the stream, those of odd k in the next; `s8_pairs`: the same by pairs
    of k for pairs of rows (`matrix_stream` of row_code.py); `n_of_m`: n_of_m.py, a loop
    over two units for each k of a block, sums in registers."""
    offsets: np.ndarray
    blocks: tuple[RowBlock, ...]
    turns: int = 1
    """Not 1: the code is a loop, and every turn takes `offsets` again, `turn_bytes` further on."""
    turn_bytes: int = 0
    tiles: int = 0
    """Not 0: a block runs for about so many tiles before the next one does, and each time fetches its part of that
    one's code and weights ahead of it. Code that comes from memory runs at a fifth of its rate."""
    fetch_activations: bool = False
    """Whether the first block, which is the first to read a tile's activations, fetches those of a later tile. For
    activations that may not be in the caches and tiles that follow each other in memory."""
    resumes: bool = False
    """Whether sums begin with what is where they are stored, instead of zero."""
    in_registers: bool = False
    """Whether sums begin with a number per row, and stay in the registers instead of being stored."""
    narrow: bool = False
    """Whether vectors have 8 columns instead of 16; for sums of `u8s8` in registers."""
    ending: Ending | None = None
    isa: str = "avx512"
    """For which the units are ordered (row_code.py)."""

    def digest(self) -> str:
        """Of everything that the code depends on."""
        digest = hashlib.sha256(
            f"{self.kind} {self.turns} {self.turn_bytes} {self.tiles} {self.resumes} {self.in_registers} ".encode()
        )
        digest.update(f"{self.isa} {self.narrow}".encode())
        if self.ending is not None:
            digest.update(repr(self.ending).encode())
        digest.update(self.offsets.astype(np.int64).tobytes())
        for block in self.blocks:
            digest.update(f"{block.rows} {block.height} {len(block.k)} ".encode())
            digest.update(block.k.tobytes())
            digest.update(block.row.tobytes())
        return digest.hexdigest()[:16]


def rows_per_block(rows: int) -> int:
    """A multiple of 4 that spreads the rows evenly."""
    blocks = -(-rows // MAX_ROWS)
    return min(MAX_ROWS, -(-rows // blocks // 4) * 4)


def row_blocks(occupied: np.ndarray, height: int = 0) -> tuple[RowBlock, ...]:
    """Blocks of a matrix of units: `occupied`[rows, k] says where one is. `height`: rows, if not evenly spread."""
    height = height or rows_per_block(len(occupied))
    blocks = []
    for first in range(0, len(occupied), height):
        k, row = np.nonzero(occupied[first : first + height].T)
        blocks.append(RowBlock(min(height, len(occupied) - first), k.astype(np.int32), row.astype(np.int32)))
    return tuple(blocks)


def keeps_sums(isa: str) -> bool:
    """Whether the registers hold the sums of a whole block, so that code behind it can take them there."""
    return isa.startswith("avx512")


def dense_blocks(rows: int, offsets: int = 1, height: int = 0) -> tuple[RowBlock, ...]:
    """Blocks of a matrix that is stored whole, for loops of so many offsets a turn."""
    return row_blocks(np.ones((rows, offsets), bool), height)


def dense_stream(units: np.ndarray, blocks: tuple[RowBlock, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(all units, block by block; where each begins and the last one ends): `units`[rows, k], the turns' k in a row."""
    parts, starts, first = [], [0], 0
    for block in blocks:
        parts.append(units[first : first + block.rows].T.reshape(-1))
        starts.append(starts[-1] + parts[-1].size)
        first += block.rows
    return np.ascontiguousarray(np.concatenate(parts)), np.asarray(starts, np.int64)
