"""Places every temporary in one arena.

Greedy by size, first gap that is free over the buffer's life time (the "best-fit by size" planner of Pisarchyk and
Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): it reaches the lower bound on most networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from .program import Buffer, Program
from .sizes import product, upper
from .walks import MOST

ALIGNMENT = 64
_BITS = {"bool": 8}


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets into the arena, by root buffer id; every root but the constants has one."""

    offsets: dict[int, int]
    arena_bytes: int
    lower_bound: int
    """The most bytes that are alive at once: no plan can be smaller."""


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return _BITS.get(dtype, 0) // 8 or int("".join(c for c in dtype if c.isdigit())) // 8


def root_of(program: Program, buffer: Buffer) -> int:
    """The id of the buffer whose memory `buffer` shares."""
    return program.root(buffer)


def plan_memory(program: Program) -> MemoryPlan:
    """Offsets at the dimensions' upper bounds, so that `run` never allocates.

    Inputs and outputs get a place too: the runtime uses it when the caller brings no usable buffer.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    size: dict[int, int] = {}
    inside = frozenset().union(*(walk.inside for walk in program.walks))

    def touch(buffer: Buffer, time: int) -> None:
        root = root_of(program, buffer)
        first[root] = min(first.get(root, time), time)
        last[root] = max(last.get(root, time), time)
        shape = buffer.shape
        if root in inside:
            shape = (min(MOST, upper(shape[0], program.dims)), *shape[1:])
        nbytes = upper(product(shape), program.dims) * itemsize(buffer.dtype)
        size[root] = max(size.get(root, 0), -(-nbytes // ALIGNMENT) * ALIGNMENT)

    for buffer in program.inputs:
        touch(buffer, -1)
    for time, step in enumerate(program.steps):
        for pointer in step.pointers:
            if isinstance(pointer, Buffer):
                touch(pointer, time)
    for output in program.outputs:
        if isinstance(output, Buffer):
            touch(output, len(program.steps))
    for walk in program.walks:  # what is not inside lives from the first image to the last
        for step in program.steps[walk.first : walk.last]:
            for pointer in step.pointers:
                if isinstance(pointer, Buffer) and root_of(program, pointer) not in inside:
                    touch(pointer, walk.first)
                    touch(pointer, walk.last - 1)

    offsets: dict[int, int] = {}
    placed: list[int] = []
    for root in sorted(size, key=lambda r: (-size[r], first[r], r)):
        offset = 0
        for other in sorted(placed, key=lambda r: offsets[r]):
            if first[other] > last[root] or last[other] < first[root]:
                continue
            if offset + size[root] <= offsets[other]:
                break
            offset = max(offset, offsets[other] + size[other])
        offsets[root] = offset
        placed.append(root)

    times = range(-1, len(program.steps) + 1)
    alive = (sum(size[r] for r in size if first[r] <= t <= last[r]) for t in times)
    return MemoryPlan(offsets, max((offsets[r] + size[r] for r in size), default=0), max(alive, default=0))
