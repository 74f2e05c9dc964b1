"""Injective blocks: the longest run of inner axes that is contiguous in every operand becomes one vector loop."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule

from .axes import side_by_side
from .merge import is_injective
from .registry import rule

_GRAIN = 64
"""Elements: slices of a flat range begin at multiples of this, so that threads share no cache line."""


@rule("elementwise", order=20)
def schedule_elementwise(schedule: Schedule, block: Any) -> bool:
    """Outer axes fused into the range, inner ones into one loop."""
    body = schedule.get(block)
    loops = schedule.get_loops(block)
    if not is_injective(body) or not loops or len(loops) != len(body.iter_vars):
        return False
    inner = max(1, side_by_side(body, list(body.iter_vars)))
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
