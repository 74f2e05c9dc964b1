"""Which steps a run goes through a few images at a time, so that what lies between them stays in the caches."""

from __future__ import annotations

from itertools import groupby

from .program import Buffer, Program, Size, Step, Walk
from .sizes import upper

MOST = 8
"""Images that a walk takes at once. The run takes as many as it has threads, up to this."""


def find_walks(program: Program) -> list[Walk]:
    """Steps in a row, at least two, that treat the same images one by one."""
    walks = []
    numbered = [(i, _images(step)) for i, step in enumerate(program.steps)]
    for text, group in groupby(numbered, lambda pair: str(pair[1])):
        members = list(group)
        first, last, images = members[0][0], members[-1][0] + 1, members[0][1]
        if text != "0" and last - first > 1 and upper(images, program.dims) > 1:
            walks.append(Walk(first, last, images, _inside(program, first, last)))
    return walks


def _images(step: Step) -> Size:
    """How many images a step treats one by one; 0: it does not."""
    buffers = [p for p in step.pointers if isinstance(p, Buffer)]
    return step.images if all(b.shape and str(b.shape[0]) == str(step.images) for b in buffers) else 0


def _inside(program: Program, first: int, last: int) -> frozenset[int]:
    """Memory (root buffers) that only these steps touch."""
    within = {program.root(b) for s in program.steps[first:last] for b in s.pointers if isinstance(b, Buffer)}
    others = [*program.steps[:first], *program.steps[last:]]
    outside = {program.root(b) for s in others for b in s.pointers if isinstance(b, Buffer)}
    outside |= {program.root(b) for b in (*program.inputs, *program.outputs) if isinstance(b, Buffer)}
    return frozenset(within - outside)
