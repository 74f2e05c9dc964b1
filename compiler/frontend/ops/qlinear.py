"""Operators between quantized tensors: each is its float operator between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion

_MICROSOFT = "com.microsoft"


@expander("QLinearAdd", "QLinearMul", domain=_MICROSOFT)
def binary(e: Expansion) -> None:
    """com.microsoft QLinearAdd-1, QLinearMul-1: (A, scale, zero, B, scale, zero, scale, zero)."""
    a = e.dequantize(e.input(0), e.input(1), e.input(2))
    b = e.dequantize(e.input(3), e.input(4), e.input(5))
    e.quantize(e.op(e.node.op_type.removeprefix("QLinear"), [a, b]), e.input(6), e.input(7))


@expander("QLinearSigmoid", "QLinearLeakyRelu", domain=_MICROSOFT)
def unary(e: Expansion) -> None:
    """com.microsoft QLinearSigmoid-1, QLinearLeakyRelu-1: (X, scale, zero, scale, zero)."""
    x = e.dequantize(e.input(0), e.input(1), e.input(2))
    e.quantize(e.op(e.node.op_type.removeprefix("QLinear"), [x], **e.node.attrs), e.input(3), e.input(4))


@expander("QLinearSoftmax", domain=_MICROSOFT)
def softmax(e: Expansion) -> None:
    """com.microsoft QLinearSoftmax-1; `opset` says whether axes from `axis` on are one row."""
    x = e.dequantize(e.input(0), e.input(1), e.input(2))
    y = e.op("Softmax", [x], version=e.attr("opset", 13), axis=e.attr("axis", -1))
    e.quantize(y, e.input(3), e.input(4))


@expander("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", domain=_MICROSOFT)
def average(e: Expansion) -> None:
    """com.microsoft QLinearAveragePool-1, QLinearGlobalAveragePool-1, QLinearReduceMean-1."""
    attrs = dict(e.node.attrs)
    if attrs.pop("channels_last", 0):
        raise CannotConvert("channels_last is not supported; it is onnxruntime's own layout, save the model before it")
    inputs = [e.dequantize(e.input(0), e.input(1), e.input(2))]
    if "axes" in attrs:
        inputs.append(e.ints(attrs.pop("axes")))
    e.quantize(e.op(e.node.op_type.removeprefix("QLinear"), inputs, **attrs), e.input(3), e.input(4))


@expander("QLinearConcat", domain=_MICROSOFT)
def concat(e: Expansion) -> None:
    """com.microsoft QLinearConcat-1: (scale, zero, then tensor, scale, zero of each part)."""
    inputs = e.node.inputs
    parts = [e.dequantize(inputs[i], inputs[i + 1], inputs[i + 2]) for i in range(2, len(inputs), 3)]
    e.quantize(e.op("Concat", parts, axis=e.attr("axis", 0)), e.input(0), e.input(1))


@expander("QLinearWhere", domain=_MICROSOFT)
def where(e: Expansion) -> None:
    """com.microsoft QLinearWhere-1: (condition, X, scale, zero, Y, scale, zero, scale, zero)."""
    x = e.dequantize(e.input(1), e.input(2), e.input(3))
    y = e.dequantize(e.input(4), e.input(5), e.input(6))
    e.quantize(e.op("Where", [e.input(0), x, y]), e.input(7), e.input(8))
