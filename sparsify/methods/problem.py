"""One layer's pruning problem: weights, the second moments of its inputs, and how much must go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..patterns import Pattern


@dataclass(frozen=True)
class Problem:
    """Minimize tr((V - W) H (V - W)ᵀ) over matrices V[M, K] with the pattern's zeros."""

    weights: np.ndarray
    """W, [M, K], float64."""
    hessian: np.ndarray
    """H = E[x xᵀ], [K, K], float64, positive semidefinite."""
    sparsity: float
    pattern: Pattern = field(default_factory=Pattern)
    damping: float = 0.01
    """Added to the diagonal of H, relative to its mean."""

    def damped(self) -> np.ndarray:
        """H made positive definite; inputs that are always zero get a diagonal too."""
        H = self.hessian.copy()
        mean = float(np.mean(np.diag(H))) or 1.0
        H[np.diag_indices_from(H)] += self.damping * mean
        return H

    def error(self, weights: np.ndarray) -> float:
        """tr((V - W) H (V - W)ᵀ) / tr(W H Wᵀ): squared output error relative to the output."""
        scale = quadratic(self.weights, self.hessian)
        return quadratic(weights - self.weights, self.hessian) / scale if scale > 0 else 0.0


def quadratic(delta: np.ndarray, hessian: np.ndarray) -> float:
    """tr(D H Dᵀ)."""
    return float(np.sum((delta @ hessian) * delta))


def refit(weights: np.ndarray, mask: np.ndarray, hessian: np.ndarray, iterations: int = 40) -> np.ndarray:
    """The least-squares weights on the mask's support, close to `weights` on all of K.

    Conjugate gradients on all rows at once, preconditioned by the diagonal, projected on the support: Meng et al.,
    ALPS (NeurIPS 2024), section 3.3. Starts from the masked weights, and never returns worse ones.
    """
    target = weights @ hessian
    inverse = 1 / np.maximum(np.diag(hessian), 1e-12)
    V = weights * mask
    residual = (target - V @ hessian) * mask
    step = residual * inverse
    direction = step
    rho = np.sum(residual * step, axis=1, keepdims=True)
    first = float(rho.sum())
    for _ in range(iterations):
        if float(rho.sum()) <= 1e-8 * max(first, 1e-300):
            break
        moved = (direction @ hessian) * mask
        along = np.sum(direction * moved, axis=1, keepdims=True)
        alpha = np.divide(rho, along, out=np.zeros_like(rho), where=along > 0)
        V = V + alpha * direction
        residual = residual - alpha * moved
        step = residual * inverse
        new = np.sum(residual * step, axis=1, keepdims=True)
        direction = step + np.divide(new, rho, out=np.zeros_like(rho), where=rho > 0) * direction
        rho = new
    return V
