"""Linear quantization, per tensor and per axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..onnx_schema import to_dtype, to_numpy
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node

_INTEGERS = ("uint8", "int8", "int16", "uint16", "int32")


@converter("QuantizeLinear")
def quantize(context: Context, node: Node) -> Any:
    """QuantizeLinear-25 to 8- and 16-bit integers; round half to even, then saturate."""
    zero = node.input(2)
    wanted = node.attrs.get("output_dtype", 0)
    dtype = context.dtype(zero) if zero else to_dtype(wanted) if wanted else "uint8"
    if node.attrs.get("block_size", 0):
        x, (scale, zero_point) = context.expr(node.inputs[0]), _blocks(context, node, dtype, "float32")
        steps = context.emit(relax.op.round(context.emit(relax.op.divide(x, scale))))
        limits = np.iinfo(dtype)
        whole = context.emit(relax.op.clip(context.emit(relax.op.add(steps, zero_point)), limits.min, limits.max))
        return relax.op.astype(whole, dtype)
    scale, zero_point, axis = _parameters(context, node, dtype)
    return relax.op.quantize(context.expr(node.inputs[0]), scale, zero_point, axis=axis, out_dtype=dtype)


@converter("DequantizeLinear")
def dequantize(context: Context, node: Node) -> Any:
    """DequantizeLinear-25 from 8-, 16- and 32-bit integers."""
    if node.attrs.get("block_size", 0):
        scale, zero_point = _blocks(context, node, context.dtype(node.inputs[0]), "int32")
        x = context.emit(relax.op.astype(context.weight(node.inputs[0]), "int32"))
        steps = context.emit(relax.op.astype(context.emit(relax.op.subtract(x, zero_point)), "float32"))
        return relax.op.multiply(steps, scale)
    scale, zero_point, axis = _parameters(context, node, context.dtype(node.inputs[0]))
    wanted = node.attrs.get("output_dtype", 0)
    dtype = to_dtype(wanted) if wanted else context.dtype(node.inputs[1])
    return relax.op.dequantize(context.weight(node.inputs[0]), scale, zero_point, axis=axis, out_dtype=dtype)


def _blocks(context: Context, node: Node, dtype: str, arithmetic: str) -> list[Any]:
    """Scale, and zero point in the type of the arithmetic, each repeated along the blocks of one axis."""
    if node.attrs.get("output_dtype", 0) and node.op_type == "DequantizeLinear":
        raise CannotConvert("blocked quantization with an output type is not supported")
    if dtype not in _INTEGERS or context.dtype(node.inputs[1]) != "float32":
        raise CannotConvert(f"blocked quantization of {dtype} is not supported")
    shape = context.shape(node.inputs[0])
    axis = node.attrs.get("axis", 1) % len(shape)
    results = []
    for name, wanted in ((node.inputs[1], "float32"), (node.input(2), arithmetic)):
        if not name:
            results.append(constant(np.zeros((), wanted)))
            continue
        x = context.expr(name)
        if context.dtype(name) != wanted:
            x = context.emit(relax.op.astype(x, wanted))
        x = context.emit(relax.op.repeat(x, node.attrs["block_size"], axis))
        end = sizes([shape[axis]])
        results.append(context.emit(relax.op.strided_slice(x, [axis], sizes([0]), end, assume_inbound=True)))
    return results


def _parameters(context: Context, node: Node, dtype: str) -> tuple[Any, Any, int]:
    """Scale, zero point and axis; a vector of one element becomes a scalar."""
    if dtype not in _INTEGERS:
        raise CannotConvert(f"quantization to {dtype} is not supported")
    if context.dtype(node.inputs[1]) != "float32":
        raise CannotConvert("quantization scales must be float32")
    rank, shape = len(context.shape(node.inputs[0])), context.shape(node.inputs[1])
    axis = node.attrs.get("axis", 1)
    axis = axis % rank if rank and -rank <= axis < rank else 0
    parameters = []
    for name in node.inputs[1:3]:
        value = context.value(name) if name else None
        if value is not None and value.size == 1:
            parameters.append(constant(value.reshape(())))
        elif name and shape and context.algebra.equal(context.algebra.product(context.shape(name)), 1):
            parameters.append(context.emit(context.reshape(context.expr(name), ())))
        elif name:
            parameters.append(context.expr(name))
    if len(parameters) == 1:
        parameters.append(constant(np.zeros((), to_numpy(dtype))))
    return parameters[0], parameters[1], axis
