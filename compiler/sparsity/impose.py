"""Magnitude pruning to a pattern: what a layer would look like, not how to get there with its accuracy."""

from __future__ import annotations

import numpy as np

PATTERNS = ("unstructured", "1x4", "2:4")
_BLOCK = 4


def impose(weights: np.ndarray, sparsity: float, pattern: str) -> np.ndarray:
    """`weights`[M, K] with its smallest values, or blocks of 4 along k, set to zero; 2:4 is 50 % whatever is asked.

    Where K is no multiple of 4 the blocks are single values.
    """
    if pattern == "unstructured" or weights.shape[1] % _BLOCK:
        size = np.abs(weights.astype(np.float32))
        return weights * (size >= np.quantile(size, sparsity))
    blocks = np.abs(weights.astype(np.float32)).reshape(len(weights), -1, _BLOCK)
    if pattern == "1x4":
        size = blocks.sum(2, keepdims=True)
        keep = np.broadcast_to(size >= np.quantile(size, sparsity), blocks.shape)
    else:
        keep = np.ones(blocks.shape, bool)
        np.put_along_axis(keep, np.argsort(blocks, axis=2)[:, :, :2], False, axis=2)
    return weights * keep.reshape(weights.shape)
