"""Integer layers: ConvInteger, QLinearConv, QLinearMatMul, exact in int32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..context import scalar
from ..diagnostics import CannotConvert
from ..registry import converter
from .conv import _SPATIAL, padding

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node

_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


@converter("ConvInteger")
def conv_integer(context: Context, node: Node) -> Any:
    """ConvInteger-10: the padding has the value of the zero point."""
    x = _centred(context, node.inputs[0], node.input(2), 1)
    weight = _centred(context, node.inputs[1], node.input(3), 0)
    return _conv(context, node, node.inputs[0], node.inputs[1], x, weight)


@converter("QLinearConv")
def qlinear_conv(context: Context, node: Node) -> Any:
    """QLinearConv-10: scales and zero points per tensor, the weight's also per output channel."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    total = _conv(context, node, x, w, _centred(context, x, x_zero, 1), _centred(context, w, w_zero, 0))
    spatial = len(context.shape(x)) - 2
    if node.input(8):
        bias = context.reshape(context.expr(node.inputs[8]), [1, -1, *[1] * spatial])
        total = relax.op.add(context.normalize(total), context.emit(bias))
    scale = _vector(context, w_scale, 1, spatial + 2)
    return _requantize(context, total, x_scale, scale, y_scale, y_zero)


@converter("QLinearMatMul")
def qlinear_matmul(context: Context, node: Node) -> Any:
    """QLinearMatMul-21 with parameters per tensor, or per column of the second operand."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    if any(len(context.shape(name)) > 0 and context.shape(name) != (1,) for name in (a_scale, a_zero)):
        raise CannotConvert("parameters per row are not supported")
    rank = len(context.shape(b))
    total = relax.op.matmul(_centred(context, a, a_zero, 0), _centred(context, b, b_zero, rank - 1))
    return _requantize(context, total, a_scale, _vector(context, b_scale, rank - 1, rank), y_scale, y_zero)


def _vector(context: Context, name: str, axis: int, rank: int) -> Any:
    """A scalar, or a vector laid along `axis`."""
    shape = context.shape(name)
    if context.algebra.equal(context.algebra.product(shape), 1):
        return context.emit(context.reshape(context.expr(name), ()))
    if len(shape) != 1:
        raise CannotConvert("quantization parameters must be scalars or vectors")
    return context.emit(context.reshape(context.expr(name), [shape[0] if i == axis else 1 for i in range(rank)]))


def _centred(context: Context, name: str, zero: str, axis: int) -> Any:
    """The tensor in int32, minus its zero point."""
    x = context.emit(relax.op.astype(context.expr(name), "int32"))
    if not zero:
        return x
    point = _vector(context, zero, axis, len(context.shape(name)))
    return context.emit(relax.op.subtract(x, context.emit(relax.op.astype(point, "int32"))))


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


def _requantize(context: Context, total: Any, x_scale: str, w_scale: Any, y_scale: str, y_zero: str) -> Any:
    """saturate(round_half_even(total · (sx · sw / sy)) + zy)."""
    dtype = context.dtype(y_zero)
    if dtype not in _LIMITS:
        raise CannotConvert(f"quantization to {dtype} is not supported")
    scales = [_vector(context, x_scale, 0, 0), w_scale, _vector(context, y_scale, 0, 0)]
    if context.dtype(x_scale) != "float32":
        scales = [context.emit(relax.op.astype(s, "float32")) for s in scales]
    factor = context.emit(relax.op.multiply(scales[0], scales[1]))
    factor = context.emit(relax.op.divide(factor, scales[2]))
    y = context.emit(relax.op.astype(context.emit(total), "float32"))
    y = context.emit(relax.op.round(context.emit(relax.op.multiply(y, factor))))
    zero = context.emit(relax.op.astype(_vector(context, y_zero, 0, 0), "float32"))
    low, high = _LIMITS[dtype]
    y = context.emit(relax.op.maximum(context.emit(relax.op.add(y, zero)), scalar(float(low), "float32")))
    return relax.op.astype(context.emit(relax.op.minimum(y, scalar(float(high), "float32"))), dtype)
