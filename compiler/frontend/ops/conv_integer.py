"""Convolutions of 8-bit integers whose results are not quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..diagnostics import CannotConvert
from ..quantization import centred
from ..registry import converter
from .conv import _SPATIAL, padding

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("ConvInteger")
def conv_integer(context: Context, node: Node) -> Any:
    """ConvInteger-10: the padding has the value of the zero point."""
    x = centred(context, node.inputs[0], node.input(2), 1)
    weight = centred(context, node.inputs[1], node.input(3), 0)
    return _conv(context, node, node.inputs[0], node.inputs[1], x, weight)


def _conv(context: Context, node: Node, x_name: str, w_name: str, x: Any, weight: Any) -> Any:
    shape, kernel = context.shape(x_name), context.shape(w_name)
    spatial = len(shape) - 2
    if spatial not in (1, 2, 3):
        raise CannotConvert(f"convolutions over {spatial} dimensions are not supported")
    strides = node.attrs.get("strides", [1] * spatial)
    dilations = node.attrs.get("dilations", [1] * spatial)
    pads = padding(context, node, shape[2:], list(kernel[2:]), strides, dilations)
    if any(not isinstance(p, int) for p in pads):
        raise CannotConvert("auto_pad over a dynamic dimension needs stride 1: bind the dimension")
    function = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}[spatial]
    return function(
        x,
        weight,
        strides=strides,
        padding=pads,
        dilation=dilations,
        groups=node.attrs.get("group", 1),
        data_layout="NC" + _SPATIAL[spatial],
        kernel_layout="OI" + _SPATIAL[spatial],
    )
