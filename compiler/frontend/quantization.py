"""Quantized tensors as converters make them: every form of an integer layer becomes dequantize, operator, quantize.

Later stages look for exactly that and compute it with integers (passes/integer_product.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from .context import constant, sizes
from .diagnostics import CannotConvert
from .onnx_schema import to_numpy

if TYPE_CHECKING:
    from .context import Context

BYTES = ("uint8", "int8")


def parameter(context: Context, name: str, dtype: str) -> Any:
    """A scale or zero point as a scalar or a vector of the given type; an absent one is 0."""
    if not name:
        return constant(np.zeros((), to_numpy(dtype)))
    value = context.value(name)
    if value is not None:
        return constant(value.astype(to_numpy(dtype)).reshape(() if value.size == 1 else -1))
    x, shape = context.expr(name), context.shape(name)
    if context.dtype(name) != dtype:
        x = context.emit(relax.op.astype(x, dtype))
    if shape and context.algebra.equal(context.algebra.product(shape), 1):
        return context.emit(context.reshape(x, ()))
    if len(shape) > 1:
        raise CannotConvert("quantization parameters must be scalars or vectors")
    return x


def centred(context: Context, name: str, zero: str, axis: int) -> Any:
    """An 8-bit tensor in int32, minus its zero point; a vector of zero points lies along `axis`."""
    x = context.emit(relax.op.astype(context.weight(name), "int32"))
    if not zero:
        return x
    rank, shape = len(context.shape(name)), context.shape(zero)
    point = context.expr(zero) if len(shape) > 1 else parameter(context, zero, context.dtype(zero))
    point = context.emit(relax.op.astype(point, "int32"))
    if len(point.ty.shape) == 1 and rank > 1:
        point = context.emit(context.reshape(point, [shape[0] if i == axis % rank else 1 for i in range(rank)]))
    return context.emit(relax.op.subtract(x, point))


def dequantized(context: Context, name: str, scale: str, zero: str, axis: int) -> Any:
    """A quantized tensor as float32; parameters with several values lie along `axis`."""
    scales, zeros = parameter(context, scale, "float32"), parameter(context, zero, context.dtype(name))
    return context.emit(relax.op.dequantize(context.weight(name), scales, zeros, axis=axis))


def dequantized_bias(context: Context, name: str, x_scale: str, w_scale: str) -> Any:
    """An int32 bias in the scale of the sums, as a float32 vector."""
    scales = [context.value(s) for s in (x_scale, w_scale)]
    zero = constant(np.zeros((), np.int32))
    if scales[0] is not None and scales[1] is not None:
        product = (scales[0].astype(np.float64).reshape(-1) * scales[1].astype(np.float64).reshape(-1)).astype(
            np.float32
        )
        scale = constant(product.reshape(() if product.size == 1 else -1))
    else:
        factors = [parameter(context, s, "float32") for s in (x_scale, w_scale)]
        scale = context.emit(relax.op.multiply(*factors))
    return context.emit(relax.op.dequantize(context.weight(name), scale, zero, axis=0))


def quantized(context: Context, y: Any, scale: str, zero: str, axis: int = 0) -> Any:
    """float32 to the type of the zero point (u8 where there is none): round half to even, saturate."""
    dtype = context.dtype(zero) if zero else "uint8"
    if dtype not in BYTES:
        raise CannotConvert(f"quantization to {dtype} is not supported")
    scales, zeros = parameter(context, scale, "float32"), parameter(context, zero, dtype)
    return relax.op.quantize(context.normalize(y), scales, zeros, axis=axis, out_dtype=dtype)


def dynamically_quantized(context: Context, x: Any) -> tuple[Any, Any, Any]:
    """(u8 tensor, scale, zero point) by the range that a float32 tensor has in this run."""
    pair = context.emit(
        relax.call_dps_packed(
            "sparsec.dynamic_range", relax.Tuple([x]), out_ty=relax.TensorType(sizes((2,)), "float32")
        )
    )
    out = relax.TensorType(x.ty.shape, "uint8")
    q = context.emit(relax.call_dps_packed("sparsec.dynamic_quantize", relax.Tuple([x, pair]), out_ty=out))
    parts = [
        context.emit(relax.op.strided_slice(pair, [0], sizes([i]), sizes([i + 1]), assume_inbound=True)) for i in (0, 1)
    ]
    scale, zero = (context.emit(context.reshape(part, ())) for part in parts)
    return q, scale, context.emit(relax.op.astype(zero, "uint8"))
