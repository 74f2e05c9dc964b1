"""Schedules for what no kernel of the catalogue computes: TIR in, scheduled TIR out."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError

from . import elementwise as _elementwise
from . import reduction as _reduction
from . import transpose as _transpose
from .merge import merge_producers
from .registry import RULES

__all__ = ["RULES", "schedule"]

_RULE_MODULES = (_elementwise, _reduction, _transpose)
UNSCHEDULED = "as written"
MERGED = "merged"


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
        sch, name = _apply(sch, block)
        if name not in names:
            names.append(name)
    return sch.mod["main"], " + ".join(names) or UNSCHEDULED


def _apply(sch: Schedule, block: Any) -> tuple[Schedule, str]:
    """The schedule after the first rule that takes the block, and the rule's name."""
    if _is_placed(sch, block):
        return sch, MERGED
    for name, function in RULES.items():
        trial = sch.copy()
        try:
            if function(trial, block):
                return trial, name
        except ScheduleError:
            continue
    return sch, UNSCHEDULED


def _is_placed(sch: Schedule, block: Any) -> bool:
    """Whether another block's rule brought it into its loops, or will move the loops that both are in."""
    loops = sch.get_loops(block)
    if not loops:
        return False
    if int(sch.get(loops[0]).kind) == tirx.ForKind.PARALLEL:
        return True
    return not sch.get(sch.get_child_blocks(loops[0])[-1]).same_as(sch.get(block))
