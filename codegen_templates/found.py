"""Operators that find out how much they give: the count goes into a dimension of the run."""

from __future__ import annotations

from .catalogue import find, source
from .use import OUT, Found, KernelUse, Operand, Pointer, Size, Temp, Tensor, product

_C_TYPES = {
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{"float32": "float", "float64": "double", "bool": "uint8_t"},
}


def can_compare(dtype: str) -> bool:
    """Whether the kernels take values of this type."""
    return dtype in _C_TYPES


def plan_nonzero(isa: str, x: Tensor, count: str) -> list[KernelUse]:
    """NonZero-13: `x`[d0, …] -> int64 [rank, count], row-major order of the elements that are not zero."""
    row = find("nonzero", isa)
    rank = len(x.shape)
    name = f"{row.name}_{x.dtype}_{rank}d"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, ctype=_C_TYPES[x.dtype], rank=rank)
    pointers = (Operand(0), Found(count), OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, tuple(x.shape), 1, "counted by each run")]


def plan_non_max_suppression(
    isa: str, boxes: Tensor, scores: Tensor, count: str, most: int, center_point_box: bool, has_score_threshold: bool
) -> list[KernelUse]:
    """NonMaxSuppression-11: `boxes`[B, N, 4], `scores`[B, C, N] -> int64 [count, 3] of (batch, class, box)."""
    row = find("non_max_suppression", isa)
    name = row.name + ("_center" if center_point_box else "_corners") + ("_scored" if has_score_threshold else "")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, center=center_point_box, scored=has_score_threshold)
    batch, classes, n = scores.shape
    heap = Temp("heap", "int32", (n,))
    thresholds = tuple(Operand(2 + i) for i in range(1 + has_score_threshold))
    scalars: tuple[Size, ...] = (batch, classes, n, most)
    pointers: tuple[Pointer, ...] = (Operand(0), Operand(1), *thresholds, Found(count), heap, OUT)
    macs = product((batch, classes, n))
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, 1, "counted by each run", macs, n_outputs=2)]
