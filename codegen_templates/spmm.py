"""Products with a sparse constant matrix whose pattern is compiled into code (see pattern.py)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from .blended import BlendCode, blend_blocks, blend_stream, rows_per_blend
from .catalogue import find, kept_lower, source
from .epilogue import EpilogueOp
from .layout import COLUMNS, ROWS, Layout, panel_shape
from .pattern import rows_per_block
from .row_code import dense_code, sparse_code, sparse_rows
from .tile_epilogue import Quantization, tile_epilogue
from .use import OUT, AnyCode, Code, KernelUse, Operand, Packed, Size, Temp, ceil_div

Method: TypeAlias = Literal["pattern", "dense", "blend"]
_FAMILIES: dict[Method, str] = {"pattern": "spmm", "dense": "dense", "blend": "blended"}
_RUN_BYTES = 640 << 10
"""Of panels that should stay in the L2 cache while the blocks of rows pass by."""
_LEAST_RUN = 128
"""Columns that code should serve before it is fetched again."""
_FEW_COLUMNS = 128
"""In so many, blocks fetch the next one whole where the number of columns is known at run time only; with more of them
what is fetched lies further ahead."""


def plan_panels(isa: str, columns: Size, depth: int, *, quantized: bool, signed: bool) -> list[KernelUse]:
    """Rows [columns, depth] to panels, of u8 in groups of four or of floats."""
    row = find("panels", isa)
    name = "panels" + ("_u8" if quantized else "_f32") + "_signed" * signed
    symbol = f"sparsec_k_{name}"
    unit = source(
        row.template,
        name,
        symbol=symbol,
        quantized=quantized,
        flip=quantized and signed != (kept_lower(isa) > 0),
    )
    words = depth // 4 if quantized else depth
    scalars = (columns, words)
    return [
        KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), scalars, ceil_div(columns, COLUMNS), "rows to panels")
    ]


def plan_rows(isa: str, columns: Size, features: int) -> list[KernelUse]:
    """Panels of floats to rows [columns, features]."""
    row = find("rows", isa)
    symbol = f"sparsec_k_{row.family}"
    unit = source(row.template, row.family, symbol=symbol)
    panels = ceil_div(columns, COLUMNS)
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), (columns, features), panels, "panels to rows")]


def plan_spmm(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    quantization: Quantization | None,
    reason: str,
    method: Method = "pattern",
    layouts: tuple[Layout, ...] = (ROWS,),
    first_extra: int = 2,
) -> list[KernelUse]:
    """`weights`[M, K] (float32, or int8 with K a multiple of 4) times panels -> [columns, M], in each of `layouts`.

    Epilogue operands are the layer's operands from `first_extra` on. `dense` takes every weight, by a loop instead of
    straight-line code; `blend` is for int8 whose zeros lie anywhere. What layouts there may be, and what they ask of
    the operands, tile_epilogue.py says.
    """
    kind = "f32" if quantization is None else "u8s8"
    parts = _parts(columns, weights.shape[1]) if method == "pattern" and quantization is None else 1
    if parts > 1:
        return _plan_parts(isa, columns, weights, epilogue, reason, layouts, first_extra, parts)
    row = find(f"{_FAMILIES[method]}_{kind}", isa)
    M = len(weights)
    units = units_of(weights)
    step = 4 * COLUMNS
    per_column = units.shape[1] * 4
    run = max(COLUMNS, _RUN_BYTES // per_column // COLUMNS * COLUMNS)
    tiles = _tiles(columns, run)
    rows = rows_per_blend(M) if method == "blend" else rows_per_block(M)
    code: AnyCode
    if method == "dense":
        code, values, starts = dense_code(isa, kind, units, np.zeros(1, np.int64), step, tiles=tiles)
    elif method == "blend":
        blended = blend_blocks(weights != 0)
        values, starts = blend_stream(weights, blended)
        code = BlendCode(step * np.arange(units.shape[1]), blended, tiles)
    else:
        rows = sparse_rows(isa, kind, units)
        code, values, starts = sparse_code(isa, kind, units, step * np.arange(units.shape[1]), rows, tiles=tiles)
    finish = tile_epilogue(epilogue, quantization, layouts, first_extra)
    name = f"{row.name}_r{rows}_{finish.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, rows=rows, e=finish.values, kept=False)
    extent = ceil_div(columns, run) * len(code.blocks)
    macs = columns * (weights.size if method == "dense" else int(np.count_nonzero(weights)))
    scalars = (M, columns, per_column * COLUMNS, run)
    pointers = (Operand(0), Packed(values), Packed(starts), Code(code), *finish.pointers)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, reason, macs, n_outputs=finish.n_outputs)]


def _tiles(columns: Size, run: int) -> int:
    """For how many tiles a block is likely to run."""
    return ceil_div(min(run, columns if isinstance(columns, int) else _FEW_COLUMNS), COLUMNS)


def _parts(columns: Size, depth: int) -> int:
    """Into how many k is cut, so that panels of `_LEAST_RUN` columns stay in the cache while blocks of rows pass."""
    wide = min(columns, _LEAST_RUN) if isinstance(columns, int) else _LEAST_RUN
    return -(-4 * depth * wide // _RUN_BYTES)


def _plan_parts(
    isa: str,
    columns: Size,
    weights: np.ndarray,
    epilogue: tuple[EpilogueOp, ...],
    reason: str,
    layouts: tuple[Layout, ...],
    first_extra: int,
    parts: int,
) -> list[KernelUse]:
    """One call per part of k, pattern code on floats; the sums so far wait in panels."""
    row = find("spmm_f32", isa)
    M, depth = weights.shape
    units = units_of(weights)
    finish = tile_epilogue(epilogue, None, layouts, first_extra)
    kept = Temp("sums", "float32", panel_shape(columns, M, False))
    width = ceil_div(depth, parts)
    rows = sparse_rows(isa, "f32", units[:, :width])
    run = max(COLUMNS, _RUN_BYTES // (4 * width) // COLUMNS * COLUMNS)
    tiles = _tiles(columns, run)
    uses = []
    for first in range(0, depth, width):
        part = slice(first, first + width)
        offsets = 4 * COLUMNS * np.arange(depth)[part]
        code, values, starts = sparse_code(isa, "f32", units[:, part], offsets, rows, tiles=tiles, resumes=first > 0)
        is_last = first + width >= depth
        name = f"{row.name}_r{rows}_{finish.suffix if is_last else ''}_kept".replace("__", "_")
        symbol = f"sparsec_k_{name}"
        unit = source(row.template, name, symbol=symbol, rows=rows, e=finish.values if is_last else None, kept=True)
        pointers = (Operand(0), Packed(values), Packed(starts), Code(code), kept, *(finish.pointers if is_last else ()))
        scalars = (M, columns, 4 * depth * COLUMNS, run)
        extent = ceil_div(columns, run) * len(code.blocks)
        why = f"{reason}; k in {parts} parts"
        macs = columns * int(np.count_nonzero(weights[:, part]))
        outputs = finish.n_outputs if is_last else 1
        uses.append(
            KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, why, macs, n_outputs=outputs)
        )  # fmt: skip
    return uses


def units_of(weights: np.ndarray) -> np.ndarray:
    """[M, K] -> int32 [M, units along k], bit patterns."""
    contiguous = np.ascontiguousarray(weights)
    if weights.dtype == np.float32:
        contiguous = contiguous + np.float32(0)  # no negative zeros: their bits are not zero
    return contiguous.view(np.int32)
