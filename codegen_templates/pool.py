"""Pooling of NCHW planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .catalogue import find, source
from .planes import Planes, plain_planes
from .use import OUT, KernelUse, Operand, Tensor


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
    layouts: Mapping[int, Planes] | None = None,
    target: Planes | None = None,
) -> list[KernelUse]:
    """`kind` is `max` or `avg`; padding is (top, left, bottom, right); the planes of either side have no phases."""
    row = find(f"pool2d_{kind}", isa)
    symbol = f"sparsec_k_{row.name}"
    own = layouts[0] if layouts else plain_planes(*x.shape[2:])
    to = target or plain_planes(*out.shape[2:])
    scalars = (
        own.height, own.width, own.plane, own.top * own.pitch + own.left, own.pitch,
        to.height, to.width, to.plane, to.top * to.pitch + to.left, to.pitch, to.filled,
        *kernel, *strides, *dilation, *padding, int(count_include_pad),
    )  # fmt: skip
    return [
        KernelUse(
            row.name,
            symbol,
            (source(row.template, row.name, symbol=symbol, kind=kind),),
            (Operand(0), OUT),
            scalars,
            x.shape[0] * x.shape[1],
            f"{kind} over {kernel[0]}x{kernel[1]}",
            images=x.shape[0],
        )
    ]


def plan_global_average(isa: str, x: Tensor, layouts: Mapping[int, Planes] | None = None) -> list[KernelUse]:
    """Mean over height and width of `x`[N, C, H, W]; its planes have no phases."""
    row = find("global_average_pool", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    own = layouts[0] if layouts else plain_planes(*x.shape[2:])
    scalars = (own.plane, own.filled, own.height * own.width)
    extent = x.shape[0] * x.shape[1]
    return [
        KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), scalars, extent, "mean of planes", images=x.shape[0])
    ]
