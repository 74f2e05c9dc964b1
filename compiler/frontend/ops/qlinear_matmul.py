"""Matrix products of 8-bit integers with quantized results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax

from ..context import scalar
from ..quantization import dequantized, dequantized_bias, quantized
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("QLinearMatMul")
def qlinear_matmul(context: Context, node: Node) -> Any:
    """QLinearMatMul-21; parameters per tensor, per row of the first or per column of the second operand."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    a_rank, b_rank = len(context.shape(a)), len(context.shape(b))
    left = dequantized(context, a, a_scale, a_zero, max(a_rank - 2, 0))
    right = dequantized(context, b, b_scale, b_zero, b_rank - 1)
    y = context.emit(relax.op.matmul(left, right))
    return quantized(context, y, y_scale, y_zero, max(len(y.ty.shape) - 2, 0))


@converter("QGemm", domain="com.microsoft")
def qgemm(context: Context, node: Node) -> Any:
    """com.microsoft QGemm-1: alpha·op(A)·op(B) + C, C int32 in the scale of the sums; float32 without y_scale."""
    a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
    left = dequantized(context, a, a_scale, a_zero, 0)
    right = dequantized(context, b, b_scale, b_zero, 0 if node.attrs.get("transB", 0) else 1)
    if node.attrs.get("transA", 0):
        left = context.emit(relax.op.permute_dims(left))
    if node.attrs.get("transB", 0):
        right = context.emit(relax.op.permute_dims(right))
    y = context.emit(relax.op.matmul(left, right))
    if node.input(6):
        y = context.emit(relax.op.add(y, dequantized_bias(context, node.inputs[6], a_scale, b_scale)))
    alpha = node.attrs.get("alpha", 1.0)
    if alpha != 1.0:
        y = context.emit(relax.op.multiply(y, scalar(alpha, "float32")))
    return quantized(context, y, node.inputs[7], node.input(8)) if node.input(7) else y
