"""What a layer costs on a target at a given sparsity, from the compiler's own cost model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..compiler.tools.analyze import LayerAnalysis, analyze
from ..errors import TargetError
from .data import Feed
from .layers import Layer
from .network import Network

_POINTS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities that the cost model is asked for; between them it is interpolated."""


@dataclass(frozen=True)
class LayerCosts:
    """Relative cost of each layer; `curves` maps a name to costs at 0 and at `_POINTS`."""

    curves: Mapping[str, np.ndarray]

    def at(self, name: str, sparsity: float) -> float:
        """Cost of a layer, in multiply-accumulates of a dense kernel."""
        return float(np.interp(sparsity, (0.0, *_POINTS), self.curves[name]))

    def total(self, sparsities: Mapping[str, float]) -> float:
        """Of all layers; those not named are dense."""
        return sum(self.at(name, sparsities.get(name, 0.0)) for name in self.curves)


def layer_costs(
    path: Path, network: Network, layers: Sequence[Layer], feed: Feed, pattern: str, target: str
) -> LayerCosts:
    """Costs for the model at `path`, whose layers are those of `network`, with inputs of `feed`'s shapes.

    Layers that the cost model says nothing of, such as convolutions, count their remaining multiply-accumulates.

    Raises:
        SparsecError: the model cannot be compiled for the target.
    """
    shapes = {name: array.shape for name, array in feed.items()}
    known = _known_pattern(pattern)
    curves: dict[str, np.ndarray] = {}
    try:
        reports = [analyze(path, target=target, shapes=shapes, sparsity=s, pattern=known) for s in _POINTS]
    except TargetError:
        reports = []  # the target has no sparse kernels to spend accuracy on: all weights cost the same
    if reports:
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, row in enumerate(reports[0]):
            found[row.rows, row.depth].append(i)
        for layer in layers:
            key = (layer.rows, layer.size // layer.rows)
            if layer.kind != "Conv" and found[key]:
                i = found[key].pop(0)
                curves[layer.name] = _curve([report[i] for report in reports])
    columns = float(np.median([c[0] / la.size for la in layers if (c := curves.get(la.name)) is not None] or [1.0]))
    for layer in layers:
        if layer.name not in curves:
            curves[layer.name] = layer.size * columns * (1 - np.array((0.0, *_POINTS)))
    return LayerCosts(curves)


def _curve(rows: Sequence[LayerAnalysis]) -> np.ndarray:
    costs = [rows[0].macs / rows[0].gain]
    costs += [row.macs / row.imposed.gain if row.imposed else row.macs for row in rows]
    return np.minimum.accumulate(np.array(costs, np.float64))


def _known_pattern(pattern: str) -> str:
    """The pattern of the cost model that a kernel would see in this one."""
    if ":" in pattern:
        return "2:4"
    return (
        pattern if pattern == "unstructured" else "1x4" if int(pattern.partition("x")[2]) % 4 == 0 else "unstructured"
    )
