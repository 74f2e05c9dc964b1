"""Quantization by the range that a tensor has in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..diagnostics import CannotConvert
from ..quantization import dynamically_quantized
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("DynamicQuantizeLinear")
def dynamic_quantize(context: Context, node: Node) -> Any:
    """DynamicQuantizeLinear-11: x widened to hold 0, on 0..255."""
    if context.dtype(node.inputs[0]) != "float32":
        raise CannotConvert(f"quantization of {context.dtype(node.inputs[0])} is not supported")
    return list(dynamically_quantized(context, context.expr(node.inputs[0])))
