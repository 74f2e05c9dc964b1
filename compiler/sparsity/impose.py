"""Magnitude pruning to a pattern: what a layer would look like, not how to get there with its accuracy."""

from __future__ import annotations

import numpy as np

PATTERNS = ("unstructured", "1x4", "4x1", "2x4", "4x4", "16x4", "2:4", "4:8")


def impose(weights: np.ndarray, sparsity: float, pattern: str) -> np.ndarray:
    """`weights`[M, K] with its smallest values, or blocks of RxC, set to zero; N:M keeps N of M whatever is asked.

    Where the matrix is not made of whole blocks they are single values.
    """
    size = np.abs(weights.astype(np.float32))
    if ":" in pattern:
        kept, group = map(int, pattern.split(":"))
        if weights.shape[1] % group:
            return weights * (size >= np.quantile(size, 1 - kept / group))
        grouped = size.reshape(len(weights), -1, group)
        keep = np.ones(grouped.shape, bool)
        np.put_along_axis(keep, np.argsort(grouped, axis=2)[:, :, : group - kept], False, axis=2)
        return weights * keep.reshape(weights.shape)
    rows, columns = (1, 1) if pattern == "unstructured" else map(int, pattern.split("x"))
    M, K = weights.shape
    if M % rows or K % columns:
        rows = columns = 1
    sums = size.reshape(M // rows, rows, K // columns, columns).sum((1, 3))
    return weights * (sums >= np.quantile(sums, sparsity)).repeat(rows, 0).repeat(columns, 1)
