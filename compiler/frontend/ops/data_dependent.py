"""Operators whose output's shape depends on the data: the shape holds a dimension that each run finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ....codegen_templates.found import can_compare
from ...graph import Layer
from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("NonZero")
def nonzero(context: Context, node: Node) -> Any:
    """NonZero-13."""
    shape = context.shape(node.inputs[0])
    if not shape:
        raise CannotConvert("it is given a scalar")
    return _nonzero(context, node, context.expr(node.inputs[0]), context.algebra.product(shape))


@converter("Compress")
def compress(context: Context, node: Node) -> Any:
    """Compress-11: a slice per true element of the condition."""
    (length,), shape = context.shape(node.inputs[1]), context.shape(node.inputs[0])
    data, axis = context.expr(node.inputs[0]), context.attrs(node).get("axis")
    if axis is None:
        shape, axis = (context.algebra.product(shape),), 0
        data = context.emit(context.reshape(data, shape))
    axis %= len(shape)
    if context.algebra.decide(length <= shape[axis]) is not True:
        raise CannotConvert(f"its condition may be longer than axis {axis}")
    places = context.emit(_nonzero(context, node, context.expr(node.inputs[1]), length))
    places = context.emit(context.reshape(places, [places.ty.shape.values[1]]))
    return relax.op.take(data, places, axis, mode="fast")


def _nonzero(context: Context, node: Node, x: Any, most: Any) -> Any:
    dtype, rank = str(x.ty.dtype), len(x.ty.shape.values)
    if not can_compare(dtype):
        raise CannotConvert(f"values of type {dtype} are not supported")
    dim = context.found_dim(node, most)
    layer = Layer("nonzero", {"count": dim.name}, (), node.outputs[0])
    return context.layer(layer, [x], [relax.TensorType(sizes((rank, dim.var)), "int64")])


@converter("NonMaxSuppression")
def non_max_suppression(context: Context, node: Node) -> Any:
    """NonMaxSuppression-11; `max_output_boxes_per_class` must be known: memory is planned for so many."""
    attrs, (batch, classes, boxes) = context.attrs(node), context.shape(node.inputs[1])
    most = int(context.number(node.inputs[2], "greatest number of boxes")) if node.input(2) else 0
    if most <= 0:
        raise CannotConvert("without a greatest number of boxes per class it gives none")
    bound = context.algebra.minimum(most, boxes)
    dim = context.found_dim(node, batch * classes * bound)
    operands = [context.expr(node.inputs[0]), context.expr(node.inputs[1])]
    for index, default in ((3, 0.0), (4, None)):
        if node.input(index):
            operands.append(context.emit(context.reshape(context.expr(node.inputs[index]), [1])))
        elif default is not None:
            operands.append(constant(np.full(1, default, np.float32)))
    layer_attrs = {
        "count": dim.name,
        "most": most,
        "center_point_box": bool(attrs["center_point_box"]),
        "has_score_threshold": bool(node.input(4)),
    }
    layer = Layer("non_max_suppression", layer_attrs, (), node.outputs[0])
    return context.layer(layer, operands, [relax.TensorType(sizes((dim.var, 3)), "int64")])
