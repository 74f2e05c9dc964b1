"""Wanda: a weight counts by its size times its input's. Sun et al., A Simple and Effective Pruning Approach for Large
Language Models (ICLR 2024)."""

from __future__ import annotations

import numpy as np

from ..patterns import smallest_removed
from .problem import Problem


def wanda(problem: Problem) -> np.ndarray:
    """Keeps the largest |w| · ‖x‖₂, compared within each output as the paper does; the other weights stay as they are.

    Blocks of several rows are compared within their rows of blocks.
    """
    scores = np.abs(problem.weights) * np.sqrt(np.diag(problem.hessian))
    pattern = problem.pattern
    if pattern.keep:
        return problem.weights * pattern.mask(scores, problem.sparsity)
    pooled = pattern.pool(scores)
    kept = np.stack([smallest_removed(row, problem.sparsity) for row in pooled])
    return problem.weights * pattern.spread(kept)
