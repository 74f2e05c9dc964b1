"""Products with sparse weights: random operands, and what numpy makes of them."""

from __future__ import annotations

import numpy as np
from harness import run_uses

from sparsec.codegen_templates import integer, spmm
from sparsec.codegen_templates.layout import panel_shape


def pruned(rng, m: int, k: int, density: float, block: int = 1) -> np.ndarray:
    mask = np.repeat(rng.random((m, -(-k // block))) < density, block, axis=1)[:, :k]
    return rng.standard_normal((m, k)).astype(np.float32) * mask


def rows_of(panels: np.ndarray, k: int) -> np.ndarray:
    """u8 panels as rows again."""
    return panels.transpose(0, 2, 1, 3).reshape(-1, k)


def operands_of(rng, ops, m: int, n: int) -> list[np.ndarray]:
    shapes = {"bias": (m,), "add": (n, m)}
    return [rng.standard_normal(shapes[op.kind]).astype(np.float32) for op in ops if op.takes_operand]


def quantized_reference(x, w, zero, scale):
    """Exact sums, then one rounded multiplication."""
    return integer.rescale(integer.accumulate(x, zero, w.T, 0), scale)


def to_panels(target, x: np.ndarray, quantized: bool, signed: bool = False) -> np.ndarray:
    n, k = x.shape
    uses = spmm.plan_panels(target.isa, n, k, quantized=quantized, signed=signed)
    shape = panel_shape(n, k, quantized)
    out, status = run_uses(target, uses, [x], shape, "uint8" if quantized else "float32")
    assert status == 0
    return out
