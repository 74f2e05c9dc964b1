"""onnxruntime's forms of GELU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("Gelu", "BiasGelu", domain="com.microsoft")
def bias_gelu(e: Expansion) -> None:
    """com.microsoft Gelu-1, BiasGelu-1: x·Φ(x), of the sum of both inputs where there are two."""
    e.op("Gelu", [_sum(e)], e.node.outputs[0])


@expander("FastGelu", domain="com.microsoft")
def fast_gelu(e: Expansion) -> None:
    """com.microsoft FastGelu-1: GELU by a tanh, of X plus an optional bias."""
    e.op("Gelu", [_sum(e)], e.node.outputs[0], approximate="tanh")


@expander("QuickGelu", domain="com.microsoft")
def quick_gelu(e: Expansion) -> None:
    """com.microsoft QuickGelu-1: x·sigmoid(alpha·x)."""
    x = e.input(0)
    inner = e.op("Mul", [x, e.scalar(e.attr("alpha", 1.702), x)])
    e.op("Mul", [x, e.op("Sigmoid", [inner])], e.node.outputs[0])


def _sum(e: Expansion) -> str:
    return e.op("Add", [e.input(0), e.input(1)]) if e.input(1) else e.input(0)
