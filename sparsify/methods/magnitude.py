"""Magnitude pruning: the smallest weights go. Han et al., Learning both Weights and Connections (NeurIPS 2015)."""

from __future__ import annotations

import numpy as np

from .problem import Problem


def magnitude(problem: Problem) -> np.ndarray:
    """Keeps the largest |w|, of blocks the largest sums of |w|; inputs are not looked at."""
    return problem.weights * problem.pattern.mask(np.abs(problem.weights), problem.sparsity)
