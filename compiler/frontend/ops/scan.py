"""Cumulative products, the largest elements, and reading bits as another type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, te, tirx

from ..context import sizes
from ..diagnostics import CannotConvert
from ..onnx_schema import to_dtype, to_numpy
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("CumProd")
def cumprod(context: Context, node: Node) -> Any:
    """CumProd-26, exclusive and reversed as well."""
    axis = context.number(node.inputs[1], "axis") % len(context.shape(node.inputs[0]))
    attrs = context.attrs(node)
    x = context.expr(node.inputs[0])
    if attrs["reverse"]:
        x = context.emit(relax.op.flip(x, axis))
    y = context.emit(relax.op.cumprod(x, axis, exclusive=bool(attrs["exclusive"])))
    return relax.op.flip(y, axis) if attrs["reverse"] else y


@converter("TopK")
def top_k(context: Context, node: Node) -> list[Any]:
    """TopK-24; equal elements keep their order, and the result is sorted even where it need not be.

    Of a number that depends on dimensions all are sorted, and the first of them taken.
    """
    attrs, shape = context.attrs(node), context.shape(node.inputs[0])
    (count,) = context.ints(node.inputs[1], "k")
    axis = attrs["axis"] % len(shape)
    if context.algebra.decide(shape[axis] >= count) is not True:
        raise CannotConvert(f"it takes {count} of an axis that may be shorter: raise the dimension's lower bound")
    x = context.expr(node.inputs[0])
    taken = count if isinstance(count, int) else -1
    both = context.emit(relax.op.topk(x, taken, axis, "both", bool(attrs["largest"]), "int64"))
    made = [relax.TupleGetItem(both, i) for i in range(2)]
    if taken >= 0:
        return made
    rows = [context.emit(part) for part in made]
    return [relax.op.strided_slice(part, [axis], sizes([0]), sizes([count]), assume_inbound=True) for part in rows]


@converter("BitCast")
def bit_cast(context: Context, node: Node) -> Any:
    """BitCast-26 between types of one size."""
    target, source = to_dtype(node.attrs["to"]), context.dtype(node.inputs[0])
    if source == "bool" and target in ("int8", "uint8"):
        return relax.op.astype(context.expr(node.inputs[0]), target)
    if to_numpy(source).itemsize != to_numpy(target).itemsize or "bool" in (source, target):
        raise CannotConvert(f"reading {source} as {target} is not supported")

    def body(data: Any) -> Any:
        shape = sizes(context.shape(node.inputs[0]))
        return te.compute(shape, lambda *i: tirx.reinterpret(target, data(*i)), name="bit_cast")

    return context.builder.emit_te(body, context.expr(node.inputs[0]))
