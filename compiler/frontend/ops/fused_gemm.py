"""onnxruntime's Gemm with an activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import expander
from .fused_activation import activate

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("FusedGemm", domain="com.microsoft")
def fused_gemm(e: Expansion) -> None:
    """com.microsoft FusedGemm-1: an activation of Gemm."""
    attrs = {k: v for k, v in e.node.attrs.items() if not k.startswith("activation")}
    parameters = [e.node.attrs[n] for n in _PARAMETERS if n in e.node.attrs]
    activate(e, e.op("Gemm", e.node.inputs, **attrs), e.attr("activation", ""), parameters)


_PARAMETERS = ("activation_alpha", "activation_beta", "activation_gamma")
