"""Blocks that read along another axis than they write: in tiles, so that both sides use whole cache lines."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from .merge import is_injective
from .registry import rule

_TILE = 16
"""Floats of a cache line."""
_LONG = 64
"""Both axes have to be longer for the tiles to pay."""


@rule("transpose", order=10)
def schedule_transpose(schedule: Schedule, block: Any) -> bool:
    """The range runs over all axes but the last, the second of the two axes of the tile cut in pieces."""
    body = schedule.get(block)
    loops = schedule.get_loops(block)
    if not is_injective(body) or len(loops) < 2 or len(loops) != len(body.iter_vars):
        return False
    across = _across(body)
    if across is None:
        return False
    rows, columns = schedule.split(loops[across], [None, _TILE]), schedule.split(loops[-1], [None, _TILE])
    outer = [*loops[:across], rows[0], *loops[across + 1 : -1]]
    schedule.reorder(*outer, columns[0], rows[1], columns[1])
    schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])
    return True


def _across(block: Any) -> int | None:
    """The axis along which some operand is contiguous, if it is long and not the last, as the last one is."""
    axes = [v.var for v in block.iter_vars]
    extents = [v.dom.extent for v in block.iter_vars]
    if not _is_long(extents[-1]):
        return None
    for region in block.reads:
        last = region.region[-1].min if len(region.region) else None
        for number, axis in enumerate(axes[:-1]):
            if last is not None and last.same_as(axis) and _is_long(extents[number]):
                return number
    return None


def _is_long(extent: Any) -> bool:
    return not isinstance(extent, tirx.IntImm) or int(extent) >= _LONG
