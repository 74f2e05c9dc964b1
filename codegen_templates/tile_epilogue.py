"""What becomes of a tile of sums, rows of the output by 16 columns: rescaled, activated, quantized, stored.

Kernels that leave such a tile share it: `tile_epilogue.c.j2` defines `finish_tile`, which takes the tile, its place,
and the epilogue's own pointers: a kernel's C function has `e.parameters` last among its own pointers and hands on
`e.arguments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .catalogue import find, kept_lower, source
from .epilogue import FULL_TENSOR, NUMBERS, EpilogueOp, epilogue_text, vector_lines
from .integer import wrapped
from .layout import ROWS, Layout
from .panel_outputs import panel_outputs
from .use import KernelUse, Operand, Packed, Pointer, Temp


@dataclass(frozen=True)
class Quantization:
    """Of an integer layer: f = (Σ x·w + start[m]) · scale[m], x unsigned; int32 and float32."""

    start: Pointer
    scale: Pointer


def constant_quantization(
    weights: np.ndarray, zero: int, scale: np.ndarray, bias: np.ndarray | None, isa: str = "avx512"
) -> Quantization:
    """For `weights`[M, K] where the zero point of unsigned x is known; `bias` int32[M] is added to the sums."""
    start = (kept_lower(isa) - zero) * weights.sum(1, dtype=np.int64) + (0 if bias is None else bias)
    return Quantization(Packed(wrapped(start)), Packed(np.ascontiguousarray(scale, np.float32)))


def plan_run_quantization(
    isa: str, weights: np.ndarray, scale: np.ndarray, bias: np.ndarray | None, dtype: str
) -> tuple[list[KernelUse], Quantization]:
    """The same where operands 2 and 3 of the layer are scale and zero point of x, whose type is `dtype`."""
    row = find("run_quantization", isa)
    M = len(weights)
    name = f"{row.name}_{dtype}"
    symbol = f"sparsec_k_{name}"
    unit = source(
        row.template, name, symbol=symbol, ctype=f"{dtype}_t", shift=(128 if dtype == "int8" else 0) - kept_lower(isa)
    )
    how = Quantization(Temp("start", "int32", (M,)), Temp("scale", "float32", (M,)))
    bias = np.zeros(M, np.int32) if bias is None else bias
    constants = [wrapped(weights.sum(1, dtype=np.int64)), bias.astype(np.int32), scale.astype(np.float32)]
    pointers = (Operand(2), Operand(3), *(Packed(np.ascontiguousarray(c)) for c in constants), how.start, how.scale)
    reason = "scale and zero point of the run"
    return [KernelUse(row.name, symbol, (unit,), pointers, (), M, reason, grain=64, n_outputs=2)], how


@dataclass(frozen=True)
class TileEpilogue:
    """`values` is what the template reads as `e`; its parameters take `pointers`, the outputs last."""

    suffix: str
    """For the names of kernels: tells apart epilogues with different code."""
    pointers: tuple[Pointer, ...]
    values: dict[str, Any]
    n_outputs: int


def tile_epilogue(
    ops: tuple[EpilogueOp, ...], quantization: Quantization | None, layouts: tuple[Layout, ...], first_operand: int
) -> TileEpilogue:
    """The epilogue of one layer.

    Args:
        ops: what follows the sums; operands of the layer from `first_operand` on are their tensors.
        quantization: of int32 sums; None for float ones.
        layouts: of the outputs, in order: `rows` alone, or any others. Tensors shaped like the output have the layout
            of rows with the one, panels of floats with the others. u8 panels need a multiple of 4 rows.
    """
    if ROWS in layouts and len(layouts) > 1:
        raise ValueError("rows are written alone")
    by_rows = layouts == (ROWS,)
    at = next((i for i, op in enumerate(ops) if op.kind in FULL_TENSOR), len(ops)) if by_rows else len(ops)
    names = [f"e{i}_{op.kind}" for i, op in enumerate(ops) if op.takes_operand]
    declared: list[tuple[str, str]] = []
    pointers: list[Pointer] = []
    if quantization is not None:
        declared += [("const int32_t *", "start_value"), ("const float *", "scale")]
        pointers += [quantization.start, quantization.scale]
    declared += [("const float *", name) for name in names]
    pointers += [Operand(first_operand + i) for i in range(len(names))]
    outputs = panel_outputs(layouts)
    declared += outputs.declared
    pointers += outputs.pointers
    heads = sum(op.takes_operand for op in ops[:at])
    values = {
        "quantized": quantization is not None,
        "by_rows": by_rows,
        "head": vector_lines(ops[:at], tuple(_panel_tensor(n, op) for n, op in _with_tensors(ops[:at], names))),
        "tail": vector_lines(
            ops[at:],
            tuple(n if op.kind in NUMBERS else f"{n}_lanes[v]" for n, op in _with_tensors(ops[at:], names[heads:])),
        ),
        "tail_tensors": [
            {"name": name, "full": op.kind in FULL_TENSOR}
            for name, op in _with_tensors(ops[at:], names[heads:])
            if op.kind not in NUMBERS
        ],
        "streams": [
            *((name, 0) for name, op in _with_tensors(ops, names) if op.kind in FULL_TENSOR),
            *((o["name"], 1) for o in outputs.list if o["kind"] == "panels"),
        ],
        "outputs": outputs,
        "parameters": ", ".join(f"{kind}restrict {name}" for kind, name in declared),
        "arguments": ", ".join(name for _, name in declared),
    }
    text = epilogue_text(ops)
    return TileEpilogue(
        "_".join(part for part in (text.suffix, outputs.suffix) if part),
        tuple(pointers),
        values,
        outputs.count,
    )


def _with_tensors(ops: tuple[EpilogueOp, ...], names: list[str]) -> list[tuple[str, EpilogueOp]]:
    return list(zip(names, [op for op in ops if op.takes_operand], strict=False))


def _panel_tensor(name: str, op: EpilogueOp) -> str:
    if op.kind in NUMBERS:
        return name
    return f"vload({name} + at)" if op.kind in FULL_TENSOR else f"vset({name}[channel])"
