"""How much of each layer goes, so that the whole has the sparsity that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .data import Feed
from .network import Network
from .oneshot import Progress, prunable
from .patterns import Pattern
from .recipe import Recipe


def allocate(
    network: Network, recipe: Recipe, feeds: Sequence[Feed], folder: Path, progress: Progress
) -> dict[str, float]:
    """Layer's name -> sparsity, for every layer that may be pruned."""
    pruning = recipe.pruning
    assert pruning is not None
    layers = [la for la in prunable(network, pruning) if not la.fixed]
    fixed = Pattern.parse(pruning.pattern).fixed_sparsity
    return {la.name: pruning.layers.get(la.name, pruning.sparsity if fixed is None else fixed) for la in layers}
