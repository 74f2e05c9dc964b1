"""Quantized convolutions: random operands, and their sums by numpy."""

from __future__ import annotations

import numpy as np

from sparsec.codegen_templates import integer, qplanes
from sparsec.codegen_templates.qplanes import Geometry


def sums(x: np.ndarray, zero: int, w: np.ndarray, window: Geometry) -> np.ndarray:
    """int32 [N, O, OH, OW], exact."""
    top, left, bottom, right = window.padding
    (sh, sw), (dh, dw), (kh, kw) = window.strides, window.dilation, window.kernel
    padded = np.pad(x.astype(np.int64) - zero, ((0, 0), (0, 0), (top, bottom), (left, right)))
    oh = (padded.shape[2] - (kh - 1) * dh - 1) // sh + 1
    ow = (padded.shape[3] - (kw - 1) * dw - 1) // sw + 1
    total = np.zeros((len(x), len(w), oh, ow), np.int64)
    for i in range(kh):
        for j in range(kw):
            part = padded[:, :, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
            total += np.einsum("nchw,oc->nohw", part, w[:, :, i, j].astype(np.int64))
    return integer.wrapped(total)


def case(
    rng,
    n,
    c,
    o,
    size,
    window: Geometry,
    zero: int,
    density: float,
    extreme: bool = False,
    block: int = 4,
    most: int = 0,
):
    """(x, weights, their sums, output size, pitch); weights are not zero in blocks of so many channels.

    `most`: or `most` of every eight at random, for which `density` does not count.
    """
    low = rng.choice([0, 255], (n, c, *size)) if extreme else rng.integers(0, 256, (n, c, *size))
    w = rng.choice([-128, 127], (o, c, *window.kernel)) if extreme else rng.integers(-127, 128, (o, c, *window.kernel))
    blocks = rng.random((o, -(-c // block), *window.kernel)) < density
    kept = np.repeat(blocks, block, axis=1)
    if most:
        kept = (
            rng.random((o, -(-c // 8), 8, *window.kernel)).argsort(2).argsort(2).reshape(o, -1, *window.kernel) < most
        )
    w = (w * kept[:, :c]).astype(np.int8)
    total = sums(low.astype(np.uint8), zero, w, window)
    out = total.shape[2:]
    pitch = qplanes.pitch_for(window, size[1], out[1])
    return low.astype(np.uint8), w, total, out, pitch
