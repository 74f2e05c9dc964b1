"""The choice between two whole tensors that a run-time condition leaves (see control_flow)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..control_flow import SELECT
from ..diagnostics import CannotConvert, describe
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter(SELECT[1], domain=SELECT[0])
def select(context: Context, node: Node) -> Any:
    """`a` where the condition holds, else `b`."""
    condition, a, b = node.inputs
    if context.dtype(a) != context.dtype(b) or not context.algebra.same(context.shape(a), context.shape(b)):
        first, second = (describe(context.dtype(x), context.shape(x)) for x in (a, b))
        choice = f"a condition known only at run time cannot choose between {first} and {second}"
        raise CannotConvert(f"{choice}: fix the input that decides (--fix NAME=true)")
    scalar = context.emit(context.reshape(context.expr(condition), []))
    return relax.op.where(scalar, context.expr(a), context.expr(b))
