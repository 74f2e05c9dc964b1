"""Which kernel a product with constant weights takes, by predicted cycles.

The model counts what was measured to matter on AVX-512: one multiply-accumulate a cycle, loads of activations that the
multiply-accumulates of a k cannot hide, and moving activations between rows and planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...codegen_templates.pattern import row_blocks
from ...codegen_templates.spmm import units_of

_TILE = 16
LOAD_CYCLES = 0.35
"""Of one vector of activations beside the multiply-accumulates that use it."""
_PLANE_CYCLES = 1.5
"""Per vector of activations turned from rows into planes, or back."""
_GEMM_EFFICIENCY = 0.95
_UNIT_CODE_BYTES, _LOAD_CODE_BYTES = 7, 10
_DENSE = 0.9
"""No pattern gains above this density."""
CODE_LIMIT = 2.0
"""Code and its weights may take this many times the bytes of the dense weights."""
MIN_COLUMNS = 16
"""With fewer, every instruction would be fetched for one use."""


@dataclass(frozen=True)
class Choice:
    """`gemm`: rows times panels; `pattern` and `dense`: planes, straight-line code or a loop."""

    kernel: str
    reason: str
    gain: float = 1.0
    """Predicted cycles of the dense kernel over those of this one."""


def choose_float(weights: np.ndarray, columns: int) -> Choice:
    """For float32 `weights`[M, K] and at most `columns` columns."""
    M, K = weights.shape
    density = np.count_nonzero(weights) / weights.size
    if columns < MIN_COLUMNS:
        return Choice("gemm", f"{sparsity_text(density)}, but only {columns} columns")
    if density > _DENSE:
        return Choice("gemm", sparsity_text(density))
    gemm = M * K / _GEMM_EFFICIENCY
    pattern, code_bytes = pattern_cost(units_of(weights))
    pattern += (M + K) * _PLANE_CYCLES
    if code_bytes > CODE_LIMIT * weights.nbytes:
        return Choice("gemm", f"{sparsity_text(density)}: code would be larger than {CODE_LIMIT:g} times the weights")
    return _cheaper("pattern", pattern, "gemm", gemm, density, "unstructured")


def choose_integer(weights: np.ndarray, columns: int) -> Choice:
    """For int8 `weights`[M, K], K a multiple of 4."""
    units = units_of(weights)
    density = np.count_nonzero(units) / units.size
    if columns < MIN_COLUMNS:
        return Choice("dense", f"{sparsity_text(density)} of 1x4 blocks, but only {columns} columns")
    if density > _DENSE:
        return Choice("dense", f"{sparsity_text(density)} of 1x4 blocks")
    pattern, code_bytes = pattern_cost(units)
    if code_bytes > CODE_LIMIT * weights.nbytes:
        return Choice("dense", f"{sparsity_text(density)} of 1x4 blocks: code would be larger than "
                               f"{CODE_LIMIT:g} times the weights")  # fmt: skip
    return _cheaper("pattern", pattern, "dense", float(units.size), density, "1x4 blocks")


def pattern_cost(units: np.ndarray) -> tuple[float, float]:
    """Of the code of `units`[M, units along k]: (cycles per tile of columns, bytes of code and weights)."""
    blocks = row_blocks(units != 0)
    macs = sum(len(b.k) for b in blocks)
    loads = sum(len(np.unique(b.k)) for b in blocks)
    return macs + LOAD_CYCLES * loads, macs * (_UNIT_CODE_BYTES + 4) + loads * _LOAD_CODE_BYTES


def _cheaper(sparse: str, sparse_cycles: float, dense: str, dense_cycles: float, density: float, what: str) -> Choice:
    ratio = dense_cycles / max(sparse_cycles, 1.0)
    text = f"{sparsity_text(density)} ({what}): code predicted at {ratio:.2f}x dense"
    return Choice(sparse, text, ratio) if ratio > 1 else Choice(dense, text)


def sparsity_text(density: float) -> str:
    """For reasons."""
    return f"{100 * (1 - density):.0f} % zero"
