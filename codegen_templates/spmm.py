"""Products with a sparse constant matrix whose pattern is compiled into code (see pattern.py)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from .attention import Quantized
from .catalogue import find, source
from .epilogue import EpilogueOp, EpilogueText, c_float, epilogue_text
from .pattern import PatternCode, dense_blocks, dense_stream, row_blocks, rows_per_block, stream
from .use import OUT, Code, KernelUse, Operand, Packed, Pointer, Size, ceil_div

_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the blocks of rows pass by."""
_TILE = 16
_FULL_TENSOR = ("add", "mul")


@dataclass(frozen=True)
class Quantization:
    """Of an integer layer: f = (Σ x·w + start[m]) · scale[m], x unsigned."""

    start: np.ndarray
    scale: np.ndarray


def panel_shape(columns: Size, depth: int, quantized: bool) -> tuple[Size, ...]:
    """Shape of activations in panels of 16 columns."""
    panels = ceil_div(columns, _TILE)
    return (panels, depth // 4, _TILE, 4) if quantized else (panels, depth, _TILE)


def plan_panels(isa: str, columns: Size, depth: int, *, quantized: bool, signed: bool) -> list[KernelUse]:
    """Rows [columns, depth] to panels; u8 in groups of four, or float."""
    row = find("panels", isa)
    name = "panels" + ("_u8" if quantized else "_f32") + ("_signed" if signed else "")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, quantized=quantized, flip=signed)
    words = depth // 4 if quantized else depth
    scalars = (columns, words)
    return [
        KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), scalars, ceil_div(columns, _TILE), "rows to panels")
    ]


def plan_spmm(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization | None,
    reason: str,
    dense: bool = False,
    requantized: Quantized | None = None,
) -> list[KernelUse]:
    """`weights`[M, K] (float32, or int8 with K a multiple of 4) times panels -> float32 [columns, M].

    Epilogue operands are the layer's operands from index 2. `dense` takes every weight, by a loop instead of
    straight-line code. `requantized`: the output is u8 panels instead, M a multiple of 4 and every
    op of the epilogue one that needs the row alone.
    """
    kind = "f32" if quantization is None else "u8s8"
    row = find(f"{'dense' if dense else 'spmm'}_{kind}", isa)
    M = len(weights)
    units = units_of(weights)
    if dense:
        blocks = dense_blocks(M)
        values, starts = dense_stream(units, blocks)
    else:
        blocks = row_blocks(units != 0)
        values, starts = stream(units, blocks)
    step = 4 * _TILE
    if dense:
        code = PatternCode(kind, np.zeros(1, np.int64), blocks, units.shape[1], step)
    else:
        code = PatternCode(kind, step * np.arange(units.shape[1]), blocks)
    head, tail = _split(epilogue)
    rows = rows_per_block(M)
    packed = None
    name = f"{row.name}_r{rows}_{head.suffix}_{tail.suffix}".rstrip("_")
    if requantized is not None:
        inverse = c_float(float(np.float32(1) / np.float32(requantized.scale)))
        packed = {"inverse": inverse, "zero_point": requantized.zero_point}
        name += f"_u8_{hashlib.sha256(repr(packed).encode()).hexdigest()[:8]}"
    symbol = f"sparsec_k_{name}"
    unit = source(
        row.template, name, symbol=symbol, rows=rows, quantized=quantization is not None, head=head, tail=tail,
        tail_rows=_tail_rows(epilogue, tail),
        packed=packed,
    )  # fmt: skip
    constants: tuple[Pointer, ...] = (Packed(values), Packed(starts), Code(code))
    if quantization is not None:
        constants += (Packed(quantization.start), Packed(quantization.scale))
    extra = tuple(Operand(2 + i) for i in range(len(head.parameters) + len(tail.parameters)))
    per_column = units.shape[1] * 4
    run = max(_TILE, _RUN_BYTES // per_column // _TILE * _TILE)
    extent = ceil_div(columns, run) * len(blocks)
    macs = columns * (weights.size if dense else int(np.count_nonzero(weights)))
    scalars = (M, columns, per_column * _TILE, run)
    pointers = (Operand(0), *constants, *extra, OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, reason, macs)]


def may_requantize(rows: int, epilogue: tuple[EpilogueOp, ...]) -> bool:
    """Whether a layer can write u8 panels."""
    return rows % 4 == 0 and not any(op.kind in _FULL_TENSOR for op in epilogue)


def units_of(weights: np.ndarray) -> np.ndarray:
    """[M, K] -> int32 [M, units along k], bit patterns."""
    contiguous = np.ascontiguousarray(weights)
    if weights.dtype == np.float32:
        contiguous = contiguous + np.float32(0)  # no negative zeros: their bits are not zero
    return contiguous.view(np.int32)


def _tail_rows(epilogue: tuple[EpilogueOp, ...], tail: EpilogueText) -> list[tuple[str, str]]:
    """Each tensor of the tail, and where its part for a row of the output begins."""
    ops = [op for op in epilogue if op.takes_operand][-len(tail.parameters) or len(epilogue) :]
    bases = ["row" if op.kind in _FULL_TENSOR else "first" for op in ops]
    return list(zip(tail.parameters, bases, strict=True))


def _split(epilogue: tuple[EpilogueOp, ...]) -> tuple[EpilogueText, EpilogueText]:
    """What needs the row alone, and the rest from the first op on that reads a whole tensor."""
    at = next((i for i, op in enumerate(epilogue) if op.kind in _FULL_TENSOR), len(epilogue))
    head, tail = epilogue_text(epilogue[:at]), epilogue_text(epilogue[at:])
    renamed = tuple(f"t_{name}" for name in tail.parameters)
    text = tail.text
    for old, new in zip(tail.parameters, renamed, strict=True):
        text = text.replace(old, new)
    return head, EpilogueText(renamed, text, f"then_{tail.suffix}" if tail.suffix else "")
