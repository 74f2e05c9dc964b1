"""Reductions: rows are reduced in registers, columns with a row of accumulators."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from .registry import rule

_SPATIAL, _REDUCE = 0, 2
_WIDTHS = (64, 48, 32, 16)


@rule("reduction")
def schedule_reduction(schedule: Schedule, block: Any) -> bool:
    """The range runs over the outer kept axes; the innermost loop is whatever lies contiguous in the operand."""
    body = schedule.get(block)
    loops = schedule.get_loops(block)
    kinds = [int(v.iter_type) for v in body.iter_vars]
    if len(loops) != len(kinds) or _REDUCE not in kinds or any(k not in (_SPATIAL, _REDUCE) for k in kinds):
        return False
    kept = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
    if not kept:
        schedule.decompose_reduction(block, reduced[0])
        return True
    last = [v.var for v, kind in zip(body.iter_vars, kinds, strict=True) if kind == _SPATIAL][-1]
    if _is_contiguous(body, last) and (len(kept) > 1 or _width(schedule, kept[-1]) > 1):
        width = _width(schedule, kept[-1])
        if width > 1:
            kept[-1:] = schedule.split(kept[-1], [None, width])
        schedule.reorder(*kept[:-1], *reduced, kept[-1])
        outer = kept[:-1]
        head = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    else:
        schedule.reorder(*kept, *reduced)
        head = schedule.fuse(*kept) if len(kept) > 1 else kept[0]
    schedule.parallel(head)
    schedule.decompose_reduction(block, reduced[0])
    return True


def _width(schedule: Schedule, loop: Any) -> int:
    """How many accumulators of a row to keep in registers: a divisor of its extent, or 1 to keep the row whole."""
    extent = schedule.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        return 1
    return next((w for w in _WIDTHS if int(extent) % w == 0 and int(extent) > w), 1)


def _is_contiguous(block: Any, axis: Any) -> bool:
    """Whether the operand with most axes is contiguous along `axis`."""
    region = max(block.reads, key=lambda r: len(r.region), default=None)
    if region is None or not len(region.region):
        return False
    index = region.region[-1].min
    return isinstance(index, tirx.Var) and bool(index.same_as(axis))
