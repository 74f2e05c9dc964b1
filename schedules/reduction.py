"""Reductions: rows are reduced one by one, columns side by side."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError

from .axes import mentions, side_by_side
from .merge import is_injective
from .registry import rule

_SPATIAL, _REDUCE = 0, 2
_COLUMNS = (64, 48, 32, 56, 40, 16)
"""How many columns are reduced together: the first that divides the axis, so that their loop has a fixed length."""
_RAGGED_COLUMNS = 128
"""Where none does."""
_ENOUGH_ROWS = 16
"""With fewer, what follows a reduction keeps loops of its own, which more threads can share."""


@rule("reduction", order=30)
def schedule_reduction(schedule: Schedule, block: Any) -> bool:
    """The range runs over what is kept; innermost is the axis along which the operands are contiguous."""
    body = schedule.get(block)
    loops = schedule.get_loops(block)
    kinds = [int(v.iter_type) for v in body.iter_vars]
    if len(loops) != len(kinds) or _REDUCE not in kinds or any(k not in (_SPATIAL, _REDUCE) for k in kinds):
        return False
    kept = [i for i, kind in enumerate(kinds) if kind == _SPATIAL]
    reduced = [i for i, kind in enumerate(kinds) if kind == _REDUCE]
    by_columns = bool(kept) and _moves_along(body, kept[-1], reduced)
    kept_loops, reduced_loops = [loops[i] for i in kept], [loops[i] for i in reduced]
    if by_columns:
        kept_loops = _fused(schedule, kept_loops, side_by_side(body, [body.iter_vars[i] for i in kept]))
        whole = len(kept_loops) == len(kept) and isinstance(schedule.get(kept_loops[-1]).extent, tirx.IntImm)
        kept_loops[-1:] = _split(schedule, kept_loops[-1])
        outer, inner = kept_loops[:-1], kept_loops[-1:]
    else:
        schedule.reorder(*kept_loops, *reduced_loops)
        reduced_loops = _fused(schedule, reduced_loops, side_by_side(body, [body.iter_vars[i] for i in reduced]))
        outer, inner, whole = kept_loops, [], True
    schedule.reorder(*outer, *reduced_loops, *inner)
    if outer:
        head = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
        schedule.parallel(head)
        if whole:  # a piece of several fused axes is no box: TVM would compute more than is there
            _bring_consumers(schedule, block, head)
    schedule.decompose_reduction(block, reduced_loops[0])
    return True


def _moves_along(block: Any, axis: int, reduced: list[int]) -> bool:
    """Whether an operand of the reduction is contiguous along `axis`."""
    variables = [v.var for v in block.iter_vars]
    for region in block.reads:
        indices = [r.min for r in region.region]
        is_reduced = any(mentions(index, variables[r]) for index in indices for r in reduced)
        if is_reduced and mentions(indices[-1], variables[axis]):
            return True
    return False


def _fused(schedule: Schedule, loops: list[Any], count: int) -> list[Any]:
    """The last `count` loops as one."""
    if count < 2:
        return loops
    return [*loops[:-count], schedule.fuse(*loops[-count:])]


def _split(schedule: Schedule, loop: Any) -> list[Any]:
    extent = schedule.get(loop).extent
    width = _RAGGED_COLUMNS
    if isinstance(extent, tirx.IntImm):
        if int(extent) <= _COLUMNS[0]:
            return [loop]
        width = next((w for w in _COLUMNS if int(extent) % w == 0), _RAGGED_COLUMNS)
    return list(schedule.split(loop, [None, width]))


def _bring_consumers(schedule: Schedule, block: Any, head: Any) -> None:
    """Elementwise blocks that read the result join its outermost loop, where that leaves enough to share."""
    rows = schedule.get(head).extent
    few = isinstance(rows, tirx.IntImm) and int(rows) < _ENOUGH_ROWS
    for consumer in schedule.get_consumers(block):
        body = schedule.get(consumer)
        if not is_injective(body) or (few and len(body.reads) > 1):
            continue
        try:
            schedule.reverse_compute_at(consumer, head)
        except ScheduleError:
            continue
        inner = schedule.get_loops(consumer)[1:]
        if len(inner) > 1:
            _fused(schedule, inner, min(len(inner), side_by_side(body, list(body.iter_vars))))
