"""Seeded weights with a pattern of zeros."""

from __future__ import annotations

import numpy as np


def pruned(rng: np.random.Generator, out: int, k: int, sparsity: float, pattern: str) -> np.ndarray:
    """float32 [out, k]: `pattern` is `dense`, `unstructured`, `1x4` (along k) or `2:4`.

    Scaled so that the product with a unit-variance vector has unit variance.
    """
    w = rng.standard_normal((out, k)).astype(np.float32)
    mask = np.ones((out, k), bool)
    if pattern == "unstructured":
        mask = np.abs(w) >= np.quantile(np.abs(w), sparsity)
    elif pattern == "1x4":
        blocks = np.abs(w).reshape(out, k // 4, 4).sum(2)
        mask = np.repeat(blocks >= np.quantile(blocks, sparsity), 4, axis=1)
    elif pattern == "2:4":
        order = np.argsort(np.abs(w).reshape(out, k // 4, 4), axis=2)
        mask = np.ones((out, k // 4, 4), bool)
        np.put_along_axis(mask, order[:, :, :2], False, axis=2)
        mask = mask.reshape(out, k)
    elif pattern != "dense":
        raise ValueError(f"unknown pattern {pattern!r}")
    w *= mask
    return w / np.float32(np.sqrt(max(np.square(w).sum() / out, 1e-9)))
