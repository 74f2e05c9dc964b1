"""Convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant
from ..diagnostics import CannotConvert
from ..registry import converter
from .pad import pad_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..context import Context
    from ..graph import Node, Size

_SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


@converter("Conv")
def conv(context: Context, node: Node) -> Any:
    """Conv-22 in one to three spatial dimensions."""
    shape, weight = context.shape(node.inputs[0]), context.shape(node.inputs[1])
    spatial = len(shape) - 2
    if spatial not in _SPATIAL:
        raise CannotConvert(f"convolutions over {spatial} dimensions are not supported")
    strides = node.attrs.get("strides", [1] * spatial)
    dilations = node.attrs.get("dilations", [1] * spatial)
    pads = padding(context, node, shape[2:], list(weight[2:]), strides, dilations)
    x, pads = apply_symbolic(context, node.inputs[0], pads, 0.0)
    function = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}[spatial]
    dtype = context.dtype(node.inputs[0])
    narrow = dtype in ("float16", "bfloat16")  # summed in float32
    y = function(
        x,
        context.weight(node.inputs[1]),
        strides=strides,
        padding=pads,
        dilation=dilations,
        groups=node.attrs.get("group", 1),
        data_layout="NC" + _SPATIAL[spatial],
        kernel_layout="OI" + _SPATIAL[spatial],
        out_dtype="float32" if narrow else None,
    )
    if narrow:
        y = relax.op.astype(context.normalize(y), dtype)
    return add_bias(context, y, node.input(2), spatial)


def add_bias(context: Context, y: Any, bias: str, spatial: int) -> Any:
    """Add a vector over axis 1."""
    if not bias:
        return y
    shape = [1, context.shape(bias)[0], *[1] * spatial]
    value = context.value(bias)
    if value is not None:
        return relax.op.add(context.normalize(y), constant(np.ascontiguousarray(value).reshape(shape)))
    return relax.op.add(context.normalize(y), context.emit(context.reshape(context.expr(bias), shape)))


def apply_symbolic(context: Context, name: str, pads: list[Size], value: float) -> tuple[Any, list[int]]:
    """The data and its pads; pads of unknown size are written out with `value`."""
    x = context.expr(name)
    if all(isinstance(p, int) for p in pads):
        return x, pads
    half = len(pads) // 2
    before, after = [0, 0, *pads[:half]], [0, 0, *pads[half:]]
    return pad_with(context, x, context.dtype(name), context.shape(name), before, after, value), [0] * len(pads)


def padding(
    context: Context,
    node: Node,
    extents: Sequence[Size],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[Size]:
    """Begins and ends, `auto_pad` resolved; symbolic where SAME meets a dynamic dimension and a stride."""
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return list(node.attrs.get("pads", [0] * (2 * len(kernel))))
    if auto == "VALID":
        return [0] * (2 * len(kernel))
    begins, ends = [], []
    for extent, size, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        out = context.algebra.ceildiv(extent, stride)
        total = context.algebra.maximum(0, context.algebra.size((out - 1) * stride + reach - extent))
        small = context.algebra.div(total, 2)
        begins.append(small if auto == "SAME_UPPER" else context.algebra.size(total - small))
        ends.append(context.algebra.size(total - begins[-1]))
    return begins + ends
