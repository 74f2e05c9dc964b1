"""onnxruntime's layer normalization of a sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_norm(e: Expansion) -> None:
    """com.microsoft SkipLayerNormalization-1: (input, skip, gamma, beta, bias); the fourth output is the sum."""
    total = _sum(e, e.input(4))
    norm = [total, e.input(2), *([e.input(3)] if e.input(3) else [])]
    e.op("LayerNormalization", norm, e.node.outputs[0], axis=-1, epsilon=e.attr("epsilon", 1e-12))


@expander("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_rms_norm(e: Expansion) -> None:
    """com.microsoft SkipSimplifiedLayerNormalization-1: (input, skip, gamma, bias), without a mean."""
    total = _sum(e, e.input(3))
    e.op("RMSNormalization", [total, e.input(2)], e.node.outputs[0], axis=-1, epsilon=e.attr("epsilon", 1e-12))


@expander("SimplifiedLayerNormalization")
@expander("SimplifiedLayerNormalization", domain="com.microsoft")
def rms_norm(e: Expansion) -> None:
    """SimplifiedLayerNormalization-1 of onnxruntime: (X, scale)."""
    e.without_outputs(1, "second output")
    attrs = {"axis": e.attr("axis", -1), "epsilon": e.attr("epsilon", 1e-5)}
    e.op("RMSNormalization", [e.input(0), e.input(1)], e.node.outputs[0], **attrs)


def _sum(e: Expansion, bias: str) -> str:
    outputs = e.node.outputs + [""] * 4
    if outputs[1] or outputs[2]:
        raise CannotConvert("its outputs mean and inv_std_var are not supported")
    if not bias:
        return e.op("Add", [e.input(0), e.input(1)], outputs[3])
    return e.op("Add", [e.op("Add", [e.input(0), e.input(1)]), bias], outputs[3])
