"""Transposes of matrices of 32-bit elements."""

from __future__ import annotations

from .catalogue import find, source
from .use import OUT, KernelUse, Operand, Size, ceil_div


def plan_transpose(isa: str, count: Size, rows: Size, columns: Size) -> list[KernelUse]:
    """[count, rows, columns] to [count, columns, rows]."""
    row = find("transpose", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    extent = count * ceil_div(columns, 64)
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), (rows, columns), extent, "transposed in squares")]
