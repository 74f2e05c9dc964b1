"""Brings elementwise blocks into their consumers, so that no tensor between them goes through memory."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule, ScheduleError

from .walk import arithmetic_of, reads_of, reads_one_place, size_of

_CHEAP_NODES = 12
"""A body up to this size may be computed again for every read."""
_LARGE_NODES = 4000
"""No block grows beyond this by inlining: its text would grow exponentially along a chain of doubles."""


def merge_producers(schedule: Schedule, root: Any) -> None:
    """Inlines, or computes in the consumer's innermost loop, every injective block whose result stays inside."""
    for block in reversed(schedule.get_child_blocks(root)):
        if not is_injective(schedule.get(block)):
            continue
        try:
            consumers = schedule.get_consumers(block)
        except ScheduleError:
            continue
        if not consumers or _is_output(schedule, block):
            continue
        if _is_cheap(schedule, block, consumers):
            _try(schedule.compute_inline, block)
        elif not _compute_inside(schedule, block, consumers):
            total = sum(size_of(schedule.get(c).body, _LARGE_NODES) for c in consumers)
            if total < _LARGE_NODES:
                _try(schedule.compute_inline, block)


def is_injective(block: Any) -> bool:
    """No reduction, one store."""
    return (
        block.init is None
        and len(block.writes) == 1
        and all(int(v.iter_type) == 0 for v in block.iter_vars)
        and type(block.body).__name__ == "BufferStore"
    )


def _is_output(schedule: Schedule, block: Any) -> bool:
    outputs = schedule.get_output_blocks(schedule.get_sblock("root"))
    return any(schedule.get(o).same_as(schedule.get(block)) for o in outputs)


def _is_cheap(schedule: Schedule, block: Any, consumers: list[Any]) -> bool:
    body = schedule.get(block)
    if size_of(body.body, _CHEAP_NODES) < _CHEAP_NODES or _is_one_operation(body.body.value):
        return True
    buffer = body.writes[0].source
    return len(consumers) == 1 and reads_of(schedule.get(consumers[0]).body, buffer, 2) == 1


def _is_one_operation(value: Any) -> bool:
    """A load, or a sum or product of two operands, however their place is computed."""
    nodes = arithmetic_of(value)
    return len(nodes) <= 3 and not any(isinstance(node, tvm.ir.Call) for node in nodes)


def _compute_inside(schedule: Schedule, block: Any, consumers: list[Any]) -> bool:
    """In the innermost loop of the only consumer, unless that is a reduction or reads several places."""
    if len(consumers) != 1 or not is_injective(schedule.get(consumers[0])):
        return False
    # compute_at makes only one of the elements that the branches of a concatenation with itself read.
    if not reads_one_place(schedule.get(consumers[0]).body, schedule.get(block).writes[0].source):
        return False
    loops = schedule.get_loops(consumers[0])
    return bool(loops) and _try(schedule.compute_at, block, loops[-1])


def _try(action: Any, *arguments: Any) -> bool:
    try:
        action(*arguments)
    except ScheduleError:
        return False
    return True
