"""Products whose operands were both quantized: exact integer sums instead of dequantized floats."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ..graph import constant, op_name
from .layer_anchor import Anchor, Values

_UNIT = 4
"""Consecutive k that one multiply-accumulate takes."""


def integer_product(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    """matmul(dequantize(x), dequantize(constant)) with one scale and zero point for x and a symmetric constant.

    The layer `qlinear` has x as it was quantized and the int8 weights[K, N] as operands.
    """
    x = _dequantized(call.args[0], values)
    weights = integer_weights(call.args[1], values)
    if x is None or weights is None or str(var.ty.dtype) != "float32":
        return None
    data, scale, zero = x
    array, weight_scale = weights
    if array.shape[0] % _UNIT or len(data.ty.shape) < 2:
        return None
    signed = str(data.ty.dtype) == "int8"
    attrs = {
        "zero_point": zero + 128 if signed else zero,
        "scale": (np.float64(scale) * weight_scale.astype(np.float64)).astype(np.float32),
    }
    return Anchor("qlinear", attrs, (data, relax.const(array)), -1)


def _dequantized(expr: relax.Expr, values: Values) -> tuple[relax.Var, float, int] | None:
    """(8-bit tensor, scale, zero point) of a tensor that was quantized as a whole."""
    value = values.get(expr) if isinstance(expr, relax.Var) else None
    if value is None or op_name(value) != "relax.dequantize":
        return None
    data, scale, zero = value.args
    scale_value, zero_value = constant(scale, values), constant(zero, values)
    if scale_value is None or zero_value is None or scale_value.size != 1 or zero_value.size != 1:
        return None
    if not isinstance(data, relax.Var) or str(data.ty.dtype) not in ("uint8", "int8"):
        return None
    return data, float(scale_value.reshape(())), int(zero_value.reshape(()))


def integer_weights(expr: relax.Expr, values: Values) -> tuple[np.ndarray, np.ndarray] | None:
    """(int8 [K, N], scale[N]) of a constant matrix with zero point 0, also where it was transposed afterwards."""
    value = values.get(expr) if isinstance(expr, relax.Var) else expr
    transposed = False
    if value is not None and op_name(value) == "relax.permute_dims" and len(expr.ty.shape) == 2:
        transposed = True
        inner = value.args[0]
        value = values.get(inner) if isinstance(inner, relax.Var) else inner
    if value is None or op_name(value) != "relax.dequantize":
        return None
    array, scale, zero = (constant(a, values) for a in value.args)
    if array is None or scale is None or zero is None or array.ndim != 2 or array.dtype != np.int8 or zero.any():
        return None
    out_axis = 0 if transposed else 1
    if scale.size > 1 and int(value.attrs.axis) % 2 != out_axis:
        return None
    if transposed:
        array = array.T
    return np.ascontiguousarray(array), np.broadcast_to(scale.reshape(-1), (array.shape[1],))
