"""ALPS: the layer's least-squares problem with its constraint on zeros, by operator splitting.

Meng, Behdin, Wang, Mazumder: ALPS, Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models
(NeurIPS 2024). Masks are chosen for the whole layer at once, not block by block.
"""

from __future__ import annotations

import numpy as np

from .problem import Problem, refit

_ITERATIONS = 300
_CHECK = 3
"""Iterations between two looks at how much of the mask still changes."""
_SETTLED = 1e-3
"""Share of the mask that may still change at the end; the refit finds the best weights for it anyway."""
_PENALTY = 0.1
"""First penalty, relative to the mean of the Hessian's diagonal, which is scaled to 1."""


def alps(problem: Problem) -> np.ndarray:
    """Alternates a ridge regression and a projection on the pattern with a growing penalty, then refits the support.

    Columns are scaled to unit second moment first, so that the projection compares what weights do to the output.
    """
    H = problem.damped()
    scale = np.sqrt(np.diag(H))
    H = (H / np.outer(scale, scale)).astype(np.float32)
    W = (problem.weights * scale).astype(np.float32)
    values, vectors = np.linalg.eigh(H)
    target = W @ H
    V, dual = W, np.zeros_like(W)
    penalty = np.float32(_PENALTY)
    mask = problem.pattern.mask(W**2, problem.sparsity)
    before = mask
    for i in range(_ITERATIONS):
        ridge = ((target - dual + penalty * V) @ vectors / (values + penalty)) @ vectors.T
        candidate = ridge + dual / penalty
        mask = problem.pattern.mask(candidate**2, problem.sparsity)
        V = candidate * mask
        dual = dual + penalty * (ridge - V)
        if i % _CHECK == _CHECK - 1:
            changed = float(np.sum(mask != before) / np.sum(mask)) if mask.any() else 0.0
            before = mask
            if changed <= _SETTLED:
                break
            penalty *= np.float32(1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1)
    return refit(W, mask, H).astype(np.float64) / scale
