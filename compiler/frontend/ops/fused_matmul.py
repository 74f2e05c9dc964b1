"""onnxruntime's matrix product with transposes and a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def fused_matmul(e: Expansion) -> None:
    """com.microsoft FusedMatMul-1: alpha·op(A)·op(B); `transBatch` moves the first dimension behind the batch."""
    a = _operand(e, e.input(0), e.attr("transA", 0), e.attr("transBatchA", 0))
    b = _operand(e, e.input(1), e.attr("transB", 0), e.attr("transBatchB", 0))
    alpha = e.attr("alpha", 1.0)
    out = e.node.outputs[0]
    y = e.op("MatMul", [a, b], out if alpha == 1.0 else "")
    if alpha != 1.0:
        e.op("Mul", [y, e.scalar(alpha, e.input(0))], out)


def _operand(e: Expansion, x: str, transposed: int, batch_transposed: int) -> str:
    rank = len(e.shape(x))
    axes = list(range(rank))
    if batch_transposed and rank > 2:
        axes = [*axes[1:-1], 0, axes[-1]]
    if transposed and rank > 1:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return x if axes == sorted(axes) else e.op("Transpose", [x], perm=axes)
