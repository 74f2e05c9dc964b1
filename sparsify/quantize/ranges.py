"""Ranges of activations, from a histogram of what the calibration data made: four ways to choose where it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVELS = 256
_BINS = 2048
_PERCENTILE = 99.99
_SMALLEST = 1e-9
_SHRINK = np.linspace(0.3, 1.0, 71)


@dataclass(frozen=True)
class Range:
    """x ≈ (q - zero_point) · scale with q in 0..255; 0 is always exact, so that padding is."""

    scale: float
    zero_point: int

    @staticmethod
    def of(low: float, high: float) -> Range:
        """The range that covers [low, high] and 0."""
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = float(np.float32((high - low) / (LEVELS - 1))) or 1.0
        return Range(scale, int(np.clip(np.rint(-low / scale), 0, LEVELS - 1)))

    def round_trip(self, x: np.ndarray) -> np.ndarray:
        """x after QuantizeLinear and DequantizeLinear, float32."""
        scale = np.float32(self.scale)
        q = np.clip(np.rint(x / scale) + self.zero_point, 0, LEVELS - 1)
        return ((q - self.zero_point) * scale).astype(np.float32)


@dataclass(frozen=True)
class Histogram:
    """Counts of values in equal bins between the least and the greatest."""

    counts: np.ndarray
    edges: np.ndarray

    def plus(self, array: np.ndarray) -> Histogram:
        """With the values of one more array counted."""
        return Histogram(self.counts + np.histogram(array, _BINS, (self.edges[0], self.edges[-1]))[0], self.edges)

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin."""
        return (self.edges[1:] + self.edges[:-1]) / 2


class Bounds:
    """The least and the greatest value so far: what a histogram needs to know first."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def add(self, array: np.ndarray) -> None:
        """Takes in one more array."""
        if array.size:
            self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))

    def histogram(self) -> Histogram:
        """An empty histogram over the range."""
        low, high = (self.low, self.high) if self.high >= self.low else (0.0, 0.0)
        if high == low:
            high = low + (abs(low) or 1.0)
        return Histogram(np.zeros(_BINS, np.int64), np.linspace(low, high, _BINS + 1))


def minmax(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return Range.of(histogram.edges[0], histogram.edges[-1])


def percentile(histogram: Histogram) -> Range:
    """All but 0.01 % of the values, half of these on each side (Wu et al., Integer Quantization for Deep Learning
    Inference, 2020)."""
    share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
    tail = (100 - _PERCENTILE) / 200
    first = int(np.searchsorted(share, tail, "right"))
    last = min(int(np.searchsorted(share, 1 - tail, "left")), _BINS - 1)
    # a bin that holds the end of a range belongs to it whole
    return Range.of(histogram.edges[min(first, last)], histogram.edges[last + 1])


def mse(histogram: Histogram) -> Range:
    """Least squared error (Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, 2019)."""
    return min(_candidates(histogram), key=lambda r: _squared_error(histogram, r))


def entropy(histogram: Histogram) -> Range:
    """Least Kullback-Leibler divergence between the histograms before and after (Migacz, 8-bit Inference with
    TensorRT, GTC 2017)."""
    return min(_candidates(histogram), key=lambda r: _divergence(histogram, r))


def _candidates(histogram: Histogram) -> list[Range]:
    low, high = min(histogram.edges[0], 0.0), max(histogram.edges[-1], 0.0)
    both = [(low * s, high * s) for s in _SHRINK]
    one = [(low, high * s) for s in _SHRINK] + [(low * s, high) for s in _SHRINK] if low < 0 < high else []
    return list(dict.fromkeys(Range.of(a, b) for a, b in both + one))


def _squared_error(histogram: Histogram, candidate: Range) -> float:
    x = histogram.centres
    return float(np.sum(histogram.counts * np.square(candidate.round_trip(x) - x)))


def _divergence(histogram: Histogram, candidate: Range) -> float:
    """Of the clipped histogram from the one that is flat within each level, as far as that was not empty."""
    x, p = histogram.centres, histogram.counts.astype(np.float64)
    level = np.clip(np.rint(x / candidate.scale) + candidate.zero_point, 0, LEVELS - 1).astype(int)
    inside = np.abs(candidate.round_trip(x) - x) <= candidate.scale
    clipped = np.where(inside, p, 0.0)
    # what is cut off is counted at the ends
    for end in (0, LEVELS - 1):
        at = np.flatnonzero(inside & (level == end))
        lost = p[~inside & (level == end)].sum()
        if lost and not len(at):
            return np.inf  # everything on that side is cut off
        if lost:
            clipped[at[0] if end == 0 else at[-1]] += lost
    filled = (p > 0) & inside
    mass = np.bincount(level, np.where(inside, p, 0.0), LEVELS)
    width = np.bincount(level, filled, LEVELS)
    q = np.where(filled, mass[level] / np.maximum(width[level], 1), 0.0)
    p, q = clipped / max(clipped.sum(), 1), q / max(q.sum(), 1)
    some = p > 0
    # an end that holds nothing but what was cut off is as unlike as can be
    return float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], _SMALLEST))))


RANGES: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
