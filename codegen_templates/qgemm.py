"""Products of 8-bit integers on any ISA, exact modulo 2^32 with any zero points (defined in integer.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .catalogue import Kernel, find, source
from .epilogue import EpilogueOp, epilogue_text
from .strides import broadcast_strides, compact, padded, padded_strides, view
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Source, Temp, Tensor, ceil_div, product

_BLOCK_BYTES = 192 << 10
"""Of A that should stay in the L2 cache while the panels of B pass by."""
_C_TYPES = {"uint8": "uint8_t", "int8": "int8_t"}


@dataclass(frozen=True)
class Quantization:
    """Where the scale and the zero point of an operand lie: constants, or tensors of the run."""

    scale: Pointer
    """float32; one value, or one per column of B."""
    zero: Pointer
    """One value of the operand's type."""


def constant_quantization(scale: np.ndarray | float, zero: int, dtype: str) -> Quantization:
    """Both known at build time."""
    scales = np.ascontiguousarray(scale, np.float32).reshape(-1)
    return Quantization(Packed(scales), Packed(np.array([zero], dtype)))


@dataclass(frozen=True)
class _Side:
    """An operand as the product reads it: rows or panels of pairs, with batch strides in its own words."""

    pointer: Pointer
    strides: tuple[Size, ...]
    narrow: bool = False


def plan_qlinear(
    isa: str,
    a: Tensor,
    quantization: Quantization,
    weights: np.ndarray,
    weight_scale: np.ndarray,
    bias: np.ndarray | None,
    epilogue: tuple[EpilogueOp, ...],
    first_extra: int,
) -> list[KernelUse]:
    """`a`[…, K] times centred integers `weights`[K, N] -> float32 [..., N].

    `weight_scale` holds one value or N, `bias` int32[N] is added to the sums; operands of the epilogue are those of the
    layer from `first_extra` on.
    """
    kernel = find("qgemm", isa)
    K, N = weights.shape
    M = product(a.shape[:-1])
    narrow = weights.dtype == np.int8
    rows = Tensor(a.dtype, (M, K))
    widened, left = _rows(isa, rows, None, Operand(0), quantization.zero)
    right = _Side(Packed(pack_pairs(weights, kernel.columns)), (0, 0, 0), narrow)
    scale = Packed(np.ascontiguousarray(weight_scale, np.float32).reshape(-1))
    step = 0 if scale.array.size == 1 else 1
    packed_bias = None if bias is None else Packed(np.ascontiguousarray(bias, np.int32))
    reason = f"int8 weights {K}x{N}, products of 16-bit pairs"
    ones, zeros = (1, 1, 1), (0, 0, 0)
    return [
        widened,
        _qgemm(kernel, epilogue, first_extra, left, right, (quantization.scale, scale, step), packed_bias, ones, zeros,
               N, (M, N, K), reason),
    ]  # fmt: skip


def plan_qmatmul(
    isa: str,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    quantizations: tuple[Quantization, Quantization],
    axes: tuple[Sequence[int] | None, Sequence[int] | None, Sequence[int] | None],
    epilogue: tuple[EpilogueOp, ...],
    first_extra: int,
) -> list[KernelUse]:
    """numpy.matmul of two 8-bit tensors of at most 5 dimensions, each read and written where it lies.

    `axes` permute the two tensors to the operands, and the product to `out`, as in `gemm.plan_matmul`.
    """
    kernel = find("qgemm", isa)
    a_axes, b_axes, out_axes = axes
    widened, left = _rows(isa, a, a_axes, Operand(0), quantizations[0].zero)
    packed, right = _panels(isa, kernel, b, b_axes, Operand(1), quantizations[1].zero)
    a_shape, b_shape = view(a.shape, a_axes)[0], view(b.shape, b_axes)[0]
    inverse = None if out_axes is None else [list(out_axes).index(i) for i in range(len(out_axes))]
    out_shape, out_strides = view(out.shape, inverse)
    scales = (quantizations[0].scale, quantizations[1].scale, 0)
    sizes = (a_shape[-2], b_shape[-1], a_shape[-1])
    n, c_batch = padded(out_shape[:-2], 3), padded_strides(out_strides[:-2], 3)
    reason = "product of two quantized activations"
    use = _qgemm(kernel, epilogue, first_extra, left, right, scales, None, n, c_batch, out_strides[-2], sizes, reason)
    return [widened, packed, use]


def pack_pairs(weights: np.ndarray, columns: int) -> np.ndarray:
    """[K, N] -> [⌈N / columns⌉, ⌈K / 2⌉, columns, 2], padded with zeros."""
    K, N = weights.shape
    panels, pairs = -(-N // columns), -(-K // 2)
    whole = np.zeros((pairs * 2, panels * columns), weights.dtype)
    whole[:K, :N] = weights
    return np.ascontiguousarray(whole.reshape(pairs, 2, panels, columns).transpose(2, 0, 3, 1))


def _rows(
    isa: str, tensor: Tensor, axes: Sequence[int] | None, data: Pointer, zero: Pointer
) -> tuple[KernelUse, _Side]:
    row = find("widen_pairs", isa)
    shape, strides = view(tensor.shape, axes)
    batch = padded(shape[:-2], 3)
    M, K = shape[-2:]
    pairs = ceil_div(K, 2)
    temp = Temp("rows", "int16", (product(batch), M, pairs * 2))
    unit, symbol = _element_unit(row, tensor.dtype, "")
    scalars = (*batch[1:], *padded_strides(strides[:-2], 3), strides[-2], strides[-1], M, K)
    use = KernelUse(row.name, symbol, (unit,), (data, zero, temp), scalars, product(batch) * M, "8 bits to 16")
    return use, _Side(temp, _batch_strides(batch, M * pairs))


def _panels(
    isa: str, kernel: Kernel, tensor: Tensor, axes: Sequence[int] | None, data: Pointer, zero: Pointer
) -> tuple[KernelUse, _Side]:
    row = find("pack_pairs", isa)
    shape, strides = view(tensor.shape, axes)
    batch = padded(shape[:-2], 3)
    K, N = shape[-2:]
    panels, pairs = ceil_div(N, kernel.columns), ceil_div(K, 2)
    temp = Temp("panels", "int16", (product(batch), panels, pairs, kernel.columns, 2))
    unit, symbol = _element_unit(row, tensor.dtype, f"_n{kernel.columns}", nv=kernel.vectors)
    scalars = (*batch[1:], *padded_strides(strides[:-2], 3), strides[-2], strides[-1], N, K)
    use = KernelUse(
        row.name, symbol, (unit,), (data, zero, temp), scalars, product(batch) * panels, "B is an activation"
    )
    return use, _Side(temp, _batch_strides(batch, panels * pairs * kernel.columns * 2))


def _element_unit(row: Kernel, dtype: str, suffix: str, **values: object) -> tuple[Source, str]:
    name = f"{row.name}_{dtype}{suffix}"
    symbol = f"sparsec_k_{name}"
    return source(row.template, name, symbol=symbol, ctype=_C_TYPES[dtype], **values), symbol


def _batch_strides(batch: tuple[Size, ...], step: Size) -> tuple[Size, ...]:
    """Of batches that lie one behind the other, `step` words each; 0 where one of them serves all."""
    return broadcast_strides(batch, tuple(s * step for s in compact(batch)), len(batch))


def _qgemm(
    kernel: Kernel,
    epilogue: tuple[EpilogueOp, ...],
    first_extra: int,
    a: _Side,
    b: _Side,
    scales: tuple[Pointer, Pointer, int],
    bias: Packed | None,
    n: tuple[Size, ...],
    c_batch: tuple[Size, ...],
    ldc: Size,
    sizes: tuple[Size, Size, Size],
    reason: str,
) -> KernelUse:
    M, N, K = sizes
    text = epilogue_text(epilogue)
    width = "s8" if b.narrow else "s16"
    parts = [kernel.name, width, "biased" if bias else "", text.suffix]
    name = "_".join(part for part in parts if part)
    tile_symbol = f"sparsec_tile_{kernel.name}_{width}"
    shared = {"tile_symbol": tile_symbol, "mr": kernel.rows, "nv": kernel.vectors, "narrow": b.narrow}
    tile = source("qgemm_tile", f"tile_{kernel.name}_{width}", **shared)
    symbol = f"sparsec_k_{name}"
    unit = source(kernel.template, name, symbol=symbol, biased=bias is not None, epilogue=text, **shared)
    pairs = ceil_div(K, 2)
    depth = pairs if isinstance(pairs, int) else 512
    block = max(kernel.rows, _BLOCK_BYTES // (4 * max(depth, 1)) // kernel.rows * kernel.rows)
    a_scale, b_scale, step = scales
    extra = tuple(Operand(first_extra + i) for i in range(len(text.parameters)))
    pointers = (a.pointer, b.pointer, a_scale, b_scale, *([] if bias is None else [bias]), *extra, OUT)
    scalars = (n[1], n[2], *a.strides, *b.strides, *c_batch, ldc, M, N, pairs, block, step)
    extent = product(n) * ceil_div(M, block) * ceil_div(N, kernel.columns)
    macs = product(n) * M * N * K
    return KernelUse(kernel.name, symbol, (tile, unit), pointers, scalars, extent, reason, macs)
