"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant, scalar
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("MatMul")
def matmul(context: Context, node: Node) -> Any:
    """MatMul-13."""
    return _product(context, node, context.weight(node.inputs[0]), context.weight(node.inputs[1]))


@converter("Gemm")
def gemm(context: Context, node: Node) -> Any:
    """Gemm-13: alpha·op(A)·op(B) + beta·C; constant operands are transposed and scaled at build time."""
    attrs = context.attrs(node)
    a = _operand(context, node.inputs[0], attrs["transA"], 1.0)
    b = _operand(context, node.inputs[1], attrs["transB"], attrs["alpha"])
    y = _product(context, node, a, b)
    if node.input(2) and attrs["beta"] != 0.0:
        y = relax.op.add(context.normalize(y), _operand(context, node.inputs[2], 0, attrs["beta"]))
    return y


def _product(context: Context, node: Node, a: Any, b: Any) -> Any:
    """a·b, summed in float32 where the operands are narrower."""
    dtype = context.dtype(node.inputs[0])
    if dtype not in ("float16", "bfloat16"):
        return relax.op.matmul(a, b)
    return relax.op.astype(context.emit(relax.op.matmul(a, b, out_dtype="float32")), dtype)


def _operand(context: Context, name: str, transposed: int, factor: float) -> Any:
    value = context.value(name)
    if value is not None and (transposed or factor != 1.0) and value.dtype.kind == "f" and not context.abstract(value):
        value = value.T if transposed else value
        return constant(np.ascontiguousarray(value * value.dtype.type(factor) if factor != 1.0 else value))
    x = context.weight(name)
    if transposed:
        x = context.emit(relax.op.permute_dims(x))
    if factor != 1.0:
        dtype = context.dtype(name)
        number = int(factor) if dtype.startswith(("int", "uint")) else factor
        x = context.emit(relax.op.multiply(x, scalar(number, dtype)))
    return x
