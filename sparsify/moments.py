"""What a layer's inputs say about its weights: second moments of the columns that its matrix multiplies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .layers import Layer

MAX_ROWS = 8192
"""Sampled rows of one layer: beyond that the moments no longer change, and time grows."""


@dataclass
class Moments:
    """Averages over sampled rows: x as the network has it now, r as the dense network had it."""

    hessian: np.ndarray
    """E[x xᵀ], [K, K], float64."""
    drift: np.ndarray
    """E[(r - x) xᵀ], [K, K]: what earlier layers did to this one's input."""
    noise: np.ndarray
    """E[(r - x) (r - x)ᵀ], [K, K]; 0 unless it was asked for."""
    mean: np.ndarray
    """E[x], [K]."""
    dense_mean: np.ndarray
    """E[r], [K]."""

    @staticmethod
    def of(
        layer: Layer,
        pairs: Iterable[tuple[np.ndarray, np.ndarray]],
        batches: int,
        seed: int,
        noisy: bool = False,
    ) -> list[Moments]:
        """One per group, from pairs (activation now, activation of the dense network) of a layer's input."""
        rng = np.random.default_rng(seed)
        limit = max(1, MAX_ROWS // max(batches, 1))
        K = layer.size // layer.rows
        G = layer.groups
        hessian, cross, noise = np.zeros((G, K, K)), np.zeros((G, K, K)), np.zeros((G, K, K))
        mean, dense_mean = np.zeros((G, K)), np.zeros((G, K))
        count = 0
        for now, dense in pairs:
            chosen = sample(layer, now.shape, limit, rng)
            x = columns(layer, now, chosen)
            r = x if dense is now else columns(layer, dense, chosen)
            hessian += x.transpose(0, 2, 1) @ x
            if r is not x:
                cross += (r - x).transpose(0, 2, 1) @ x
            if noisy:
                noise += (r - x).transpose(0, 2, 1) @ (r - x)
            mean += x.sum(1)
            dense_mean += r.sum(1)
            count += x.shape[1]
        n = max(count, 1)
        return [Moments(hessian[g] / n, cross[g] / n, noise[g] / n, mean[g] / n, dense_mean[g] / n) for g in range(G)]


def sample(layer: Layer, shape: tuple[int, ...], limit: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of at most `limit` rows, ascending."""
    total = row_count(layer, shape)
    return np.arange(total) if total <= limit else np.sort(rng.choice(total, limit, replace=False))


def row_count(layer: Layer, shape: tuple[int, ...]) -> int:
    """How many rows an activation of that shape has for the layer's matrix."""
    if layer.kind != "Conv":
        return int(np.prod(shape[:-1]))
    return int(shape[0] * np.prod(_output_size(layer, shape)))


def columns(layer: Layer, data: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows of the activation as the layer's matrix multiplies them, [groups, n, K] (im2col)."""
    if layer.kind != "Conv":
        return data.reshape(-1, data.shape[-1])[chosen][None]
    dims = len(layer.strides)
    pads = [(layer.pads[i], layer.pads[dims + i]) for i in range(dims)]
    padded = np.pad(data, [(0, 0), (0, 0), *pads])
    size = _output_size(layer, data.shape)
    batch, *position = np.unravel_index(chosen, (data.shape[0], *size))
    taps = []
    for tap in np.ndindex(*layer.shape[2:]):
        where = [p * s + t * d for p, s, t, d in zip(position, layer.strides, tap, layer.dilations, strict=True)]
        index = (batch, slice(None), *where)
        taps.append(padded[index].reshape(len(chosen), layer.groups, -1))
    return np.concatenate(taps, axis=2).transpose(1, 0, 2)


def _output_size(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    dims = len(layer.strides)
    return tuple(
        (shape[2 + i] + layer.pads[i] + layer.pads[dims + i] - layer.dilations[i] * (layer.shape[2 + i] - 1) - 1)
        // layer.strides[i] + 1
        for i in range(dims)
    )  # fmt: skip
