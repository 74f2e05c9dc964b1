"""One shot: a dense network and calibration data in, a sparse and quantized one out, level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .data import Feed, relative_error, runner
from .layers import Layer, find_layers, named
from .moments import Moments
from .network import Network
from .norms import KINDS as NORMS
from .norms import correct_norm, find_norms
from .patterns import Pattern
from .prune import Pruned, checkpoint, prune_layer
from .quantize.apply import quantize_layer, quantize_products
from .quantize.equalize import equalize
from .quantize.qdq import Writer
from .quantize.smooth import smooth
from .recipe import Pruning, Quantization, Recipe
from .search import Candidate
from .walk import Walk

Progress = Callable[[str, int, int], None]
"""(what, done, of how many)."""


@dataclass
class LayerOutcome:
    """What became of one layer."""

    name: str
    weight: str
    kind: str
    rows: int
    depth: int
    sparsity: float = 0.0
    error: float = 0.0
    """Squared output error of its pruning, relative to the dense layer's output."""
    quantization_error: float = 0.0
    sensitivity: float | None = None
    """Squared error of the network's outputs with this layer alone pruned, as far as it was measured."""
    dense_reason: str = ""
    """Why it was not pruned."""
    float_reason: str = ""
    """Why it was not quantized."""
    quantized: bool = False


@dataclass
class Outcome:
    """A finished network and the account of it."""

    network: Network
    layers: dict[str, LayerOutcome]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    """Stored weight's name -> True where a weight stays."""
    products: list[str] = field(default_factory=list)
    """Products of two activations that were quantized."""
    recipe: Recipe | None = None
    """What was done, each layer's sparsity included."""
    candidates: list[Candidate] = field(default_factory=list)
    """What a search tried."""
    metrics: tuple[float, float] | None = None
    """(of the dense model, of this one)."""
    output_error: float = 0.0
    """E|y - d|² / E|d|² of the outputs on the calibration data."""

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of all layers."""
        total = sum(la.rows * la.depth for la in self.layers.values())
        return sum(la.sparsity * la.rows * la.depth for la in self.layers.values()) / max(total, 1)


def run(
    dense: Network,
    recipe: Recipe,
    feeds: Sequence[Feed],
    folder: Path,
    sparsities: Mapping[str, float],
    progress: Progress = lambda *_: None,
    keep: Path | None = None,
) -> Outcome:
    """Prunes to `sparsities` (layer's name -> share), then quantizes; as the recipe says.

    What is spilled lies in `folder`. Pruned layers are kept in the folder `keep`, and taken from there by a second run
    with the same arguments.
    """
    now = dense.copy()
    outcome = Outcome(now, {la.name: _outcome(la) for la in find_layers(now)})
    if recipe.pruning is not None:
        _prune(dense, now, recipe, recipe.pruning, feeds, folder, sparsities, outcome, progress, keep)
    if recipe.quantization is not None:
        _quantize(dense, now, recipe, recipe.quantization, feeds, folder, outcome, progress)
    return outcome


def _outcome(layer: Layer) -> LayerOutcome:
    return LayerOutcome(layer.name, layer.weight, layer.kind, layer.rows, layer.size // layer.rows)


def prunable(network: Network, pruning: Pruning) -> list[Layer]:
    """All layers; those that may not be pruned say why in `fixed`."""
    layers = find_layers(network, pruning.ignore)
    pattern = Pattern.parse(pruning.pattern)
    for layer in layers:
        if not layer.fixed and not named(layer, pruning.targets):
            layer.fixed = "not among the targets"
        if not layer.fixed and not pattern.fits((layer.rows, layer.size // layer.rows), layer.channels):
            layer.fixed = f"{layer.rows} outputs by {layer.channels} inputs hold no whole {pattern} blocks"
    return layers


def _prune(
    dense: Network, now: Network, recipe: Recipe, pruning: Pruning, feeds: Sequence[Feed], folder: Path,
    sparsities: Mapping[str, float], outcome: Outcome, progress: Progress, keep: Path | None,
) -> None:  # fmt: skip
    layers = prunable(now, pruning)
    norms = find_norms(now) if pruning.correct else []
    pattern = Pattern.parse(pruning.pattern)
    walk = Walk(now, dense, [*layers, *norms], feeds, folder)
    done = 0
    for level in walk.levels():
        for layer in level:
            if layer.kind in NORMS:
                correct_norm(layer, now, walk.pairs(layer))
                continue
            done += 1
            progress("pruning", done, len(layers))
            row = outcome.layers[layer.name]
            sparsity = sparsities.get(layer.name, 0.0)
            row.dense_reason = layer.fixed or ("" if sparsity > 0 else "the allocation leaves it dense")
            if row.dense_reason:
                continue
            stored = now.constants[layer.weight]

            def prune(layer: Layer = layer, stored: np.ndarray = stored, sparsity: float = sparsity) -> Pruned:
                moments = Moments.of(layer, walk.pairs(layer), len(feeds), recipe.seed)[0]
                return prune_layer(
                    layer, layer.matrix(stored), moments, sparsity, pattern, pruning.method, pruning.correct
                )

            pruned = checkpoint(keep, done, prune)
            now.constants[layer.weight] = layer.stored(pruned.weights)
            now.scales.pop(layer.weight, None)
            if pruned.shift is not None and layer.bias is not None:
                now.constants[layer.bias] = now.constants[layer.bias] + pruned.shift
            row.error, row.sparsity = pruned.error, float(np.mean(pruned.weights == 0))
            outcome.masks[layer.weight] = now.constants[layer.weight] != 0
    outcome.output_error = relative_error(walk.outputs())
    walk.close()


def _quantize(
    dense: Network, now: Network, recipe: Recipe, how: Quantization, feeds: Sequence[Feed], folder: Path,
    outcome: Outcome, progress: Progress,
) -> None:  # fmt: skip
    layers = find_layers(now, how.ignore)
    if how.equalize or how.smooth:
        # both networks alike: the dense one is what the quantized one is compared with, layer by layer
        dense = dense.copy()
        if how.equalize:
            equalize([now, dense], layers)
        if how.smooth:
            smooth([now, dense], layers, feeds, how.smooth)
    walk = Walk(now, dense, layers, feeds, folder)
    writer = Writer(now)
    done = 0
    for level in walk.levels():
        for layer in level:
            done += 1
            progress("quantizing", done, len(layers))
            row = outcome.layers[layer.name]
            row.float_reason = layer.float_reason
            if not layer.float_reason:
                quantize_layer(layer, walk, writer, how, recipe.seed, row)
    outcome.output_error = relative_error(walk.outputs())
    now.nodes = [n for node in now.nodes for n in walk.now.groups.get(node.name, [node])]
    if how.products and (products := quantize_products(now, feeds, writer, how)):
        outcome.products = products
        quantized = runner(now.model().SerializeToString())
        outcome.output_error = relative_error(
            (array, walk.dense.array(name, i))
            for i, feed in enumerate(feeds)
            for name, array in quantized(feed).items()
        )
    walk.close()
