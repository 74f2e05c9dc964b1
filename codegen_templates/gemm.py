"""Matrix products: linear layers (constant B, packed at build time) and products of two activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .catalogue import Kernel, find, source
from .epilogue import EpilogueOp, epilogue_text
from .strides import broadcast_strides, compact, is_one, padded, padded_strides, view
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Source, Temp, Tensor, ceil_div, product

_BLOCK_BYTES = 192 << 10
"""Of A that should stay in the L2 cache while the panels of B pass by."""


def plan_linear(isa: str, a: Tensor, weights: np.ndarray, epilogue: tuple[EpilogueOp, ...]) -> list[KernelUse]:
    """`a`[…, K] · `weights`[K, N] -> [..., N]; epilogue operands are the layer's operands from index 2."""
    kernel = find("gemm", isa)
    K, N = weights.shape
    M = product(a.shape[:-1])
    packed = pack_panels(weights, kernel.columns)
    reason = f"dense weights {K}x{N}, packed in panels of {kernel.columns}"
    zeros = (0, 0, 0)
    return [_gemm(kernel, epilogue, Operand(0), Packed(packed), (1, 1, 1), zeros, K, zeros, zeros, N, M, N, K, reason)]


def plan_matmul(
    isa: str,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    epilogue: tuple[EpilogueOp, ...],
    a_axes: Sequence[int] | None,
    b_axes: Sequence[int] | None,
    out_axes: Sequence[int] | None,
) -> list[KernelUse]:
    """numpy.matmul of two activations of at most 5 dimensions, each read and written where it lies.

    `a` and `b` are the tensors in memory; the operands are their transposes by `a_axes` and `b_axes`. `out` in memory
    is the product transposed by `out_axes`.
    """
    kernel = find("gemm", isa)
    a_shape, a_strides = view(a.shape, a_axes)
    b_shape, b_strides = view(b.shape, b_axes)
    M, K, N = a_shape[-2], a_shape[-1], b_shape[-1]
    batch = 3
    a_batch = broadcast_strides(a_shape[:-2], a_strides[:-2], batch)
    b_batch_shape = padded(b_shape[:-2], batch)
    b_batch = padded_strides(b_strides[:-2], batch)
    inverse = None if out_axes is None else [list(out_axes).index(i) for i in range(len(out_axes))]
    out_shape, out_strides = view(out.shape, inverse)
    n = padded(out_shape[:-2], batch)
    c_batch = padded_strides(out_strides[:-2], batch)
    panel = kernel.columns
    panels = ceil_div(N, panel)
    packed = Temp("panels", "float32", (product(b_batch_shape), panels, K, panel))
    p_strides = compact((*b_batch_shape, panels * K * panel))[:-1]
    p_strides = tuple(0 if is_one(s) else stride for s, stride in zip(b_batch_shape, p_strides, strict=True))
    pack = find("pack_panels", isa)
    symbol = f"sparsec_k_{pack.name}_n{panel}"
    pack_use = KernelUse(
        pack.name,
        symbol,
        (source(pack.template, f"{pack.name}_n{panel}", symbol=symbol, nv=kernel.vectors),),
        (Operand(1), packed),
        (*b_batch_shape[1:], *b_batch, b_strides[-2], b_strides[-1], N, K),
        product(b_batch_shape) * panels,
        "B is an activation",
    )
    reason = "product of two activations"
    return [
        pack_use,
        _gemm(kernel, epilogue, Operand(0), packed, n, a_batch, a_strides[-2], p_strides, c_batch, out_strides[-2],
              M, N, K, reason),
    ]  # fmt: skip


def pack_panels(weights: np.ndarray, columns: int) -> np.ndarray:
    """[K, N] -> [⌈N / columns⌉, K, columns], padded with zeros."""
    K, N = weights.shape
    panels = -(-N // columns)
    whole = np.zeros((K, panels * columns), np.float32)
    whole[:, :N] = weights
    return np.ascontiguousarray(whole.reshape(K, panels, columns).transpose(1, 0, 2))


def tile_source(kernel: Kernel) -> tuple[str, Source]:
    """(symbol, unit) of the register tile that all products of this row share."""
    symbol = f"sparsec_tile_{kernel.name}"
    unit = source("gemm_tile", f"tile_{kernel.name}", tile_symbol=symbol, mr=kernel.rows, nv=kernel.vectors)
    return symbol, unit


def _gemm(
    kernel: Kernel,
    epilogue: tuple[EpilogueOp, ...],
    a: Pointer,
    b: Pointer,
    n: tuple[Size, ...],
    a_batch: tuple[Size, ...],
    lda: Size,
    b_batch: tuple[Size, ...],
    c_batch: tuple[Size, ...],
    ldc: Size,
    M: Size,
    N: Size,
    K: Size,
    reason: str,
) -> KernelUse:
    text = epilogue_text(epilogue)
    name = f"{kernel.name}_{text.suffix}".rstrip("_")
    tile_symbol, tile = tile_source(kernel)
    symbol = f"sparsec_k_{name}"
    unit = source(
        kernel.template, name, symbol=symbol, tile_symbol=tile_symbol, mr=kernel.rows, nv=kernel.vectors, epilogue=text
    )  # fmt: skip
    depth = K if isinstance(K, int) else 1024
    block = max(kernel.rows, _BLOCK_BYTES // (4 * max(depth, 1)) // kernel.rows * kernel.rows)
    extra = tuple(Operand(2 + i) for i in range(len(text.parameters)))
    scalars = (n[1], n[2], *a_batch, lda, *b_batch, *c_batch, ldc, M, N, K, block)
    extent = product(n) * ceil_div(M, block) * ceil_div(N, kernel.columns)
    macs = product(n) * M * N * K
    return KernelUse(kernel.name, symbol, (tile, unit), (a, b, *extra, OUT), scalars, extent, reason, macs)
