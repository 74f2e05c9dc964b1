"""Unstructured int8: four inputs that lie anywhere are gathered once for a block of rows, then multiplied as one unit.

A multiply-accumulate takes four k. When the zeros follow no pattern, a row has few whole units of consecutive k; but
inside a block of up to 28 rows there are quadruples of k that several rows share. The nonzeros of a block are covered
by such groups, greedily: every nonzero belongs to one (group, row) pair, k may be in many groups. Per group the code
does four loads of 16 columns and one byte permutation, per pair one multiply-accumulate. Activations lie in planes,
[columns / 16][k][16].

At 90 % zeros 3.2 of the 4 weights of a pair are not zero, and a block of 28 x 768 takes a sixth of the dense
multiply-accumulates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from .pattern import rows_per_block

LANES = 4
"""k of a group."""
CHUNK = 1024
"""k that are grouped together: what the code's four base registers reach, and what stays in the L1 cache."""
_SHARED = 2
"""k of a group that a row must have to count for it, until no group has such rows."""


@dataclass(frozen=True)
class GatherBlock:
    """Groups in the order of the code; pairs sorted by group, then by row."""

    rows: int
    k: np.ndarray
    """int32 [groups, 4]."""
    group: np.ndarray
    """int32 [pairs]."""
    row: np.ndarray
    """int32 [pairs], inside the block."""
    taken: np.ndarray
    """bool [pairs, 4]: which of the four weights belong to the pair."""


@dataclass(frozen=True)
class GatherCode:
    """The code of one layer; the 16 columns of k lie `offsets[k]` bytes after the place that the code is given."""

    offsets: np.ndarray
    blocks: tuple[GatherBlock, ...]
    tiles: int = 0
    """As in `PatternCode`."""

    def digest(self) -> str:
        """Of everything that the code depends on."""
        digest = hashlib.sha256(f"gather {self.tiles} ".encode())
        digest.update(self.offsets.astype(np.int64).tobytes())
        for block in self.blocks:
            digest.update(f"{block.rows} {len(block.k)} {len(block.row)} ".encode())
            for array in (block.k, block.group, block.row):
                digest.update(array.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def gather_blocks(occupied: np.ndarray) -> tuple[GatherBlock, ...]:
    """Blocks of a matrix of weights: `occupied`[rows, k] says which are not zero."""
    height = rows_per_block(len(occupied))
    n_blocks, depth = -(-len(occupied) // height), occupied.shape[1]
    padded = np.zeros((n_blocks * height, depth), np.uint32)
    padded[: len(occupied)] = occupied
    bits = np.uint32(1) << np.arange(height, dtype=np.uint32)
    masks = (padded.reshape(n_blocks, height, depth) * bits[:, None]).sum(1, dtype=np.uint32)
    chunks = max(1, -(-depth // CHUNK))
    step = -(-depth // chunks // 256) * 256 if chunks > 1 else depth
    parts = [_cover(masks[:, k : k + step]) for k in range(0, depth, step)]
    found = [np.concatenate([p[i] + (step * n if i == 1 else 0) for n, p in enumerate(parts)]) for i in range(3)]
    chunk = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
    return tuple(
        _block(min(height, len(occupied) - height * b), *_ordered(found, chunk, np.flatnonzero(found[0] == b)))
        for b in range(n_blocks)
    )


def gather_stream(weights: np.ndarray, blocks: tuple[GatherBlock, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(the pairs of all blocks in order, four int8 in an int32; where each block begins and the last one ends)."""
    parts, starts, first = [], [0], 0
    for block in blocks:
        values = weights[first + block.row[:, None], block.k[block.group]] * block.taken
        parts.append(np.ascontiguousarray(values.astype(np.int8)).view(np.int32).reshape(-1))
        starts.append(starts[-1] + len(block.row))
        first += block.rows
    return np.concatenate(parts), np.asarray(starts, np.int64)


def _ordered(found: list[np.ndarray], chunk: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A block's groups: by chunk, and groups of many rows between those of few, so that the loads of these hide."""
    place = np.arange(len(mine)) * 0.6180339887498949 % 1
    mine = mine[np.lexsort((place, chunk[mine]))]
    return found[1][mine], found[2][mine]


def _block(rows: int, k: np.ndarray, taken: np.ndarray) -> GatherBlock:
    """From the k of groups and, of each, the rows in whose pairs it counts, as bits: both [groups, 4]."""
    has = (taken[:, None, :] >> np.arange(rows, dtype=np.uint32)[None, :, None] & 1).astype(bool)
    group, row = np.nonzero(has.any(2))
    return GatherBlock(rows, k.astype(np.int32), group.astype(np.int32), row.astype(np.int32), has[group, row])


def _cover(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covers the rows of each k, `masks`[blocks, k] as bits, by groups; all blocks at once.

    Returns (block, k[4], rows for which each of them counts) of every group. The first pass takes rows
    that share at least two of a group's k, the last all that is left.
    """
    blocks, ks, takens = [], [], []
    masks = masks.copy()
    for share in range(_SHARED, 0, -1):
        active = np.flatnonzero(masks.any(1))
        work, alive = masks[active], np.full((len(active), masks.shape[1]), 255, np.uint8)
        while len(active):
            each = np.arange(len(active))
            count = np.bitwise_count(work)
            seed = (count & alive).argmax(1)
            more = (count & alive)[each, seed] > 0
            if not more.all():
                masks[active] = work
                active, work, alive = active[more], work[more], alive[more]
                continue
            k, bits, shared = _grow(work, count, seed)
            rows = shared[share - 1]
            found = rows > 0
            alive[each[~found], seed[~found]] = 0
            taken = bits & rows[:, None]
            for i in range(LANES):
                work[each, k[:, i]] |= bits[:, i] & ~rows
            blocks.append(active[found])
            ks.append(k[found])
            takens.append(taken[found])
    if not blocks:
        return np.zeros(0, np.int64), np.zeros((0, LANES), np.int64), np.zeros((0, LANES), np.uint32)
    return np.concatenate(blocks), np.concatenate(ks), np.concatenate(takens)


def _grow(work: np.ndarray, count: np.ndarray, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Three k added to each block's seed: those that share most with what is there, and bring least beside.

    Returns (k [blocks, 4], their rows as bits, and the rows that have at least 1, 2, 3, 4 of them). The k taken are
    cleared in `work`.
    """
    each = np.arange(len(work))
    ks, bits = [seed], [work[each, seed]]
    work[each, seed] = 0
    shared = [bits[0]] + [np.zeros_like(bits[0]) for _ in range(LANES - 1)]
    penalty = count.astype(np.int16)
    for step in range(1, LANES):
        score = -penalty
        for i in range(step):
            score += np.bitwise_count(work & shared[i][:, None]) * np.int16(8 * (i + 1))
        k = score.argmax(1)
        rows = work[each, k]
        work[each, k] = 0
        for i in range(LANES - 1, 0, -1):
            shared[i] = shared[i] | rows & shared[i - 1]
        shared[0] = shared[0] | rows
        ks.append(k)
        bits.append(rows)
    return np.stack(ks, 1), np.stack(bits, 1), shared
