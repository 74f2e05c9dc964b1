"""Steps that move quantized images between layouts, and what is computed on planes without weights."""

from __future__ import annotations

import numpy as np

from . import integer
from .catalogue import find, source
from .qplanes import Geometry, Planes, groups
from .use import OUT, KernelUse, Operand, Packed, Size, Tensor

_MAX_ROW = 8192
"""Positions of a row and its padding, in the pooling kernel's buffer."""


def plan_to_planes(isa: str, x: Tensor, planes: Planes, scale: float, zero_point: int) -> list[KernelUse]:
    """NCHW to planes: float is quantized; of u8, and s8 moved up by 128, `scale` is not used."""
    row = find("to_planes", isa)
    kind = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t"}[x.dtype]
    name = f"{row.name}_{x.dtype}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, source=kind)
    numbers = (Packed(np.asarray([integer.inverse(scale)], np.float32)),) if kind == "float" else ()
    images, channels, height, width = x.shape
    scalars = (channels, height, width, planes.pitch, planes.lead, planes.positions, zero_point)
    extent = images * groups(channels)
    reason = "quantized into planes" if kind == "float" else "planes"
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), *numbers, OUT), scalars, extent, reason, images=images)]


def plan_from_planes(isa: str, planes: Planes, out: Tensor) -> list[KernelUse]:
    """Planes to NCHW of u8 or s8."""
    row = find("from_planes", isa)
    name = f"{row.name}_{out.dtype}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, signed=out.dtype == "int8")
    images, channels, height, width = out.shape
    scalars = (channels, height, width, planes.pitch, planes.lead, planes.positions)
    extent = images * groups(channels)
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), scalars, extent, "to NCHW", images=images)]


def plan_copy_planes(
    isa: str,
    sources: list[tuple[Tensor, Planes]],
    planes: Planes,
    zero_point: int,
    reason: str,
    repeat: tuple[int, int] = (1, 1),
) -> list[KernelUse]:
    """Planes of several tensors, one after the other along the channels, as planes of another geometry.

    `repeat`: height and width are so many times those of the source.
    """
    row = find("copy_planes", isa)
    name = f"{row.name}_repeat" if repeat != (1, 1) else row.name
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, repeat=repeat != (1, 1))
    places = Packed(np.asarray(planes.phases, np.int64))
    total = sum(x.shape[1] for x, _ in sources)
    first, uses = 0, []
    for i, (x, own) in enumerate(sources):
        images, depth = x.shape[:2]
        scalars: tuple[Size, ...] = (
            depth, planes.height, planes.width, own.pitch, own.lead, own.plane, first, total, len(planes.phases),
            planes.top, planes.left, *planes.strides, planes.pitch, planes.lead, planes.positions, zero_point,
        )  # fmt: skip
        if repeat != (1, 1):
            scalars += repeat
        pointers = (Operand(i), places, OUT)
        uses.append(KernelUse(row.name, symbol, (unit,), pointers, scalars, images * depth, reason, images=images))
        first += depth
    return uses


def can_pool(window: Geometry, width: int, out_width: int) -> bool:
    """Whether the pooling kernel's buffer holds a row."""
    most = max(window.padding[1] + width, (out_width - 1) * window.strides[1] + window.reach()[1] + 1)
    return most + 2 * 16 <= _MAX_ROW


def plan_pool_planes(
    isa: str, x: Tensor, own: Planes, planes: Planes, window: Geometry, zero_point: int
) -> list[KernelUse]:
    """Maximum over windows."""
    row = find("pool_planes", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol, max_row=_MAX_ROW)
    scalars = (
        own.height, own.width, own.pitch, own.lead, own.plane, planes.height, planes.width, planes.pitch, planes.lead,
        planes.positions, zero_point, *window.kernel, *window.strides, *window.dilation, *window.padding[:2],
    )  # fmt: skip
    reason = f"max over {window.kernel[0]}x{window.kernel[1]}"
    extent = x.shape[0] * x.shape[1]
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), scalars, extent, reason, images=x.shape[0])]
