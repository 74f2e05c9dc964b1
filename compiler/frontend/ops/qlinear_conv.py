"""Convolutions of quantized tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("QLinearConv")
@expander("QLinearConv", domain="com.microsoft")
def qlinear_conv(e: Expansion) -> None:
    """QLinearConv-10: scales and zero points per tensor, the weight's also per output channel; an int32 bias."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = e.node.inputs[:8]
    attrs = dict(e.node.attrs)
    if attrs.pop("channels_last", 0):
        raise CannotConvert("channels_last is not supported; it is onnxruntime's own layout, save the model before it")
    inputs = [e.dequantize(x, x_scale, x_zero), e.dequantize(w, w_scale, w_zero)]
    if e.input(8):
        inputs.append(e.dequantize(e.input(8), _scale_of_sums(e, x_scale, w_scale), ""))
    e.quantize(e.op("Conv", inputs, **attrs), y_scale, y_zero)


def _scale_of_sums(e: Expansion, x_scale: str, w_scale: str) -> str:
    """The product of both scales."""
    x, w = e.value(x_scale), e.value(w_scale)
    if x is None or w is None:
        raise CannotConvert("its scales must be constant where it has a bias")
    product = (x.astype(np.float64).reshape(-1) * w.astype(np.float64).reshape(-1)).astype(np.float32)
    return e.constant(product.reshape(() if product.size == 1 else -1), "bias_scale")
