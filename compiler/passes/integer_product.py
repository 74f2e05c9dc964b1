"""Products whose operands were both quantized: exact integer sums instead of dequantized floats.

The canonical form is `matmul(dequantize(x), dequantize(w))`, where transposes may stand before or behind a
dequantization. Scales and zero points of activations are constants or scalars of the run, one per tensor; constant
weights may have one per column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ..graph import constant, op_name
from .layer_anchor import Anchor, Values

_BYTES = ("uint8", "int8")
_GROUP = 4
_SCALE_TOLERANCE = 1e-6
"""Relative: by so much the scale of an int32 bias may differ from that of the sums, two roundings of float32."""


@dataclass(frozen=True)
class _Operand:
    """scale * (data - zero), transposed by `axes`; the parameters are arrays where they are known."""

    data: relax.Expr
    axes: tuple[int, ...] | None
    scale: np.ndarray | relax.Expr
    zero: np.ndarray | relax.Expr
    axis: int
    """Of the operand, along which parameters with several values lie."""

    @property
    def known(self) -> bool:
        """Whether scale and zero point are constants."""
        return isinstance(self.scale, np.ndarray) and isinstance(self.zero, np.ndarray)

    @property
    def per_tensor(self) -> bool:
        """Whether there is one scale and one zero point."""
        return all(_elements(p) == 1 for p in (self.scale, self.zero))


def integer_product(var: relax.Var, call: tvm.ir.Call, values: Values, *, groups_of_four: bool) -> Anchor | None:
    """The layer `qlinear` or `qgemm` (constant weights), or `qmatmul` (two activations) of a float32 matmul, or None.

    The first two have as operands the tensor as it was quantized and the centred weights[K, N], int8 where they fit,
    else int16; then scale and zero point of the tensor if they are known at run time only. `qlinear` is what kernels
    take that multiply groups of four bytes, if the target has some. `qmatmul` has both tensors, then the parameters.
    """
    if str(var.ty.dtype) != "float32":
        return None
    x, w = (_operand(side, values) for side in call.args)
    if x is None or w is None or not x.per_tensor:
        return None
    weights = constant(w.data, values)
    if weights is not None and weights.ndim == 2 and w.known and isinstance(x.data, relax.Var):
        return _linear(x, w, weights, groups_of_four)
    return _activations(var, x, w)


def accumulator_bias(value: relax.Expr, product: relax.Var, anchor: Anchor, values: Values) -> np.ndarray | None:
    """int32[N] where `value` adds a dequantized int32 vector in the very scale of the product's sums."""
    if op_name(value) != "relax.add" or anchor.family not in ("qlinear", "qgemm") or anchor.attrs["dynamic"]:
        return None
    other = value.args[1] if value.args[0].same_as(product) else value.args[0]
    inner = values.get(other) if isinstance(other, relax.Var) else other
    while inner is not None and op_name(inner) in ("relax.reshape", "relax.expand_dims", "relax.squeeze"):
        inner = values.get(inner.args[0])
    if inner is None or op_name(inner) != "relax.dequantize" or str(inner.args[0].ty.dtype) != "int32":
        return None
    steps, scale, zero = (constant(a, values) for a in inner.args)
    columns = int(anchor.operands[1].ty.shape[1])
    if steps is None or scale is None or zero is None or zero.any() or steps.size not in (1, columns):
        return None
    last = int(other.ty.shape[-1]) if len(other.ty.shape) and isinstance(other.ty.shape[-1], tvm.tirx.IntImm) else 1
    want = anchor.attrs["scale"]
    if steps.size != last or scale.size not in (1, columns):
        return None
    if not np.allclose(scale.reshape(-1), want, rtol=_SCALE_TOLERANCE, atol=0):
        return None
    return np.broadcast_to(steps.reshape(-1).astype(np.int32), (columns,))


def _linear(x: _Operand, w: _Operand, weights: np.ndarray, groups_of_four: bool) -> Anchor | None:
    assert isinstance(w.scale, np.ndarray)
    assert isinstance(w.zero, np.ndarray)
    if w.axes is not None:
        weights = weights.transpose(w.axes)
    columns = weights.shape[1]
    if not w.per_tensor and w.axis != 1:
        return None
    centred = weights.astype(np.int16) - w.zero.reshape(-1).astype(np.int16)
    if centred.size == 0 or columns == 0:
        return None
    if centred.min() >= -128 and centred.max() <= 127:
        centred = centred.astype(np.int8)
    weight_scale = np.broadcast_to(w.scale.reshape(-1).astype(np.float32), (columns,))
    attrs: dict[str, object] = {"dynamic": not x.known, "bias": None, "scale": weight_scale}
    data = x.data if x.axes is None else relax.op.permute_dims(x.data, x.axes)
    operands = [data, relax.const(np.ascontiguousarray(centred))]
    if x.known:
        assert isinstance(x.zero, np.ndarray)
        attrs["zero_point"] = int(x.zero.reshape(())) + (128 if str(x.data.ty.dtype) == "int8" else 0)
        attrs["scale"] = (np.asarray(x.scale, np.float64).reshape(()) * weight_scale.astype(np.float64)).astype(
            np.float32
        )
    else:
        operands += [_expr(x.scale), _expr(x.zero)]
    in_groups = groups_of_four and centred.dtype == np.int8 and len(centred) % _GROUP == 0 and len(x.data.ty.shape) > 1
    return Anchor("qlinear" if in_groups else "qgemm", attrs, tuple(operands), -1)


def _activations(var: relax.Var, x: _Operand, w: _Operand) -> Anchor | None:
    ranks = [len(side.data.ty.shape) for side in (x, w)]
    if min(ranks) < 2 or max(*ranks, len(var.ty.shape)) > 5 or not w.per_tensor:
        return None
    parameters = [_expr(p) for side in (x, w) for p in (side.scale, side.zero)]
    attrs = {"a_axes": x.axes, "b_axes": w.axes}
    return Anchor("qmatmul", attrs, (x.data, w.data, *parameters), -1)


def _operand(expr: relax.Expr, values: Values) -> _Operand | None:
    axes: tuple[int, ...] | None = None
    value = values.get(expr) if isinstance(expr, relax.Var) else expr
    if value is not None and op_name(value) == "relax.permute_dims":
        axes = _axes(value)
        value = values.get(value.args[0])
    if value is None or op_name(value) != "relax.dequantize" or str(value.args[0].ty.dtype) not in _BYTES:
        return None
    data, scale, zero = value.args
    rank = len(data.ty.shape)
    axis = int(value.attrs.axis) % rank if rank else 0
    inner = values.get(data) if isinstance(data, relax.Var) else None
    parameters = [_parameter(p, values) for p in (scale, zero)]
    if axes is not None:
        axis = axes.index(axis)
    if inner is not None and op_name(inner) == "relax.permute_dims" and constant(data, values) is None:
        first = _axes(inner)
        axes = first if axes is None else tuple(first[i] for i in axes)
        data = inner.args[0]
    return _Operand(data, axes, parameters[0], parameters[1], axis)


def _axes(value: tvm.ir.Call) -> tuple[int, ...]:
    rank = len(value.args[0].ty.shape)
    return tuple(reversed(range(rank))) if value.attrs.axes is None else tuple(int(a) % rank for a in value.attrs.axes)


def _parameter(expr: relax.Expr, values: Values) -> np.ndarray | relax.Expr:
    array = constant(expr, values)
    return expr if array is None else array


def _elements(parameter: np.ndarray | relax.Expr) -> int | None:
    if isinstance(parameter, np.ndarray):
        return int(parameter.size)
    count = 1
    for extent in parameter.ty.shape:
        if not isinstance(extent, tvm.tirx.IntImm):
            return None
        count *= int(extent)
    return count


def _expr(parameter: np.ndarray | relax.Expr) -> relax.Expr:
    return relax.const(parameter.reshape(1)) if isinstance(parameter, np.ndarray) else parameter
