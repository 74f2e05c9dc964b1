"""Element by element, with numpy broadcasting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant, scalar, sizes
from ..diagnostics import CannotConvert
from ..onnx_schema import to_dtype, to_numpy
from ..registry import converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..context import Context
    from ..graph import Node


@converter("Add", "Sub", "Mul", "Equal")
def binary(context: Context, node: Node) -> Any:
    """Add-14, Sub-14, Mul-14, Equal-19."""
    function = {"Add": relax.op.add, "Sub": relax.op.subtract, "Mul": relax.op.multiply, "Equal": relax.op.equal}
    a, b = (context.expr(name) for name in node.inputs)
    return function[node.op_type](a, b)


@converter("Div")
def divide(context: Context, node: Node) -> Any:
    """Div-14; integers round towards zero."""
    divisor = context.value(node.inputs[1])
    if divisor is not None and divisor.dtype.kind in "iu" and bool(np.any(divisor == 0)):
        raise CannotConvert("it divides integers by a constant zero")
    return relax.op.divide(context.expr(node.inputs[0]), context.expr(node.inputs[1]))


@converter("Mod")
def modulo(context: Context, node: Node) -> Any:
    """Mod-13: the divisor's sign, or with `fmod` the dividend's."""
    a, b = (context.expr(name) for name in node.inputs)
    dtype = context.dtype(node.inputs[0])
    if not dtype.startswith("float"):
        return relax.op.mod(a, b) if node.attrs.get("fmod", 0) else relax.op.floor_mod(a, b)
    rest = context.emit(relax.op.mod(a, b))
    if node.attrs.get("fmod", 0):
        return rest
    zero = scalar(0.0, dtype)
    signs = [context.emit(relax.op.less(x, zero)) for x in (rest, b)]
    differs = context.emit(relax.op.logical_xor(*signs))
    off = context.emit(relax.op.logical_and(context.emit(relax.op.not_equal(rest, zero)), differs))
    return relax.op.where(off, context.emit(relax.op.add(rest, b)), rest)


@converter("BitShift")
def bit_shift(context: Context, node: Node) -> Any:
    """BitShift-28: an amount outside the type's width shifts everything out."""
    dtype = context.dtype(node.inputs[0])
    bits = to_numpy(dtype).itemsize * 8
    a, amount = (context.expr(name) for name in node.inputs)
    inside = context.emit(relax.op.less(amount, scalar(bits, dtype)))
    if dtype.startswith("int"):
        positive = context.emit(relax.op.greater_equal(amount, scalar(0, dtype)))
        inside = context.emit(relax.op.logical_and(inside, positive))
    safe = context.emit(relax.op.where(inside, amount, scalar(0, dtype)))
    if node.attrs["direction"] == "LEFT":
        return relax.op.where(inside, context.emit(relax.op.left_shift(a, safe)), scalar(0, dtype))
    shifted = context.emit(relax.op.right_shift(a, safe))
    if not dtype.startswith("int"):
        return relax.op.where(inside, shifted, scalar(0, dtype))
    sign = context.emit(relax.op.right_shift(a, scalar(bits - 1, dtype)))
    return relax.op.where(inside, shifted, sign)


@converter("Pow")
def power(context: Context, node: Node) -> Any:
    """Pow-15: the result has the base's type; small whole exponents become products."""
    base, exponent = node.inputs
    dtype = context.dtype(base)
    x = context.expr(base)
    value = context.value(exponent)
    if value is not None and value.size == 1 and value.ndim <= len(context.shape(base)):
        number = float(value.reshape(-1)[0])
        if number == 2.0:
            return relax.op.multiply(x, x)
        if number == 3.0:
            return relax.op.multiply(context.emit(relax.op.multiply(x, x)), x)
    if dtype.startswith("float"):
        return relax.op.power(x, _cast(context.expr(exponent), context.dtype(exponent), dtype))
    wide = "float64"  # exact for results below 2^53
    y = relax.op.power(
        _cast(x, dtype, wide),
        _cast(context.expr(exponent), context.dtype(exponent), wide),
    )
    return _cast(context.normalize(relax.op.round(y)), wide, dtype)


@converter("Min", "Max", "Sum", "Mean")
def variadic(context: Context, node: Node) -> Any:
    """Min-13, Max-13, Sum-13, Mean-13 over any number of inputs."""
    function: Callable[[Any, Any], Any] = {"Min": relax.op.minimum, "Max": relax.op.maximum}.get(
        node.op_type, relax.op.add
    )
    total = context.expr(node.inputs[0])
    for name in node.inputs[1:]:
        total = context.normalize(function(total, context.expr(name)))
    if node.op_type == "Mean" and len(node.inputs) > 1:
        total = relax.op.divide(total, scalar(float(len(node.inputs)), context.dtype(node.inputs[0])))
    return total


@converter("Clip")
def clip(context: Context, node: Node) -> Any:
    """Clip-13; a bound may be absent or known only at run time."""
    x = context.expr(node.inputs[0])
    low, high = node.input(1), node.input(2)
    bounds = [context.value(name) for name in (low, high)]
    if context.dtype(node.inputs[0]) == "float32" and all(b is not None and b.size == 1 for b in bounds):
        low_value, high_value = (float(b.reshape(-1)[0]) for b in bounds if b is not None)
        if low_value <= high_value:
            return relax.op.clip(x, low_value, high_value)
    if low:
        x = context.normalize(relax.op.maximum(x, _scalar_like(context, low)))
    if high:
        x = context.normalize(relax.op.minimum(x, _scalar_like(context, high)))
    return x


def _scalar_like(context: Context, name: str) -> Any:
    expr = context.expr(name)
    return expr if not context.shape(name) else context.normalize(context.reshape(expr, ()))


@converter("Where")
def where(context: Context, node: Node) -> Any:
    """Where-16."""
    return relax.op.where(*[context.expr(name) for name in node.inputs])


@converter("Cast", "CastLike")
def cast(context: Context, node: Node) -> Any:
    """Cast-25, CastLike-25 between numbers and bools; float to integer rounds towards zero."""
    source = context.dtype(node.inputs[0])
    target = to_dtype(node.attrs["to"]) if node.op_type == "Cast" else context.dtype(node.inputs[1])
    for dtype in (source, target):
        if dtype == "object" or (to_numpy(dtype).kind not in "biuf" and dtype != "bfloat16"):
            raise CannotConvert(f"casts from {source} to {target} are not supported")
    return _cast(context.expr(node.inputs[0]), source, target)


def _cast(expr: Any, source: str, target: str) -> Any:
    if source == target:
        return expr
    if target == "bool":
        return relax.op.not_equal(expr, scalar(0, source))
    return relax.op.astype(expr, target)


@converter("PRelu")
def prelu(context: Context, node: Node) -> Any:
    """PRelu-16: x where x >= 0, else slope * x; a slope per channel stays a high-level operator."""
    x, slope = context.expr(node.inputs[0]), node.inputs[1]
    rank, shape = len(context.shape(node.inputs[0])), context.shape(slope)
    wide = [i for i, d in enumerate(shape) if not context.algebra.equal(d, 1)]
    value = context.value(slope)
    if value is not None and len(wide) == 1:
        axis = wide[0] + rank - len(shape)
        return relax.op.nn.prelu(x, constant(value.reshape(-1)), axis)
    zero = scalar(0, context.dtype(node.inputs[0]))
    return relax.op.where(relax.op.less(x, zero), relax.op.multiply(x, context.expr(slope)), x)


@converter("LeakyRelu")
def leaky_relu(context: Context, node: Node) -> Any:
    """LeakyRelu-16."""
    return relax.op.nn.leakyrelu(context.expr(node.inputs[0]), context.attrs(node)["alpha"])


@converter("ThresholdedRelu")
def thresholded_relu(context: Context, node: Node) -> Any:
    """ThresholdedRelu-22: x where x > alpha, else 0."""
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    above = relax.op.greater(x, scalar(context.attrs(node)["alpha"], dtype))
    return relax.op.where(above, x, scalar(0.0, dtype))


@converter("IsInf")
def is_inf(context: Context, node: Node) -> Any:
    """IsInf-20, either sign or one of them."""
    attrs = context.attrs(node)
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    tests = [
        relax.op.equal(x, scalar(sign * float("inf"), dtype))
        for sign, wanted in ((1, attrs["detect_positive"]), (-1, attrs["detect_negative"]))
        if wanted
    ]
    if not tests:
        return relax.op.full(sizes(context.shape(node.inputs[0])), scalar(False, "bool"), "bool")
    return tests[0] if len(tests) == 1 else relax.op.logical_or(*tests)


@converter("Dropout")
def dropout(context: Context, node: Node) -> list[Any]:
    """Dropout-22 at inference: the input, and a mask of True."""
    shape = context.shape(node.inputs[0])
    mask = relax.op.full(sizes(shape), scalar(True, "bool"), "bool")
    return [context.expr(node.inputs[0]), mask][: len(node.outputs)]
