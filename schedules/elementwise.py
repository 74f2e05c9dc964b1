"""Injective blocks: the longest run of inner axes that is contiguous in every operand becomes one vector loop."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from .merge import is_injective
from .registry import rule

_GRAIN = 64
"""Elements: slices of a flat range begin at multiples of this, so that threads share no cache line."""


@rule("elementwise")
def schedule_elementwise(schedule: Schedule, block: Any) -> bool:
    """Outer axes fused into the range, inner ones into one loop."""
    body = schedule.get(block)
    loops = schedule.get_loops(block)
    if not is_injective(body) or not loops or len(loops) != len(body.iter_vars):
        return False
    inner = max(1, _contiguous_axes(body))
    if inner == len(loops):
        flat = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
        schedule.parallel(flat)
        schedule.annotate(flat, "sparsec.grain", _GRAIN)
        return True
    outer, rest = loops[: len(loops) - inner], loops[len(loops) - inner :]
    if len(rest) > 1:
        schedule.fuse(*rest)
    schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])
    return True


def _contiguous_axes(block: Any) -> int:
    """How many of the last axes every operand either walks through in step with the output, or does not depend on."""
    axes = [v.var for v in block.iter_vars]
    count = len(axes)
    for region in [*block.reads, *block.writes]:
        count = min(count, _in_step(region, axes, block))
    return count


def _in_step(region: Any, axes: list[Any], block: Any) -> int:
    indices = [r.min for r in region.region]
    shape = list(region.source.ty.shape)
    extents = [v.dom.extent for v in block.iter_vars]
    if any(not _is_one(r.extent) for r in region.region):
        return 1
    used = [i for i, axis in enumerate(axes) if any(_mentions(index, axis) for index in indices)]
    if not used:
        return len(axes)
    run = 0
    for back in range(1, min(len(axes), len(indices)) + 1):
        axis, index = axes[-back], indices[-back]
        if not (isinstance(index, tirx.Var) and index.same_as(axis)) or not _same(shape[-back], extents[-back]):
            break
        run += 1
    if run:
        return len(axes) if run == len(axes) else run
    return len(axes) - 1 - max(used) if max(used) < len(axes) - 1 else 0


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tirx.IntImm) and isinstance(b, tirx.IntImm):
        return int(a) == int(b)
    return bool(a.same_as(b))


def _mentions(expr: Any, var: Any) -> bool:
    from .walk import walk

    return any(isinstance(node, tirx.Var) and node.same_as(var) for node in walk(expr))
