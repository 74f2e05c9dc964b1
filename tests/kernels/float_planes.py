"""float32 images to planes and back, element by element as planes.py defines them."""

from __future__ import annotations

import numpy as np

from sparsec.codegen_templates.planes import Planes


def _element(planes: Planes, h: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(where the values lie in their plane, which of them are stored)."""
    y, x = h + planes.top, w + planes.left
    i, j = y % planes.stride_h, x % planes.stride_w
    at = (i * planes.phases_w + j) * planes.phase + y // planes.stride_h * planes.pitch + x // planes.stride_w
    return at, (i < planes.phases_h) & (j < planes.phases_w)


def to_planes(x: np.ndarray, planes: Planes) -> np.ndarray:
    """[N, C, H, W] -> [N, C, plane]; what readers must not use is NaN."""
    out = np.full((*x.shape[:2], planes.plane), np.nan, np.float32)
    for phase in range(planes.phases_h * planes.phases_w):
        out[..., phase * planes.phase : phase * planes.phase + planes.filled] = 0
    at, stored = _element(planes, *np.indices((planes.height, planes.width)))
    out[..., at[stored]] = x[..., stored]
    return out


def check_planes(got: np.ndarray, want: np.ndarray, planes: Planes, tolerance: float) -> None:
    """The values, and that everything else that readers take for padding is zero."""
    wanted = to_planes(want, planes)
    filled = ~np.isnan(wanted)
    assert np.abs(got - wanted)[filled].max() <= tolerance * max(np.abs(want).max(), 1e-30)
    zeros = to_planes(np.ones_like(want), planes) == 0
    assert (got[zeros] == 0).all(), "padding was not written"
