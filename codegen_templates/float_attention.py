"""Scaled dot-product attention in float32, fused: no scores in memory beyond one tile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .attention import AttentionShape
from .catalogue import LANES, Kernel, base_isa, find, source
from .epilogue import c_float
from .layout import COLUMNS
from .strides import broadcast_strides, padded, padded_strides, view
from .use import OUT, KernelUse, Operand, Pointer, Size, Temp, Tensor, ceil_div

MAX_DEPTH = 256
"""Of Q, K and V: a tile of queries and one of the output lie on the stack."""
_BLOCK = 128
"""Keys whose scores exist at a time: 16 KiB for 32 queries."""
_RANK = 4


@dataclass(frozen=True)
class AttentionAxes:
    """How the tensors in memory are permuted to [batch, heads, sequence, depth] (or without the batch); None: not.

    `out` is the permutation that the output in memory is given after that.
    """

    q: Sequence[int] | None = None
    k: Sequence[int] | None = None
    v: Sequence[int] | None = None
    out: Sequence[int] | None = None


def plan_float_attention(
    isa: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    scale: float,
    mask: Tensor | None,
    axes: AttentionAxes,
    zeros: bool = False,
) -> list[KernelUse]:
    """softmax(scale·Q·Kᵀ + mask)·V; operands are Q, K, V[, mask].

    A query whose scores are all -inf gets NaN, or with `zeros` zero.
    Seen through `axes`, Q is [B, H, S, D], K [B, H or 1, T, D], V [B, H or 1, T, E] with unit stride along the last
    axis, D and E constants of at most `MAX_DEPTH`; `mask` broadcasts to [B, H, S, T].
    """
    row = find("attention", isa)
    q_shape, q_strides = view(q.shape, axes.q)
    k_shape, k_strides = view(k.shape, axes.k)
    v_shape, v_strides = view(v.shape, axes.v)
    inverse = None if axes.out is None else [list(axes.out).index(i) for i in range(len(axes.out))]
    _, y_strides = view(out.shape, inverse)
    batch, heads, queries, depth = padded(q_shape, _RANK)
    k_outer = padded(k_shape[:-2], 2)
    keys = k_shape[-2]
    packed, pack = _pack_keys(row, k_outer, padded_strides(k_strides, _RANK), keys, depth)
    panel = LANES[base_isa(isa)]
    per_head = ceil_div(keys, panel) * panel * depth
    k_strides = broadcast_strides(k_outer, (k_outer[1] * per_head, per_head), 2)
    v_outer = broadcast_strides(v_shape[:-2], v_strides[:-2], 2)
    strides = (
        *broadcast_strides(q_shape[:-2], q_strides[:-2], 2), q_strides[-2],
        *k_strides, panel * depth,
        *v_outer, v_strides[-2],
        *padded_strides(y_strides[:-2], 2), y_strides[-2],
    )  # fmt: skip
    kind, mask_strides = _mask(mask)
    shape = AttentionShape(batch, queries, keys, heads, depth)
    scalars = (heads, queries, keys, *strides, *mask_strides)
    return [pack, _attention(row, shape, v_shape[-1], scale, kind, packed, scalars, False, zeros)]


def may_be_panels(shape: AttentionShape) -> bool:
    """Whether the tiles of every batch begin where a panel does."""
    sizes = (shape.queries, shape.keys)
    alone = isinstance(shape.batch, int) and shape.batch == 1
    return alone or all(isinstance(size, int) and size % COLUMNS == 0 for size in sizes)


def plan_panels_attention(
    isa: str, shape: AttentionShape, scale: float, mask: Tensor | None, zeros: bool = False
) -> list[KernelUse]:
    """The same for Q, K, V and an output in panels of floats: [tokens / 16][heads * depth][16], batches in a row."""
    row = find("attention", isa)
    features = shape.heads * shape.depth
    per_head, per_panel = COLUMNS * shape.depth, COLUMNS * features
    query, key = (shape.queries * features, per_head, per_panel), (shape.keys * features, per_head, per_panel)
    kind, mask_strides = _mask(mask)
    scalars = (shape.heads, shape.queries, shape.keys, *query, *key, *key, *query, *mask_strides)
    return [_attention(row, shape, shape.depth, scale, kind, Operand(1), scalars, True, zeros)]


def _attention(
    row: Kernel,
    shape: AttentionShape,
    value_depth: int,
    scale: float,
    mask: str,
    keys: Pointer,
    scalars: tuple[Size, ...],
    panels: bool,
    zeros: bool,
) -> KernelUse:
    panel, depth = LANES[row.isa], shape.depth
    digest = hashlib.sha256(c_float(scale).encode()).hexdigest()[:8]
    parts = (row.name, f"d{depth}x{value_depth}", mask, "panels" if panels else "", "zeros" if zeros else "", digest)
    name = "_".join(part for part in parts if part)
    symbol = f"sparsec_k_{name}"
    unit = source(
        row.template, name, symbol=symbol, depth=depth, value_depth=value_depth, panel=panel, rows=row.rows,
        vectors=row.vectors, block=_BLOCK, mask=mask, scale=c_float(scale), panels=panels, zeros=zeros,
    )  # fmt: skip
    pointers: tuple[Pointer, ...] = (Operand(0), keys, Operand(2), *([Operand(3)] if mask else []), OUT)
    units = shape.batch * shape.heads
    macs = units * shape.queries * shape.keys * (depth + value_depth)
    extent = units * ceil_div(shape.queries, row.vectors * panel)
    return KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, "attention, fused", macs)


def _mask(mask: Tensor | None) -> tuple[str, tuple[Size, ...]]:
    """(which code adds it, strides of batch, head and query)."""
    if mask is None:
        return "", ()
    shape, strides = view(mask.shape, None)
    batch, head, query, _ = broadcast_strides(shape, strides, _RANK)
    by_query = not (isinstance(query, int) and query == 0)
    return "full" if by_query else "keys", (batch, head, query)


def _pack_keys(
    row: Kernel, outer: tuple[Size, ...], strides: tuple[Size, ...], keys: Size, depth: Size
) -> tuple[Temp, KernelUse]:
    """K in panels of one vector of keys, and the call that makes them."""
    panel = LANES[row.isa]
    panels = ceil_div(keys, panel)
    temp = Temp("keys", "float32", (*outer, panels, depth, panel))
    pack = find("pack_panels", row.isa)
    name = f"{pack.name}_n{panel}"
    symbol = f"sparsec_k_{name}"
    unit = source(pack.template, name, symbol=symbol, nv=1)
    scalars = (outer[0], outer[1], 0, *strides[:2], strides[3], strides[2], keys, depth)
    extent = outer[0] * outer[1] * panels
    return temp, KernelUse(pack.name, symbol, (unit,), (Operand(1), temp), scalars, extent, "keys in panels")
