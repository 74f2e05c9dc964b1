"""What pattern the zeros of a matrix follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCKS = ((16, 16), (16, 4), (4, 16), (8, 8), (4, 4), (2, 4), (1, 16), (4, 1), (1, 4))
"""Rows (outputs) by columns (inputs) that are zero together, largest first."""
_FULL = 0.95
"""Share of a pattern's kept places that must not be zero: quantization may round a few of them to zero."""
_CHANCE = 0.7
"""Sparser matrices keep 2 of 4 by chance."""
_SPARSE = 0.05
"""Less sparsity than this is chance."""


@dataclass(frozen=True)
class Pattern:
    """`name`: dense, unstructured, RxC, 2:4 or 4:8."""

    name: str
    sparsity: float
    empty_rows: int
    empty_columns: int

    def text(self) -> str:
        """For reasons: `81 % zero (1x4, 3 empty outputs)`."""
        counts = ((self.empty_rows, "output"), (self.empty_columns, "input"))
        empty = [f"{n} empty {what}" + "s" * (n > 1) for n, what in counts if n]
        parts = ", ".join([self.name, *empty] if self.name != "dense" else empty)
        return f"{100 * self.sparsity:.0f} % zero" + (f" ({parts})" if parts else "")


def find_pattern(weights: np.ndarray) -> Pattern:
    """The most regular pattern that `weights`[M, K] follow; a zero is a weight at the zero point, stored as 0."""
    kept = weights != 0
    sparsity = 1 - np.count_nonzero(kept) / max(kept.size, 1)
    rows, columns = int((~kept.any(1)).sum()), int((~kept.any(0)).sum())
    return Pattern(_name(kept, sparsity), sparsity, rows, columns)


def _name(kept: np.ndarray, sparsity: float) -> str:
    if sparsity < _SPARSE or not kept.size:
        return "dense"
    count = np.count_nonzero(kept)
    for rows, columns in BLOCKS:
        blocks = occupied_blocks(kept, rows, columns)
        if blocks is not None and count >= _FULL * blocks.sum() * rows * columns and not blocks.all():
            return f"{rows}x{columns}"
    if sparsity < _CHANCE:
        for most, group in ((2, 4), (4, 8)):
            if kept.shape[1] % group == 0 and kept.reshape(len(kept), -1, group).sum(2).max() <= most:
                return f"{most}:{group}"
    return "unstructured"


def occupied_blocks(kept: np.ndarray, rows: int, columns: int) -> np.ndarray | None:
    """Which blocks have a weight that is not zero; None where the matrix is not made of whole blocks."""
    M, K = kept.shape
    if M % rows or K % columns:
        return None
    return np.asarray(kept.reshape(M // rows, rows, K // columns, columns).any((1, 3)))
