"""Pruning methods on one seeded layer: each beats magnitude, keeps the pattern, and gives the same bytes again."""

import numpy as np
import pytest
from networks import correlated

from sparsec.sparsify.methods import METHODS, Problem
from sparsec.sparsify.methods.problem import refit
from sparsec.sparsify.patterns import Pattern
from sparsec.sparsify.quantize.weights import ROUNDINGS, nearest, scales


@pytest.fixture(scope="module")
def layer():
    """(weights [24, 40], second moments of inputs [40, 40])."""
    x = correlated(600, 40).astype(np.float64)
    return np.random.default_rng(3).standard_normal((24, 40)), x.T @ x / len(x)


@pytest.mark.parametrize("pattern", ["unstructured", "1x4", "2x4", "2:4", "4:8"])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "magnitude"])
def test_beats_magnitude(layer, method, pattern):
    problem = Problem(*layer, 0.6, Pattern.parse(pattern))
    error = {m: problem.error(METHODS[m](problem)) for m in ("magnitude", method)}
    assert error[method] < 0.9 * error["magnitude"]


@pytest.mark.parametrize("pattern", ["unstructured", "1x4", "2x4", "2:4", "4:8"])
@pytest.mark.parametrize("method", METHODS)
def test_pattern_and_sparsity(layer, method, pattern):
    problem = Problem(*layer, 0.6, Pattern.parse(pattern))
    weights = METHODS[method](problem)
    zero = weights == 0
    assert zero.mean() == pytest.approx(problem.pattern.fixed_sparsity or 0.6, abs=0.03)
    kept = problem.pattern.mask(~zero + 1e-9 * np.abs(weights), zero.mean())
    assert np.array_equal(kept, ~zero)
    assert weights.tobytes() == METHODS[method](problem).tobytes()


def test_later_methods_are_better(layer):
    """In the order of their papers, at the sparsity where it matters."""
    problem = Problem(*layer, 0.7)
    error = [problem.error(METHODS[m](problem)) for m in ("magnitude", "wanda", "sparsegpt", "alps")]
    assert error == sorted(error, reverse=True)


def test_refit_is_least_squares(layer):
    weights, hessian = layer
    mask = Pattern().mask(np.abs(weights), 0.5)
    fitted = refit(weights, mask, hessian, iterations=400)
    exact = np.zeros_like(weights)
    for row in range(len(weights)):
        on = np.flatnonzero(mask[row])
        exact[row, on] = np.linalg.solve(hessian[np.ix_(on, on)], hessian[on] @ weights[row])
    least, found = (Problem(weights, hessian, 0.5).error(v) for v in (exact, fitted))
    assert least <= found < 1.001 * least < 0.5 * Problem(weights, hessian, 0.5).error(weights * mask)
    assert not fitted[~mask].any()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounding(layer, rounding):
    """Zeros survive, integers stay in range, and what looks at the inputs beats the nearest integer."""
    weights, hessian = layer
    hessian = hessian + 1e-3 * np.eye(len(hessian))
    weights = weights * Pattern().mask(np.abs(weights), 0.5)
    # 15 levels instead of 255, so that rounding matters
    scale = scales(weights, np.diag(hessian)) * 18
    q = ROUNDINGS[rounding](weights, scale, hessian)
    assert np.array_equal(q, np.rint(q)) and np.abs(q).max() <= 127
    assert not q[weights == 0].any()
    if rounding != "nearest":
        problem = Problem(weights, hessian, 0)
        error = {n: problem.error(v * scale[:, None]) for n, v in (("it", q), ("nearest", nearest(weights, scale)))}
        assert error["it"] < error["nearest"]
