"""Activations that TVM converts for float32 only, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..context import scalar
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("Elu", "Selu", "Celu")
def elu(context: Context, node: Node) -> Any:
    """Elu-22, Selu-22, Celu-12: gamma * (x where x > 0, else alpha * (exp(x / beta) - 1))."""
    attrs = context.attrs(node)
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    alpha = attrs.get("alpha", 1.0)
    inner = relax.op.divide(x, scalar(alpha, dtype)) if node.op_type == "Celu" else x
    # min keeps exp of large positive values, which are not used, from overflowing
    grown = relax.op.exp(context.emit(relax.op.minimum(context.normalize(inner), scalar(0.0, dtype))))
    below = context.emit(relax.op.subtract(context.emit(grown), scalar(1.0, dtype)))
    below = context.emit(relax.op.multiply(below, scalar(alpha, dtype)))
    y = relax.op.where(context.emit(relax.op.greater(x, scalar(0.0, dtype))), x, below)
    if node.op_type == "Selu":
        return relax.op.multiply(context.emit(y), scalar(attrs["gamma"], dtype))
    return y


@converter("Softmax", "LogSoftmax")
def softmax(context: Context, node: Node) -> Any:
    """Softmax-13, LogSoftmax-13, summed in float32 where the input is narrower."""
    function = relax.op.nn.softmax if node.op_type == "Softmax" else relax.op.nn.log_softmax
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    axis = context.attrs(node)["axis"]
    if dtype not in ("float16", "bfloat16"):
        return function(x, axis)
    return relax.op.astype(context.emit(function(context.emit(relax.op.astype(x, "float32")), axis)), dtype)


@converter("LpNormalization")
def lp_normalization(context: Context, node: Node) -> Any:
    """LpNormalization-22: x / norm along one axis, 0 where the norm is 0."""
    attrs = context.attrs(node)
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    powered = relax.op.abs(x) if attrs["p"] == 1 else relax.op.multiply(x, x)
    norm = context.emit(relax.op.sum(context.emit(powered), [attrs["axis"]], keepdims=True))
    norm = norm if attrs["p"] == 1 else context.emit(relax.op.sqrt(norm))
    empty = context.emit(relax.op.equal(norm, scalar(0.0, dtype)))
    divisor = context.emit(relax.op.where(empty, scalar(1.0, dtype), norm))
    return relax.op.divide(x, divisor)
