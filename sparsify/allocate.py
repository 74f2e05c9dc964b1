"""How much of each layer goes, so that the whole has the sparsity that was asked for at the least harm.

`sensitivity` follows Frantar and Alistarh, SPDY (ICML 2022): each layer's harm at each sparsity is measured, added up,
and minimized under a budget by dynamic programming. What a weight costs is 1 by default, and with a target it is the
time that the compiler's cost model predicts, so that accuracy is spent where the target gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .cost import LayerCosts
from .data import Feed, relative_error, runner
from .layers import Layer
from .methods import METHODS, Problem
from .methods.problem import quadratic
from .moments import Moments
from .network import Network
from .oneshot import Progress, prunable
from .patterns import Pattern
from .recipe import Pruning, Recipe
from .walk import Walk

GRID = (0.0, 0.2, 0.35, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.84, 0.88, 0.91, 0.94, 0.96, 0.98)
"""Sparsities that a layer may get."""
_PROBE = "sparsegpt"
"""The method that sensitivities are measured with: its errors rise as those of the others, and it is quick."""
_STEPS = 2000
"""Into which the budget is divided."""
_SAMPLES = 4
"""Batches on which a single layer's harm to the outputs is measured."""


def allocate(
    network: Network,
    recipe: Recipe,
    feeds: Sequence[Feed],
    folder: Path,
    progress: Progress,
    costs: LayerCosts | None = None,
    harm: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Layer's name -> sparsity, for every layer that may be pruned.

    With `costs` the budget is time: that of all layers at the recipe's sparsity. `harm` is filled with what was
    measured, and read where it is filled.
    """
    pruning = recipe.pruning
    assert pruning is not None
    layers = [la for la in prunable(network, pruning) if not la.fixed]
    fixed = Pattern.parse(pruning.pattern).fixed_sparsity
    if fixed is not None or pruning.allocation == "uniform" or not layers:
        chosen = {la.name: pruning.sparsity if fixed is None else fixed for la in layers}
    elif pruning.allocation == "global":
        chosen = _global(network, layers, pruning)
    else:
        harm = {} if harm is None else harm
        if not harm:
            harm.update(sensitivities(network, layers, recipe, feeds, folder, progress))
        chosen = cheapest(harm, {la.name: _prices(la, costs) for la in layers}, pruning.sparsity)
    return chosen | {name: s for name, s in pruning.layers.items() if name in chosen}


def _global(network: Network, layers: Sequence[Layer], pruning: Pruning) -> dict[str, float]:
    """What one threshold on |w| for all layers gives, |w| being relative to its layer's root mean square."""
    pattern = Pattern.parse(pruning.pattern)
    scores = {}
    for layer in layers:
        weights = np.abs(layer.matrix(network.constants[layer.weight]))
        scores[layer.name] = pattern.pool(weights / (np.sqrt(np.mean(weights**2)) or 1.0)).ravel()
    threshold = np.quantile(np.concatenate(list(scores.values())), pruning.sparsity)
    return {name: min(float(np.mean(s < threshold)), GRID[-1]) for name, s in scores.items()}


def _prices(layer: Layer, costs: LayerCosts | None) -> np.ndarray:
    """Cost of the layer at each sparsity of the grid."""
    if costs is None:
        return layer.size * (1 - np.array(GRID))
    return np.array([costs.at(layer.name, s) for s in GRID])


def sensitivities(
    network: Network, layers: Sequence[Layer], recipe: Recipe, feeds: Sequence[Feed], folder: Path, progress: Progress
) -> dict[str, np.ndarray]:
    """Layer's name -> expected E|y - d|² / E|d|² of the network's outputs at each sparsity of the grid.

    A layer's own squared error is measured at every sparsity, from the moments of its inputs; how much of it reaches
    the outputs, by running the network with this layer alone pruned.
    """
    assert recipe.pruning is not None
    pattern = Pattern.parse(recipe.pruning.pattern)
    some = feeds[:: max(len(feeds) // _SAMPLES, 1)][:_SAMPLES]
    dense = runner(network.model().SerializeToString())
    wanted = [dense(feed) for feed in some]
    nearest = int(np.argmin(np.abs(np.array(GRID) - recipe.pruning.sparsity)))
    walk = Walk(network.copy(), network, layers, feeds, folder / "sensitivity")
    harm: dict[str, np.ndarray] = {}
    for level in walk.levels():
        for layer in level:
            progress("measuring sensitivity", len(harm), len(layers))
            moments = Moments.of(layer, ((x, x) for x, _ in walk.pairs(layer)), len(feeds), recipe.seed)[0]
            W = layer.matrix(network.constants[layer.weight]).astype(np.float64)
            scale = quadratic(W, moments.hessian) or 1.0
            errors = np.zeros(len(GRID))
            for i, sparsity in enumerate(GRID):
                if sparsity:
                    V = METHODS[_PROBE](Problem(W, moments.hessian, sparsity, pattern))
                    errors[i] = quadratic(V - W, moments.hessian) / scale
                    if i == nearest:
                        trial = network.copy()
                        trial.constants[layer.weight] = layer.stored(V.astype(np.float32))
            pruned = runner(trial.model().SerializeToString())
            reached = relative_error(
                (now, before[name])
                for feed, before in zip(some, wanted, strict=True)
                for name, now in pruned(feed).items()
            )
            harm[layer.name] = np.maximum.accumulate(errors) * (reached / max(errors[nearest], 1e-12))
    walk.close()
    return harm


def cheapest(harm: Mapping[str, np.ndarray], prices: Mapping[str, np.ndarray], sparsity: float) -> dict[str, float]:
    """The sparsities with the least sum of harm whose prices stay within those of all layers at `sparsity`.

    Dynamic programming over a budget of `_STEPS` steps; each layer's price is rounded up, so that the budget holds.
    """
    budget = sum(float(np.interp(sparsity, GRID, price)) for price in prices.values())
    floor = sum(float(price.min()) for price in prices.values())
    step = max(budget - floor, 1e-12) / _STEPS
    best = np.full(_STEPS + 1, np.inf)
    best[0] = 0.0
    choices: list[np.ndarray] = []
    for name, price in prices.items():
        # what is spent beyond the layer's cheapest form
        steps = np.ceil((price - price.min()) / step - 1e-9).astype(int)
        following = np.full(_STEPS + 1, np.inf)
        choice = np.zeros(_STEPS + 1, int)
        for i, spent in enumerate(steps):
            if spent <= _STEPS:
                trial = np.full(_STEPS + 1, np.inf)
                trial[spent:] = best[: _STEPS + 1 - spent] + harm[name][i]
                better = trial < following
                following, choice = np.where(better, trial, following), np.where(better, i, choice)
        choices.append(choice)
        best = following
    at = int(np.argmin(best))
    chosen: dict[str, float] = {}
    for name, choice in reversed(list(zip(prices, choices, strict=True))):
        i = int(choice[at])
        chosen[name] = GRID[i]
        at -= int(np.ceil((prices[name][i] - prices[name].min()) / step - 1e-9))
    return {name: chosen[name] for name in prices}
