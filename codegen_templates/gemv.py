"""Products of constant weights with few columns: bound by reading the weights, so zeros are not stored.

16 outputs lie in the lanes of a register. For every k (int8: every four k) of 16 outputs there is a unit of 64 bytes;
a mask says which of its elements are stored, and `vexpand` puts them back into their lanes. Activations are read where
they lie, [columns, K], and results are written as rows.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from .catalogue import find, source
from .epilogue import FULL_TENSOR, NUMBERS, EpilogueOp, epilogue_text, vector_lines
from .tile_epilogue import Quantization
from .use import OUT, KernelUse, Operand, Packed, Size, ceil_div

LANES = 16
"""Outputs of a slab."""
MAX_COLUMNS = 15
"""From 16 columns on they fill a register themselves."""
_GROUP = 4

Storage: TypeAlias = Literal["dense", "mask", "mask4"]
"""All elements; those that are not zero; int8 in groups of four k that are not all zero."""
_MASKS = {("mask", "f32"): np.uint16, ("mask", "u8s8"): np.uint64, ("mask4", "u8s8"): np.uint16}


def stored_bytes(weights: np.ndarray, storage: Storage) -> int:
    """Of `weights`[M, K], masks included."""
    kind = "u8s8" if weights.dtype == np.int8 else "f32"
    units = -(-len(weights) // LANES) * weights.shape[1] // (_GROUP if kind == "u8s8" else 1)
    if storage == "dense":
        return 64 * units
    mask = units * np.dtype(_MASKS[storage, kind]).itemsize
    if storage == "mask4":
        return mask + 4 * int(np.count_nonzero(np.ascontiguousarray(weights).view(np.int32)))
    return mask + weights.itemsize * int(np.count_nonzero(weights))


def plan_gemv(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization | None,
    reason: str,
    storage: Storage,
    signed: bool = False,
    first_extra: int = 2,
) -> list[KernelUse]:
    """`weights`[M, K] (float32, or int8 with K a multiple of 4) times x[columns, K] -> float32 [columns, M].

    Any number of columns is right, 15 at most are fast. `signed`: x is int8, and what `quantization` says holds for
    x + 128. Operands of the epilogue are those of the layer from `first_extra` on.
    """
    kind = "f32" if quantization is None else "u8s8"
    row = find(f"gemv_{kind}_{storage}", isa)
    M, K = weights.shape
    text = epilogue_text(epilogue)
    name = "_".join(part for part in (row.name, "signed" * signed, text.suffix) if part)
    symbol = f"sparsec_k_{name}"
    with_tensors = [(n, op) for n, op in zip(text.parameters, (o for o in epilogue if o.takes_operand), strict=True)]
    lanes = tuple(
        tensor if op.kind in NUMBERS else f"load_lanes({tensor} + {'at' if op.kind in FULL_TENSOR else 'first'}, mask)"
        for tensor, op in with_tensors
    )
    unit = source(
        row.template, name, symbol=symbol, kind=kind, storage=storage, flip=signed,
        parameters=text.parameters, lines=vector_lines(epilogue, lanes),
    )  # fmt: skip
    masks, values, starts = _pack(weights, kind, storage)
    constants = [Packed(values)]
    if storage != "dense":
        constants += [Packed(masks), Packed(starts)]
    pointers = (
        Operand(0),
        *constants,
        *(() if quantization is None else (quantization.start, quantization.scale)),
        *(Operand(first_extra + i) for i in range(len(text.parameters))),
        OUT,
    )
    macs = columns * (weights.size if storage == "dense" else int(np.count_nonzero(weights)))
    return [KernelUse(row.name, symbol, (unit,), pointers, (M, K, columns), ceil_div(M, LANES), reason, macs)]


def _pack(weights: np.ndarray, kind: str, storage: Storage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a mask per unit, the stored elements in order, where each slab's begin in bytes)."""
    M, K = weights.shape
    slabs = -(-M // LANES)
    group = _GROUP if kind == "u8s8" else 1
    padded = np.zeros((slabs * LANES, K), weights.dtype)
    padded[:M] = weights
    units = padded.reshape(slabs, LANES, K // group, group).transpose(0, 2, 1, 3)  # slab, k, lane, element
    units = np.ascontiguousarray(units)
    if storage == "mask4":
        units = units.view(np.int32)
    units = units.reshape(slabs, K // group, -1)
    if storage == "dense":
        return np.zeros(0, np.uint16), units, np.zeros(0, np.int64)
    kept = units != 0
    masks = np.packbits(kept, axis=2, bitorder="little").view(_MASKS[storage, kind])[..., 0]
    starts = np.concatenate([[0], np.cumsum(kept.sum((1, 2)))[:-1]]) * units.itemsize
    values = np.concatenate([units[kept], np.zeros(64 // units.itemsize, units.dtype)])  # whole registers are read
    return masks, values, starts.astype(np.int64)
