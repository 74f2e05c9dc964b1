"""Quantization by the range that a tensor has in a run (ONNX DynamicQuantizeLinear)."""

from __future__ import annotations

from .catalogue import find, source
from .use import OUT, KernelUse, Operand, Temp, Tensor, ceil_div, product

_SLICE = 4096
"""Elements whose range one unit finds."""
_GRAIN = 1024


def plan_range(isa: str, x: Tensor) -> list[KernelUse]:
    """x float32 -> float32[2]: scale and zero point."""
    row = find("dynamic_range", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol, slice=_SLICE)
    count = product(x.shape)
    slices = ceil_div(count, _SLICE)
    ranges = Temp("ranges", "float32", (slices, 2))
    return [
        KernelUse(row.name, symbol, (unit,), (Operand(0), ranges), (count,), slices, "range of slices"),
        KernelUse(row.name, f"{symbol}_join", (unit,), (ranges, OUT), (slices,), 1, "range of all"),
    ]


def plan_quantize(isa: str, x: Tensor) -> list[KernelUse]:
    """x float32, and its scale and zero point as float32[2] -> u8."""
    row = find("dynamic_quantize", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    reason = "scale and zero point of the run"
    pointers = (Operand(0), Operand(1), OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, (), product(x.shape), reason, grain=_GRAIN)]
