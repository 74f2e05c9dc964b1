"""Pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import scalar
from ..diagnostics import CannotConvert
from ..registry import converter
from .conv import _SPATIAL, apply_symbolic, padding

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("GlobalAveragePool", "GlobalMaxPool")
def global_pool(context: Context, node: Node) -> Any:
    """GlobalAveragePool-22, GlobalMaxPool-22."""
    axes = list(range(2, len(context.shape(node.inputs[0]))))
    function = relax.op.mean if node.op_type == "GlobalAveragePool" else relax.op.max
    return function(context.expr(node.inputs[0]), axes, keepdims=True)


@converter("LpPool")
def lp_pool(context: Context, node: Node) -> Any:
    """LpPool-22: (Σ |x|^p)^(1/p) over each window."""
    shape, kernel = context.shape(node.inputs[0]), node.attrs["kernel_shape"]
    spatial, dtype = len(kernel), context.dtype(node.inputs[0])
    if spatial not in _SPATIAL or node.attrs.get("ceil_mode", 0):
        raise CannotConvert("pooling over this many dimensions, or with ceil_mode, is not supported")
    strides = node.attrs.get("strides", [1] * spatial)
    dilations = node.attrs.get("dilations", [1] * spatial)
    pads = padding(context, node, shape[2:], kernel, strides, dilations)
    x, pads = apply_symbolic(context, node.inputs[0], pads, 0.0)
    p = float(node.attrs.get("p", 2))
    powered = context.emit(relax.op.power(context.emit(relax.op.abs(x)), scalar(p, dtype)))
    mean = getattr(relax.op.nn, f"avg_pool{spatial}d")(
        powered,
        kernel,
        strides=strides,
        padding=pads,
        dilation=dilations,
        count_include_pad=True,
        layout="NC" + _SPATIAL[spatial],
    )
    total = context.emit(relax.op.multiply(context.emit(mean), scalar(float(np.prod(kernel)), dtype)))
    return relax.op.power(total, scalar(1 / p, dtype))


@converter("MaxPool", "AveragePool")
def pool(context: Context, node: Node) -> Any:
    """MaxPool-22 (values only), AveragePool-22."""
    if any(node.outputs[1:]):
        raise CannotConvert("the indices of MaxPool are not supported")
    shape = context.shape(node.inputs[0])
    kernel = node.attrs["kernel_shape"]
    spatial = len(kernel)
    if spatial not in _SPATIAL:
        raise CannotConvert(f"pooling over {spatial} dimensions is not supported")
    strides = node.attrs.get("strides", [1] * spatial)
    dilations = node.attrs.get("dilations", [1] * spatial)
    pads = padding(context, node, shape[2:], kernel, strides, dilations)
    symbolic = any(not isinstance(p, int) for p in pads)
    if symbolic and node.op_type == "AveragePool" and not node.attrs.get("count_include_pad", 0):
        raise CannotConvert("auto_pad over a dynamic dimension needs stride 1: bind the dimension")
    dtype = context.dtype(node.inputs[0])
    lowest = float("-inf") if dtype.startswith("float") else int(np.iinfo(dtype).min)
    x, pads = apply_symbolic(context, node.inputs[0], pads, lowest if node.op_type == "MaxPool" else 0.0)
    extra = _ceil_padding(context, node, shape[2:], kernel, strides, dilations, pads)
    counts_pads = bool(node.attrs.get("count_include_pad", 0)) and node.op_type == "AveragePool"
    if counts_pads and any(extra):
        raise CannotConvert("ceil_mode with count_include_pad is not supported where the last window is cut")
    name = "max_pool" if node.op_type == "MaxPool" else "avg_pool"
    return getattr(relax.op.nn, f"{name}{spatial}d")(
        x,
        kernel,
        strides=strides,
        padding=[*pads[:spatial], *[p + e for p, e in zip(pads[spatial:], extra, strict=True)]],
        dilation=dilations,
        ceil_mode=False,
        count_include_pad=counts_pads,
        layout="NC" + _SPATIAL[spatial],
    )


def _ceil_padding(
    context: Context,
    node: Node,
    extents: Any,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
) -> list[int]:
    """What ceil_mode adds behind each axis; a window must begin inside the input or its leading pads."""
    spatial = len(kernel)
    if not node.attrs.get("ceil_mode", 0) or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return [0] * spatial
    extra = []
    for i, extent in enumerate(extents):
        if not isinstance(extent, int):
            raise CannotConvert("ceil_mode over a dynamic dimension is not supported: bind the dimension")
        reach = (kernel[i] - 1) * dilations[i] + 1
        span = extent + pads[i] + pads[spatial + i]
        count = -(-(span - reach) // strides[i]) + 1
        if (count - 1) * strides[i] >= extent + pads[i]:
            count -= 1
        extra.append(max(0, (count - 1) * strides[i] + reach - span))
    return extra
