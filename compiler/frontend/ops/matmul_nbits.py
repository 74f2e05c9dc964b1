"""Weights of few bits, dequantized at build time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("MatMulNBits", domain="com.microsoft")
def matmul_nbits(e: Expansion) -> None:
    """com.microsoft MatMulNBits-1: (A, B, scales, zero_points, g_idx, bias), B of 2, 4 or 8 bits in blocks along K.

    The weights become float32 here: products with many rows then run as fast as float ones, and unpacking them in
    the kernel would have to be paid on every run.
    """
    a, b, scales, zeros = (e.input(i) for i in range(4))
    K, N, block, bits = (e.attr(name, 4) for name in ("K", "N", "block_size", "bits"))
    packed, scale, zero = e.value(b), e.value(scales), e.value(zeros) if zeros else None
    if packed is None or scale is None or (zeros and zero is None):
        raise CannotConvert("its weights, scales and zero points must be constant")
    if e.input(4) or e.attr("weight_prepacked", 0) or bits not in (2, 4, 8):
        raise CannotConvert("g_idx, prepacked weights and other widths than 2, 4 and 8 bits are not supported")
    blocks = -(-K // block)
    integers = _unpacked(packed.reshape(N, -1), bits)[:, : blocks * block].reshape(N, blocks, block)
    if zero is None:
        centre = np.full((N, blocks, 1), 1 << (bits - 1), np.float32)
    elif zero.dtype == np.uint8:
        centre = _unpacked(zero.reshape(N, -1), bits)[:, :blocks].reshape(N, blocks, 1).astype(np.float32)
    else:
        centre = zero.astype(np.float32).reshape(N, blocks, 1)
    whole = (integers.astype(np.float32) - centre) * scale.astype(np.float32).reshape(N, blocks, 1)
    weights = np.ascontiguousarray(whole.reshape(N, -1)[:, :K].T).astype(e.dtype(a))
    out = e.node.outputs[0]
    y = e.op("MatMul", [a, e.constant(weights, "weights")], "" if e.input(5) else out)
    if e.input(5):
        e.op("Add", [y, e.input(5)], out)


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    """Bytes to the integers in them, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((rows[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(rows), -1)
