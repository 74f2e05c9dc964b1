"""`sparsec analyze`: the sparsity of every linear layer, the kernel it would take, and what pruning would buy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SparsecError, TargetError
from ..graph import Dataflow, Layer, op_name
from ..lower.program import Dim
from ..lower.sizes import product, upper
from ..pipeline import Compilation, Options, run_until
from ..sparsity.cost import Choice, choose_float, choose_integer
from ..sparsity.impose import PATTERNS, impose
from ..target import resolve


@dataclass(frozen=True)
class LayerAnalysis:
    """`gain`: predicted cycles of the dense kernel over those of the chosen one; `imposed`: after pruning, if asked."""

    tensor: str
    dtype: str
    rows: int
    depth: int
    columns: int
    sparsity: float
    block_sparsity: float
    """Of 1x4 blocks along the input."""
    kernel: str
    reason: str
    gain: float
    imposed: Choice | None

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates at the dimensions' upper bounds."""
        return self.rows * self.depth * self.columns


def analyze(
    model: str | os.PathLike[str],
    *,
    target: str = "native",
    dims: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
    sparsity: float | None = None,
    pattern: str = "1x4",
) -> list[LayerAnalysis]:
    """One row per linear layer with constant weights, in execution order; nothing is built.

    Raises:
        SparsecError: `pattern` or `sparsity` is out of range, the target has no sparse kernels, or as `sparsec.build`.
    """
    if pattern not in PATTERNS:
        raise SparsecError(f"unknown pattern {pattern!r}; one of: {', '.join(PATTERNS)}")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise SparsecError(f"a sparsity of {sparsity} is not between 0 and 1")
    row = resolve(target)
    if not row.has_tiles:
        raise TargetError(f"target {row.name} has no sparse kernels yet; --target avx512 has")
    options = Options((row,), Path(os.devnull), dims=dict(dims or {}), shapes=dict(shapes or {}))
    compilation = run_until(model, options, "fuse_layers")
    bounds = tuple(Dim(d.name, d.lower, d.upper, d.is_found, d.equals) for d in compilation.prepared.dims.values())
    return _rows(compilation, bounds, sparsity, pattern)


def total_gain(rows: list[LayerAnalysis], imposed: bool) -> float:
    """Predicted cycles of all layers dense over those of the chosen kernels."""
    gains = [(r.macs, r.imposed.gain if imposed and r.imposed else r.gain) for r in rows]
    return sum(m for m, _ in gains) / max(sum(m / g for m, g in gains), 1e-9)


def _rows(c: Compilation, bounds: tuple[Dim, ...], sparsity: float | None, pattern: str) -> list[LayerAnalysis]:
    rows = []
    for _, value in Dataflow.of(c.graph).bindings:
        layer = c.graph.layers.get(op_name(value))
        if layer is None or layer.family not in ("linear", "qlinear"):
            continue
        data, weights = value.args[1].fields[:2]
        columns = upper(product(tuple(data.ty.shape)[:-1]), bounds)
        rows.append(
            _row(layer, np.ascontiguousarray(weights.value.numpy().T), columns, sparsity, pattern, c.target.isa)
        )
    return rows


def _row(
    layer: Layer, weights: np.ndarray, columns: int, sparsity: float | None, pattern: str, isa: str
) -> LayerAnalysis:
    choose = choose_integer if layer.family == "qlinear" else choose_float
    M, K = weights.shape
    choice = choose(weights, columns, isa=isa)
    zero = weights == 0
    blocks = zero[:, : K // 4 * 4].reshape(M, -1, 4).all(2)
    return LayerAnalysis(
        tensor=layer.tensor,
        dtype=str(weights.dtype),
        rows=M,
        depth=K,
        columns=columns,
        sparsity=float(zero.mean()),
        block_sparsity=float(blocks.mean()) if blocks.size else 0.0,
        kernel=choice.kernel,
        reason=choice.reason,
        gain=choice.gain,
        imposed=None if sparsity is None else choose(impose(weights, sparsity, pattern), columns, isa=isa),
    )
