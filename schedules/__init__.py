"""Schedules for what no kernel of the catalogue computes: TIR in, scheduled TIR out."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError

from . import elementwise as _elementwise
from . import reduction as _reduction
from .merge import merge_producers
from .registry import RULES

__all__ = ["RULES", "schedule"]

_RULE_MODULES = (_elementwise, _reduction)
UNSCHEDULED = "as written"


def schedule(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, str]:
    """(scheduled function, names of the rules that took part).

    A block that no rule takes stays as it is: it then runs in one thread.
    """
    import tvm

    try:
        sch = Schedule(tvm.IRModule({"main": function}), debug_mask="none", error_render_level="none")
        root = sch.get_sblock("root")
    except (ScheduleError, ValueError, RuntimeError, TypeError):
        return function, UNSCHEDULED
    merge_producers(sch, root)
    names: list[str] = []
    for block in sch.get_child_blocks(root):
        name = _apply(sch, block)
        if name not in names:
            names.append(name)
    return sch.mod["main"], " + ".join(names) or UNSCHEDULED


def _apply(sch: Schedule, block: Any) -> str:
    if _is_inside_another(sch, block):
        return "merged"
    for name, function in RULES.items():
        before = sch.copy()
        try:
            if function(sch, block):
                return name
        except ScheduleError:
            del before
    return UNSCHEDULED


def _is_inside_another(sch: Schedule, block: Any) -> bool:
    """Whether another block shares its loops: the rule that takes that one moves both."""
    loops = sch.get_loops(block)
    return bool(loops) and len(sch.get_child_blocks(loops[0])) > 1 and not _is_last(sch, block, loops[0])


def _is_last(sch: Schedule, block: Any, loop: Any) -> bool:
    last = sch.get_child_blocks(loop)[-1]
    return bool(sch.get(last).same_as(sch.get(block)))
