"""Matrix products of 8-bit integers whose results are not quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..quantization import centred, dequantized, dynamically_quantized
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("MatMulInteger")
def matmul_integer(context: Context, node: Node) -> Any:
    """MatMulInteger-10, int32; zero points per tensor, per row of the first or per column of the second operand."""
    a = centred(context, node.inputs[0], node.input(2), -2)
    b = centred(context, node.inputs[1], node.input(3), -1)
    return relax.op.matmul(a, b)


@converter("MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer_to_float(context: Context, node: Node) -> Any:
    """com.microsoft MatMulIntegerToFloat-1: (A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias)."""
    a, b, a_scale, b_scale = node.inputs[:4]
    rank = len(context.shape(b))
    left = dequantized(context, a, a_scale, node.input(4), len(context.shape(a)) - 2)
    right = dequantized(context, b, b_scale, node.input(5), rank - 1)
    return _with_bias(context, relax.op.matmul(left, right), node.input(6))


@converter("DynamicQuantizeMatMul", domain="com.microsoft")
def dynamic_quantize_matmul(context: Context, node: Node) -> Any:
    """com.microsoft DynamicQuantizeMatMul-1: (A float32, B, b_scale, b_zero_point, bias)."""
    a, b, b_scale = node.inputs[:3]
    q, scale, zero = dynamically_quantized(context, context.expr(a))
    left = context.emit(relax.op.dequantize(q, scale, zero))
    right = dequantized(context, b, b_scale, node.input(3), len(context.shape(b)) - 1)
    return _with_bias(context, relax.op.matmul(left, right), node.input(4))


def _with_bias(context: Context, y: Any, bias: str) -> Any:
    return relax.op.add(context.emit(y), context.weight(bias)) if bias else y
