"""Prunes one layer: the weights that come nearest to the dense layer's output, given the inputs as they are by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .layers import Layer
from .methods import METHODS, Problem
from .methods.problem import quadratic
from .moments import Moments
from .patterns import Pattern

DAMPING = 0.01


@dataclass(frozen=True)
class Pruned:
    """New weights [M, K], what to add to the bias [M], and E|V x - W x|² / E|W x|²."""

    weights: np.ndarray
    shift: np.ndarray | None
    error: float


def checkpoint(folder: Path | None, number: int, make: Callable[[], Pruned]) -> Pruned:
    """The layer of that number as a run that was stopped left it in the folder, else a new one, left there."""
    if folder is None:
        return make()
    path = folder / f"layer_{number}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Pruned(kept["weights"], kept["shift"] if kept["shift"].size else None, float(kept["error"]))
    pruned = make()
    partial = path.with_name(f"partial_{number}.npz")
    shift = np.zeros(0, np.float32) if pruned.shift is None else pruned.shift
    np.savez(partial, weights=pruned.weights, shift=shift, error=pruned.error)
    partial.replace(path)
    return pruned


def prune_layer(
    layer: Layer, weights: np.ndarray, moments: Moments, sparsity: float, pattern: Pattern, method: str, correct: bool
) -> Pruned:
    """Prunes `weights`[M, K] float32.

    With `correct` the target is not W x but W r, the dense network's output: its least-squares fit on x replaces W
    (asymmetric calibration: Li et al., GPTAQ, ICML 2025), and the bias takes over the difference of the means (Nagel
    et al., Data-Free Quantization, ICCV 2019).
    """
    W = weights.astype(np.float64)
    centred = correct and layer.bias is not None
    H = moments.hessian - np.outer(moments.mean, moments.mean) if centred else moments.hessian
    goal = W
    if correct:
        drift = moments.drift
        if centred:
            drift = drift - np.outer(moments.dense_mean - moments.mean, moments.mean)
        goal = W + np.linalg.solve(Problem(W, H, 0, damping=DAMPING).damped(), (W @ drift).T).T
    problem = Problem(goal, H, sparsity, pattern, DAMPING)
    V = (METHODS[method](problem)).astype(np.float32)
    shift = W @ moments.dense_mean - V @ moments.mean if centred else None
    scale = quadratic(W, moments.hessian) or 1.0
    return Pruned(V, None if shift is None else shift.astype(np.float32), quadratic(V - goal, H) / scale)
