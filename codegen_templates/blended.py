"""Unstructured int8 as straight-line code: units of 1x4 that a row has apart are blended into one multiply-accumulate.

Where zeros follow no pattern, a unit of four k holds little more than one nonzero. Vectors of activations of several
units stay in registers, and a row's multiply-accumulate takes each of its four bytes from whichever of them has a
weight there: a blend by bytes, which runs beside the multiply-accumulates on other ports. A vector that must make room
for the next one has its rows multiplied first, each with what the other vectors have for the bytes that are left.

At 90 % zeros a multiply-accumulate then holds 2.3 nonzeros instead of 1.2, for fewer blends than multiply-accumulates.
The activations lie as for `pattern.py`: a tap of a convolution remains an offset.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

LANES = 4
"""k of a unit."""
REGISTERS = 31
"""For sums and activations; the last one of the target's is for what is blended."""
_MAX_ROWS = 24
_NEVER = 1 << 40


@dataclass(frozen=True)
class BlendBlock:
    """Loads and multiply-accumulates, each in the order of the code."""

    rows: int
    unit: np.ndarray
    """int32 [loads]: which unit of k a load reads."""
    slot: np.ndarray
    """int32 [loads]: where its vector stays."""
    before: np.ndarray
    """int32 [loads]: the multiply-accumulate that it precedes."""
    row: np.ndarray
    """int32 [macs], inside the block."""
    source: np.ndarray
    """int32 [macs, 4]: the load that gives each byte, or -1 where the weight is zero."""

    def blends(self) -> int:
        """How many there are."""
        ordered = np.sort(self.source, axis=1)
        return int(np.count_nonzero((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, :-1] >= 0)))


@dataclass(frozen=True)
class BlendCode:
    """The code of one layer; the vector of unit u lies `offsets[u]` bytes after the place that the code is given."""

    offsets: np.ndarray
    blocks: tuple[BlendBlock, ...]
    tiles: int = 0
    """As in `PatternCode`."""
    in_registers: bool = False
    """The same."""

    def digest(self) -> str:
        """Of everything that the code depends on."""
        digest = hashlib.sha256(f"blend {self.tiles} {self.in_registers} ".encode())
        digest.update(self.offsets.astype(np.int64).tobytes())
        for block in self.blocks:
            digest.update(f"{block.rows} {len(block.unit)} {len(block.row)} ".encode())
            for array in (block.unit, block.slot, block.before, block.row, block.source):
                digest.update(array.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def rows_per_blend(rows: int) -> int:
    """A multiple of 4 that spreads the rows evenly, and leaves registers for activations."""
    blocks = -(-rows // _MAX_ROWS)
    return -(-rows // blocks // 4) * 4


def blend_blocks(occupied: np.ndarray) -> tuple[BlendBlock, ...]:
    """Blocks of a matrix of weights: `occupied`[rows, k] says which are not zero; k is a multiple of 4."""
    rows, depth = occupied.shape
    height = rows_per_blend(rows)
    n_blocks = -(-rows // height)
    padded = np.zeros((n_blocks * height, depth // LANES, LANES), bool)
    padded[:rows] = occupied.reshape(rows, -1, LANES)
    bytes_of = (padded << np.arange(LANES)).sum(2).astype(np.uint8).reshape(n_blocks, height, -1)
    schedule = _Schedule(bytes_of, REGISTERS - height)
    return tuple(schedule.block(b, min(height, rows - b * height)) for b in range(n_blocks))


def blend_stream(weights: np.ndarray, blocks: tuple[BlendBlock, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(weights of the multiply-accumulates in order, four int8 in an int32; where each block begins, the last ends)."""
    parts, starts, first = [], [0], 0
    for block in blocks:
        k = block.unit[block.source] * LANES + np.arange(LANES)
        values = weights[first + block.row[:, None], k] * (block.source >= 0)
        parts.append(np.ascontiguousarray(values.astype(np.int8)).view(np.int32).reshape(-1))
        starts.append(starts[-1] + len(block.row))
        first += block.rows
    return np.concatenate(parts), np.asarray(starts, np.int64)


class _Schedule:
    """Loads and multiply-accumulates of all blocks; `pending`[blocks, rows, units] has the bytes not zero as bits.

    Units are loaded in order. The vector that makes room is the one with the fewest rows left.
    """

    def __init__(self, pending: np.ndarray, slots: int) -> None:
        blocks, rows, _ = pending.shape
        self.slots = slots
        self.each = np.arange(blocks)
        self.left = np.zeros((slots, blocks, rows), np.uint8)
        self.load = np.full((blocks, slots), -1, np.int64)
        self.count = np.zeros(blocks, np.int64)
        """Multiply-accumulates so far."""
        self.loads: list[tuple[np.ndarray, ...]] = []
        self.macs: list[tuple[np.ndarray, ...]] = []
        needed = pending.any(1)
        last = needed.sum(1)
        order = np.argsort(~needed, axis=1, kind="stable")
        for step in range(int(last.max(initial=0)) + slots):
            loading = step < last
            slot, turn = self._victim(loading)
            self._multiply(slot, turn)
            if loading.any():
                b, s = self.each[loading], slot[loading]
                unit = order[loading, step]
                self.loads.append((b, unit, s, self.count[loading]))
                self.left[s, b] = pending[b, :, unit]
                self.load[b, s] = step

    def _victim(self, loading: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the slot that makes room in each block, the place of each slot in the order in which they will)."""
        rows = np.count_nonzero(self.left, axis=2).T
        key = rows * (1 << 20) + self.load
        key[~loading] = np.where(rows[~loading] > 0, key[~loading], _NEVER)
        order = np.argsort(key, axis=1, kind="stable")
        return order[:, 0], np.argsort(order, axis=1)

    def _multiply(self, slot: np.ndarray, turn: np.ndarray) -> None:
        """The rows of a slot. They take all bytes of another vector or none: else they would come back to it."""
        mine = self.left[slot, self.each]
        b, row = np.nonzero(mine)
        if not len(b):
            return
        self.left[slot, self.each] = 0
        used = mine[b, row]
        source = np.where(_bits(used), self.load[b, slot[b]][:, None], -1)
        left, soon = self.left[:, b, row], self.slots - 1 - turn.T[:, b]
        for _ in range(LANES - 1):
            gain = np.where(left & used, 0, np.bitwise_count(left).astype(np.int64) * self.slots + soon)
            gain[left == 0] = 0
            best = gain.argmax(0)
            found = np.flatnonzero(gain.max(0) > 0)
            if not len(found):
                break
            other = best[found]
            more = left[other, found]
            left[other, found] = 0
            used[found] |= more
            source[found] = np.where(_bits(more), self.load[b[found], other][:, None], source[found])
        self.left[:, b, row] = left
        self.macs.append((b, row, source))
        self.count += np.bincount(b, minlength=len(self.each))

    def block(self, b: int, rows: int) -> BlendBlock:
        """Of one block, with so many rows."""
        loads = [np.concatenate(part) for part in zip(*self.loads, strict=True)] if self.loads else [_EMPTY] * 4
        macs = [np.concatenate(part) for part in zip(*self.macs, strict=True)] if self.macs else [_EMPTY] * 2
        lanes = macs[2] if len(macs) > 2 else np.zeros((0, LANES), np.int64)
        read, multiplied = loads[0] == b, macs[0] == b
        found = (*(part[read] for part in loads[1:]), macs[1][multiplied], lanes[multiplied])
        return BlendBlock(rows, *(array.astype(np.int32) for array in found))


_EMPTY = np.zeros(0, np.int64)


def _bits(values: np.ndarray) -> np.ndarray:
    """bool [..., 4]: the lowest bits."""
    return (values[..., None] >> np.arange(LANES, dtype=np.uint8) & 1).astype(bool)
