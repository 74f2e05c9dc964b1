"""What integer layers compute, in numpy: the one definition that kernels of every ISA give bit for bit.

Real numbers are scale * (integer - zero point). Sums are exact modulo 2^32, everything after them is a chain of single
float32 operations, none fused, none reordered:

    total = Σ (x - zx)(w - zw) + bias      int32; bias where the model has it as int32
    y     = float32(total) * multiplier    multiplier = float32(double(sx) * sw), or that divided by sy
    y     = y + b                          where the bias is float
    q     = saturate(round_half_even(y * inverse) + zy),    inverse = 1 / sy, or 1 where the multiplier has it

A QuantizeLinear that no layer took with it divides by sy, as ONNX says it: the two differ only where y / sy lies within
a rounding of the middle between two integers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def wrapped(total: Array) -> Array:
    """int64 sums modulo 2^32, as int32."""
    return np.asarray(total, np.int64).astype(np.uint32).view(np.int32)


def accumulate(x: Array, x_zero: Array | int, w: Array, w_zero: Array | int, bias: Array | int = 0) -> Array:
    """int32 [..., N] of x[..., K] and w[..., K, N], 8-bit integers; zero points broadcast against their tensor."""
    left = x.astype(np.int64) - np.asarray(x_zero, np.int64)
    right = w.astype(np.int64) - np.asarray(w_zero, np.int64)
    return wrapped(np.matmul(left, right) + np.asarray(bias, np.int64))


def multiplier(x_scale: Array | float, w_scale: Array | float, y_scale: float = 1.0) -> Array:
    """float32(double(sx) * sw / sy)."""
    return (np.asarray(x_scale, np.float64) * np.asarray(w_scale, np.float64) / np.float64(y_scale)).astype(np.float32)


def rescale(total: Array, factor: Array | float) -> Array:
    """float32 of sums; a float bias is added to it in a step of its own."""
    return total.astype(np.float32) * np.asarray(factor, np.float32)


def inverse(scale: float) -> np.float32:
    """What a quantization multiplies by: the reciprocal, rounded once."""
    return np.float32(np.float32(1) / np.float32(scale))


def quantize(y: Array, factor: float, zero: int, dtype: str) -> Array:
    """float32 to 8 bits: saturate(round_half_even(y * factor) + zero); NaN becomes the lowest integer."""
    return _saturated(np.asarray(y, np.float32) * np.float32(factor), zero, dtype)


def quantize_linear(y: Array, scale: float, zero: int, dtype: str) -> Array:
    """QuantizeLinear on its own: saturate(round_half_even(y / scale) + zero)."""
    return _saturated(np.asarray(y, np.float32) / np.float32(scale), zero, dtype)


def _saturated(steps: Array, zero: int, dtype: str) -> Array:
    limits = np.iinfo(dtype)
    low, high = np.float32(limits.min - zero), np.float32(limits.max - zero)
    steps = np.where(steps > low, np.minimum(steps, high), low)
    return (np.rint(steps) + np.float32(zero)).astype(dtype)


def dequantize(q: Array, scale: Array | float, zero: Array | int) -> Array:
    """Integers to float32."""
    return (q.astype(np.int32) - np.asarray(zero, np.int32)).astype(np.float32) * np.asarray(scale, np.float32)


def round_trip(y: Array, scale: float, zero: int, dtype: str) -> Array:
    """float32 to 8 bits and back."""
    return dequantize(quantize(y, float(inverse(scale)), zero, dtype), scale, zero)


def table(function: Callable[[Array], Array], x: tuple[float, int, str], y: tuple[float, int, str]) -> Array:
    """A unary function between two quantized tensors, (scale, zero point, dtype) each: entry of the byte b.

    Signed bytes are found under their bit pattern.
    """
    scale, zero, dtype = x
    values = dequantize(np.arange(256, dtype=np.uint8).view(dtype), scale, zero)
    with np.errstate(all="ignore"):
        results = np.asarray(function(values.astype(np.float64)), np.float32)
    return quantize(results, float(inverse(y[0])), y[1], y[2]).view(np.uint8)


def dynamic_parameters(x: Array) -> tuple[np.float32, np.uint8]:
    """(scale, zero point) of DynamicQuantizeLinear-11: the range of x, widened to hold 0, on 0..255."""
    low, high = np.float32(min(float(x.min()), 0.0)), np.float32(max(float(x.max()), 0.0))
    scale = np.float32((high - low) / np.float32(255))
    if scale == 0:
        return np.float32(1), np.uint8(0)
    return scale, np.uint8(np.clip(np.rint(np.float32(-low / scale)), 0, 255))
