"""Patterns of zeros: which weights of a matrix [M, K] may be zero together, and the best mask for given scores.

RxC are R rows by C consecutive k; N:M keeps N of every M consecutive k. Runs of k never cross from one tap of a
convolution to the next; a run that is no multiple of C or M keeps its rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..errors import SparsecError


@dataclass(frozen=True)
class Pattern:
    """`rows` x `columns` blocks, or `keep` of every `columns`."""

    rows: int = 1
    columns: int = 1
    keep: int = 0

    @staticmethod
    def parse(text: str) -> Pattern:
        """Reads `unstructured`, `1x4`, `2:4`, …

        Raises:
            SparsecError: it is none of these.
        """
        if text == "unstructured":
            return Pattern()
        if match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text):
            return Pattern(int(match[1]), int(match[2]))
        if (match := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)) and int(match[1]) < int(match[2]):
            return Pattern(1, int(match[2]), int(match[1]))
        raise SparsecError(f"unknown pattern {text!r}; it is unstructured, RxC (1x4, 2x4, …) or N:M (2:4, 4:8, …)")

    def __str__(self) -> str:
        if self.keep:
            return f"{self.keep}:{self.columns}"
        return "unstructured" if self.rows == self.columns == 1 else f"{self.rows}x{self.columns}"

    @property
    def fixed_sparsity(self) -> float | None:
        """Of N:M, whose share of zeros is not free."""
        return 1 - self.keep / self.columns if self.keep else None

    def fits(self, shape: tuple[int, int], channels: int) -> bool:
        """Whether blocks cover the whole matrix, whose runs of neighbouring k have that length."""
        return shape[0] % self.rows == 0 and channels % self.columns == 0

    def pool(self, scores: np.ndarray) -> np.ndarray:
        """Sum of each block's scores, [M / rows, K / columns]."""
        M, K = scores.shape
        return scores.reshape(M // self.rows, self.rows, K // self.columns, self.columns).sum((1, 3))

    def spread(self, blocks: np.ndarray) -> np.ndarray:
        """One value per block to one per weight."""
        return np.repeat(np.repeat(blocks, self.rows, 0), self.columns, 1)

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """True where a weight stays: the highest `scores`[M, K] that the pattern lets stay together.

        Exactly round(sparsity · blocks) blocks go. For N:M `sparsity` is not read.
        """
        if self.keep:
            groups = scores.reshape(len(scores), -1, self.columns)
            order = np.argsort(groups, axis=2, kind="stable")
            mask = np.ones(groups.shape, bool)
            np.put_along_axis(mask, order[:, :, : self.columns - self.keep], False, axis=2)
            return mask.reshape(scores.shape)
        pooled = self.pool(scores)
        return self.spread(smallest_removed(pooled, sparsity))


def smallest_removed(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """True for all but the round(sparsity · size) smallest."""
    keep = np.ones(scores.size, bool)
    count = min(round(sparsity * scores.size), scores.size)
    if count <= 0:
        return keep.reshape(scores.shape)
    keep[np.argpartition(scores, count - 1, axis=None)[:count]] = False
    return keep.reshape(scores.shape)
