"""Which steps a run goes through a few images at a time, so that what lies between them stays in the caches."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from .program import Buffer, Program, Size, Step, Walk
from .sizes import product, upper

MOST = 8
"""Images that a walk takes at once, whatever the number of threads."""
_BYTES = 6 << 20
"""That the images of a thread may occupy in one step, to stay in the caches."""
_PER_THREAD = 4


def find_walks(program: Program) -> list[Walk]:
    """Steps in a row, at least two, that treat the same images one by one."""
    walks = []
    numbered = [(i, _images(step)) for i, step in enumerate(program.steps)]
    for text, group in groupby(numbered, lambda pair: str(pair[1])):
        members = list(group)
        first, last, images = members[0][0], members[-1][0] + 1, members[0][1]
        if text != "0" and last - first > 1 and upper(images, program.dims) > 1:
            walks += _parts(program, first, last, images)
    return walks


def _parts(program: Program, first: int, last: int, images: Size) -> list[Walk]:
    """A walk with few images, then walks with more: where images are small, weights are read once for several."""
    largest, per_thread = 0, []
    for step in reversed(program.steps[first:last]):
        buffers = [p for p in step.pointers if isinstance(p, Buffer)]
        nbytes = sum(upper(product(b.shape[1:]), program.dims) * np.dtype(b.dtype).itemsize for b in buffers)
        largest = max(largest, nbytes)
        per_thread.append(min(_PER_THREAD, max(1, _BYTES // max(1, largest))))
    parts = []
    for count, group in groupby(range(first, last), lambda i: per_thread[last - 1 - i]):
        members = list(group)
        begin, end = members[0], members[-1] + 1
        parts.append(Walk(begin, end, images, count, _inside(program, begin, end)))
    return parts


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
