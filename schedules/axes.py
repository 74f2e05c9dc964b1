"""Which axes of a block lie side by side in memory."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from .walk import walk


def side_by_side(block: Any, axes: list[Any]) -> int:
    """How many of the last `axes` every operand walks through as one axis, or does not depend on."""
    regions = [*block.reads, *block.writes]
    return min((_run(region, axes) for region in regions), default=len(axes))


def _run(region: Any, axes: list[Any]) -> int:
    """The same for one operand."""
    if any(not isinstance(r.extent, tirx.IntImm) or int(r.extent) != 1 for r in region.region):
        return 1
    indices, shape = [r.min for r in region.region], list(region.source.ty.shape)
    unused = 0
    while unused < len(axes) and not any(mentions(index, axes[-1 - unused].var) for index in indices):
        unused += 1
    if unused:
        return unused
    run = 0
    while run < min(len(axes), len(indices)):
        axis, index = axes[-1 - run], indices[-1 - run]
        if not index.same_as(axis.var) or not same_size(shape[-1 - run], axis.dom.extent):
            break
        run += 1
    return run


def same_size(a: Any, b: Any) -> bool:
    """Whether two extents are surely equal."""
    if isinstance(a, tirx.IntImm) and isinstance(b, tirx.IntImm):
        return int(a) == int(b)
    return bool(a.same_as(b))


def mentions(expr: Any, var: Any) -> bool:
    """Whether an expression reads a variable."""
    return any(isinstance(node, tirx.Var) and node.same_as(var) for node in walk(expr))
