"""Operators along time whose positions come from a run-time vector per batch row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

from ..context import sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("ReverseSequence")
def reverse_sequence(context: Context, node: Node) -> Any:
    """ReverseSequence-10: the first `sequence_lens[b]` steps of row b backwards, the others as they are."""
    attrs, shape = context.attrs(node), context.shape(node.inputs[0])
    batch, time = attrs["batch_axis"] % len(shape), attrs["time_axis"] % len(shape)

    def body(data: Any, lengths: Any) -> Any:
        def element(*index: Any) -> Any:
            length = tirx.Cast("int64", lengths[index[batch]])
            at = index[time]
            source = tirx.Select(at < length, length - 1 - at, at)
            return data(*index[:time], source, *index[time + 1 :])

        return te.compute(sizes(shape), element, name="reverse_sequence")

    return context.builder.emit_te(body, *[context.expr(name) for name in node.inputs])


@converter("TensorScatter")
def tensor_scatter(context: Context, node: Node) -> Any:
    """TensorScatter-24: the cache with the update written at each row's index, around its end if circular.

    What lies outside of the cache in linear mode is not written.
    """
    attrs, shape = context.attrs(node), context.shape(node.inputs[0])
    axis = attrs["axis"] % len(shape)
    if axis == 0:
        raise CannotConvert("the batch axis cannot be the one that is written along")
    extent, count = sizes([shape[axis], context.shape(node.inputs[1])[axis]])
    names = [name for name in node.inputs if name]

    def body(past: Any, update: Any, *first: Any) -> Any:
        def element(*index: Any) -> Any:
            start: Any = tirx.Cast("int64", first[0][index[0]]) if first else tirx.const(0, "int64")
            place = index[axis] - start
            if attrs["mode"] == "circular":
                place = tirx.floormod(place, extent)
            inside = tirx.all(place >= 0, place < count)
            return tirx.if_then_else(inside, update(*index[:axis], place, *index[axis + 1 :]), past(*index))

        return te.compute(sizes(shape), element, name="tensor_scatter")

    return context.builder.emit_te(body, *[context.expr(name) for name in names])
