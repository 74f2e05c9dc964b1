"""Pooling of NCHW planes."""

from __future__ import annotations

from collections.abc import Sequence

from .catalogue import find, source
from .use import OUT, KernelUse, Operand, Tensor, product


def plan_pool(
    isa: str,
    x: Tensor,
    out: Tensor,
    kind: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
) -> list[KernelUse]:
    """`kind` is `max` or `avg`; padding is (top, left, bottom, right)."""
    row = find(f"pool2d_{kind}", isa)
    symbol = f"sparsec_k_{row.name}"
    scalars = (*x.shape[2:], *out.shape[2:], *kernel, *strides, *dilation, *padding, int(count_include_pad))
    return [
        KernelUse(
            row.name,
            symbol,
            (source(row.template, row.name, symbol=symbol, kind=kind),),
            (Operand(0), OUT),
            scalars,
            x.shape[0] * x.shape[1],
            f"{kind} over {kernel[0]}x{kernel[1]}",
        )
    ]


def plan_global_average(isa: str, x: Tensor) -> list[KernelUse]:
    """Mean over height and width of `x`[N, C, H, W]."""
    row = find("global_average_pool", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    count, extent = product(x.shape[2:]), x.shape[0] * x.shape[1]
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), (count,), extent, "mean of planes")]
