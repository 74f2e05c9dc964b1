"""Quantized planes to and from NCHW, in numpy."""

from __future__ import annotations

import numpy as np

from sparsec.codegen_templates.qplanes import GROUP, Planes, groups


def _places(planes: Planes):
    """(flat position in a plane, row, column of the image) of every value that a phase holds."""
    for p, (i, j) in enumerate(planes.phases):
        for h in range(planes.height):
            row, over = divmod(h + planes.top - i, planes.strides[0])
            if over:
                continue
            for w in range(planes.width):
                column, over = divmod(w + planes.left - j, planes.strides[1])
                if not over and column < planes.pitch:
                    at = planes.lead + row * planes.pitch + column
                    if planes.lead + (row + 1) * planes.pitch <= planes.positions:
                        yield p * planes.positions + at, h, w


def to_planes(x: np.ndarray, planes: Planes, zero: int) -> np.ndarray:
    """u8 [N, C, H, W] to planes; padding is the zero point, and so are channels that fill up a group."""
    n, c = x.shape[:2]
    out = np.full((n, groups(c) * GROUP, planes.plane), zero, np.uint8)
    for at, h, w in _places(planes):
        out[:, :c, at] = x[:, :, h, w]
    return np.ascontiguousarray(out.reshape(n, groups(c), GROUP, planes.plane).transpose(0, 1, 3, 2))


def from_planes(y: np.ndarray, planes: Planes, channels: int) -> np.ndarray:
    """u8 planes to [N, C, H, W]."""
    n = len(y)
    flat = y.transpose(0, 1, 3, 2).reshape(n, -1, planes.plane)
    out = np.zeros((n, channels, planes.height, planes.width), np.uint8)
    for at, h, w in _places(planes):
        out[:, :, h, w] = flat[:, :channels, at]
    return out


def check_padding(y: np.ndarray, planes: Planes, zero: int) -> None:
    """Every position that holds no value of the image is the zero point."""
    used = np.zeros(planes.plane, bool)
    used[[at for at, _, _ in _places(planes)]] = True
    assert (y[:, :, ~used] == zero).all()
