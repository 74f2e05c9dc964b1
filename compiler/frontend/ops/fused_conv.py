"""onnxruntime's convolution with an addend and an activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import expander
from .fused_activation import activate

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("FusedConv", domain="com.microsoft")
def fused_conv(e: Expansion) -> None:
    """com.microsoft FusedConv-1: activation(Conv(X, W, B) + Z)."""
    attrs = {k: v for k, v in e.node.attrs.items() if not k.startswith("activation")}
    y = e.op("Conv", [name for name in (e.input(0), e.input(1), e.input(2)) if name], **attrs)
    if e.input(3):
        y = e.op("Add", [y, e.input(3)])
    activate(e, y, e.attr("activation", ""), e.attr("activation_params", []))
