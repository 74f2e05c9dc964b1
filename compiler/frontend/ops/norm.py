"""Normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant, scalar
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("BatchNormalization")
def batch_norm(context: Context, node: Node) -> Any:
    """BatchNormalization-15 at inference: one multiply and one add with constants."""
    if node.attrs.get("training_mode", 0):
        raise CannotConvert("batch normalization in training mode is not supported; export the model for inference")
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    shape = [1, context.shape(node.inputs[1])[0], *[1] * (len(context.shape(node.inputs[0])) - 2)]
    epsilon = node.attrs.get("epsilon", 1e-5)
    values = [context.value(name) for name in node.inputs[1:5]]
    if all(v is not None for v in values):
        gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in values)
        factor = gamma / np.sqrt(variance + epsilon)
        scale, shift = ((v.astype(dtype).reshape(shape)) for v in (factor, beta - mean * factor))
        return relax.op.add(context.emit(relax.op.multiply(x, constant(scale))), constant(shift))
    gamma, beta, mean, variance = (context.emit(context.reshape(context.expr(n), shape)) for n in node.inputs[1:5])
    centred = context.emit(relax.op.subtract(x, mean))
    deviation = context.emit(relax.op.sqrt(context.normalize(relax.op.add(variance, scalar(epsilon, dtype)))))
    normal = context.emit(relax.op.divide(centred, deviation))
    return relax.op.add(context.emit(relax.op.multiply(normal, gamma)), beta)


@converter("LayerNormalization")
def layer_norm(context: Context, node: Node) -> Any:
    """LayerNormalization-17, the mean and inverse deviation outputs included."""
    shape = context.shape(node.inputs[0])
    attrs = context.attrs(node)
    axis = attrs["axis"] % len(shape)
    axes = list(range(axis, len(shape)))
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    scale = _parameter(context, node.input(1), shape[axis:], dtype)
    bias = _parameter(context, node.input(2), shape[axis:], dtype)
    if not any(node.outputs[1:]) and scale is not None and bias is not None:
        return relax.op.nn.layer_norm(x, scale, bias, axes, attrs["epsilon"])
    mean = context.emit(relax.op.mean(x, axes, keepdims=True))
    centred = context.emit(relax.op.subtract(x, mean))
    variance = context.emit(relax.op.mean(context.normalize(relax.op.multiply(centred, centred)), axes, keepdims=True))
    inverse = context.emit(relax.op.rsqrt(context.normalize(relax.op.add(variance, scalar(attrs["epsilon"], dtype)))))
    y = context.emit(relax.op.multiply(centred, inverse))
    y = context.emit(relax.op.multiply(y, context.expr(node.inputs[1])))
    if node.input(2):
        y = context.emit(relax.op.add(y, context.expr(node.inputs[2])))
    return [y, mean, inverse][: len(node.outputs)]


def _parameter(context: Context, name: str, shape: Any, dtype: str) -> Any:
    """Scale or bias in the normalized shape; None where that takes a run-time broadcast."""
    if not name:
        if any(not isinstance(d, int) for d in shape):
            return None
        return constant(np.zeros(shape, dtype))
    if context.algebra.same(context.shape(name), shape):
        return context.expr(name)
    value = context.value(name)
    if value is None or any(not isinstance(d, int) for d in shape):
        return None
    return constant(np.ascontiguousarray(np.broadcast_to(value, shape)))


@converter("InstanceNormalization")
def instance_norm(context: Context, node: Node) -> Any:
    """InstanceNormalization-22: each channel of each sample on its own."""
    shape = context.shape(node.inputs[0])
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    axes = list(range(2, len(shape)))
    mean = context.emit(relax.op.mean(x, axes, keepdims=True))
    centred = context.emit(relax.op.subtract(x, mean))
    variance = context.emit(relax.op.mean(context.normalize(relax.op.multiply(centred, centred)), axes, keepdims=True))
    epsilon = scalar(context.attrs(node)["epsilon"], dtype)
    inverse = context.emit(relax.op.rsqrt(context.normalize(relax.op.add(variance, epsilon))))
    per_channel = [1, shape[1], *[1] * (len(shape) - 2)]
    scale, bias = (context.emit(context.reshape(context.expr(name), per_channel)) for name in node.inputs[1:3])
    y = context.emit(relax.op.multiply(context.normalize(relax.op.multiply(centred, inverse)), scale))
    return relax.op.add(y, bias)
