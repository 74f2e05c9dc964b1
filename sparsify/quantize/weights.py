"""Weights to int8: one symmetric scale per output, and roundings that keep the layer's output rather than the weight.

Every rounding keeps zeros: a weight that was pruned stays exactly 0, and no other moves to make up for it but those of
its own row that are not pruned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..methods.sparsegpt import inverse_factor

LIMIT = 127
"""Of |q|; -128 is left out, so that a symmetric range stays one."""
_SHRINK = np.linspace(0.7, 1.0, 16)
_SWEEPS = 4
_BLOCK = 64
"""Columns of a coordinate descent whose gradients are brought up to date together."""


def scales(weights: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """[M] float32: per row the scale with the least squared error, columns weighted by `importance`[K]."""
    largest = np.abs(weights).max(1)
    best = np.where(largest > 0, largest / LIMIT, 1.0)
    least = np.full(len(weights), np.inf)
    for share in _SHRINK:
        trial = np.where(largest > 0, largest * share / LIMIT, 1.0)
        wrong = ((nearest(weights, trial) * trial[:, None] - weights) ** 2 * importance).sum(1)
        better = wrong < least
        best, least = np.where(better, trial, best), np.where(better, wrong, least)
    return best.astype(np.float32)


def nearest(weights: np.ndarray, scale: np.ndarray, hessian: np.ndarray | None = None) -> np.ndarray:
    """Round half to even, saturated; int8 values as float64."""
    return np.clip(np.rint(weights / scale[:, None]), -LIMIT, LIMIT)


def obq(weights: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Column by column, the error is spread over the row's later weights (Frantar and Alistarh, Optimal Brain
    Compression, NeurIPS 2022, in the column order of their GPTQ, ICLR 2023)."""
    W = weights.astype(np.float64).copy()
    mask = weights != 0
    U = inverse_factor(hessian)
    q = np.zeros_like(W)
    for j in range(W.shape[1]):
        q[:, j] = np.clip(np.rint(W[:, j] / scale), -LIMIT, LIMIT) * mask[:, j]
        error = (W[:, j] - q[:, j] * scale) / U[j, j]
        W[:, j + 1 :] -= np.outer(error, U[j, j + 1 :]) * mask[:, j + 1 :]
    return q


def quantease(weights: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Coordinate descent on the layer's squared error over the grid itself (Behdin et al., QuantEase, 2023).

    Starts from the nearest integers; a column's step is the exact optimum given all others, so that no sweep makes the
    error larger.
    """
    W = weights.astype(np.float64)
    mask = weights != 0
    q = nearest(W, scale)
    diagonal = np.diag(hessian)
    for _ in range(_SWEEPS):
        before = q.copy()
        gradient = (q * scale[:, None] - W) @ hessian
        for begin in range(0, W.shape[1], _BLOCK):
            block = slice(begin, begin + _BLOCK)
            local = hessian[block, block]
            moved = np.zeros_like(gradient[:, block])
            for j in range(moved.shape[1]):
                k = begin + j
                best = q[:, k] * scale - gradient[:, k] / diagonal[k]
                new = np.clip(np.rint(best / scale), -LIMIT, LIMIT) * mask[:, k]
                moved[:, j] = (new - q[:, k]) * scale
                q[:, k] = new
                gradient[:, block] += np.outer(moved[:, j], local[j])
            after = slice(begin + _BLOCK, None)
            gradient[:, after] += moved @ hessian[block, after]
        if np.array_equal(before, q):
            break
    return q


ROUNDINGS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "nearest": nearest,
    "obq": obq,
    "quantease": quantease,
}
