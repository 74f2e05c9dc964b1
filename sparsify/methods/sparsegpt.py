"""SparseGPT: columns are pruned one after the other, the later ones make up for it.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot (ICML 2023); the update is
that of Optimal Brain Surgeon, the order and the blocked Cholesky factor are those of the paper.
"""

from __future__ import annotations

import numpy as np

from ..patterns import smallest_removed
from .problem import Problem

_BLOCK = 128
"""Columns whose mask is chosen together."""


def inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """Upper triangular U with H⁻¹ = Uᵀ U: row j holds what column j asks of the later ones."""
    # H = J L Lᵀ J with J reversing the order gives it without forming H⁻¹
    lower = np.linalg.cholesky(hessian[::-1, ::-1])
    return np.linalg.inv(lower)[::-1, ::-1].copy()


def sparsegpt(problem: Problem) -> np.ndarray:
    """Masks by w² / [U]ⱼⱼ² within blocks of 128 columns, errors spread over the columns to the right."""
    W = problem.weights.copy()
    M, K = W.shape
    U = inverse_factor(problem.damped())
    pattern = problem.pattern
    width = max(_BLOCK // pattern.columns, 1) * pattern.columns
    # a share that a block cannot meet exactly is made up by the next
    removed = 0
    for begin in range(0, K, width):
        end = min(begin + width, K)
        block, factor = W[:, begin:end].copy(), U[begin:end, begin:end]
        scores = (block / np.diag(factor)) ** 2
        if pattern.keep:
            mask = np.ones(scores.shape, bool)
        else:
            pooled = pattern.pool(scores)
            goal = round(problem.sparsity * M * end / pattern.rows / pattern.columns)
            mask = pattern.spread(smallest_removed(pooled, (goal - removed) / pooled.size))
            removed = goal
        errors = np.zeros_like(block)
        for j in range(end - begin):
            if pattern.keep and j % pattern.columns == 0:
                group = slice(j, j + pattern.columns)
                now = (block[:, group] / np.diag(factor)[group]) ** 2
                mask[:, group] = pattern.mask(now, 0)
            kept = block[:, j] * mask[:, j]
            errors[:, j] = (block[:, j] - kept) / factor[j, j]
            block[:, j:] -= np.outer(errors[:, j], factor[j, j:])
            block[:, j] = kept
        W[:, begin:end] = block
        W[:, end:] -= errors @ U[begin:end, end:]
    return W
