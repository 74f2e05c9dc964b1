"""Steps that move quantized images between layouts, and what is computed on planes without weights."""

from __future__ import annotations

import numpy as np

from . import integer
from .catalogue import find, source
from .qplanes import GROUP, TILE, Geometry, Planes, groups
from .use import OUT, KernelUse, Operand, Packed, Size, Tensor

_MAX_ROW = 8192
"""Positions of a row and its padding, in the pooling kernel's buffer."""
_MAX_BYTES = 16384
"""Of a row and its padding, channels side by side, when it is unrolled."""
_REACH = 128
"""Bytes that one permutation chooses from."""
_SOURCE_TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t"}


def plan_to_planes(isa: str, x: Tensor, planes: Planes, scale: float, zero_point: int) -> list[KernelUse]:
    """NCHW to planes: float is quantized; of u8, and s8 moved up by 128, `scale` is not used."""
    row = find("to_planes", isa)
    kind = _SOURCE_TYPES[x.dtype]
    name = f"{row.name}_{x.dtype}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, source=kind)
    numbers = (Packed(np.asarray([integer.inverse(scale)], np.float32)),) if kind == "float" else ()
    images, channels, height, width = x.shape
    scalars = (channels, height, width, planes.pitch, planes.lead, planes.positions, zero_point)
    extent = images * groups(channels)
    reason = "quantized into planes" if kind == "float" else "planes"
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), *numbers, OUT), scalars, extent, reason, images=images)]


def unrolled(window: Geometry) -> Geometry:
    """The window on planes whose channels are the values that a row of it covers: one column, no stride in a row."""
    top, _, bottom, _ = window.padding
    return Geometry((window.kernel[0], 1), (window.strides[0], 1), (window.dilation[0], 1), (top, 0, bottom, 0))


def can_unroll(window: Geometry, channels: int, width: int, columns: int) -> bool:
    """Whether rows of so few channels can be unrolled for a window with so many output columns, and save units."""
    across, step, left = window.kernel[1], window.strides[1], window.padding[1]
    reach = (TILE - 1) * step * channels + GROUP
    if channels >= GROUP or window.dilation[1] != 1 or max(reach, across * channels) > _REACH:
        return False
    most = max(left + width, (columns - 1) * step + across) * channels
    return most <= _MAX_BYTES and groups(across * channels) < across


def plan_unroll_rows(
    isa: str, x: Tensor, planes: Planes, scale: float, zero_point: int, window: Geometry
) -> list[KernelUse]:
    """NCHW as `plan_to_planes` takes it to planes [N, columns of the window * C, H, output columns].

    `planes.width` is the number of output columns; `window` is the one before it was `unrolled`.
    """
    row = find("unroll_rows", isa)
    kind = _SOURCE_TYPES[x.dtype]
    images, channels, height, width = x.shape
    name = f"{row.name}_{x.dtype}_{channels}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, source=kind, channels=channels, most=_MAX_BYTES)
    numbers = (Packed(np.asarray([integer.inverse(scale)], np.float32)),) if kind == "float" else ()
    depth, phases = groups(window.kernel[1] * channels), len(planes.phases)
    scalars = (
        depth, height, width, planes.width, window.strides[1], window.padding[1], phases, planes.top,
        planes.strides[0], planes.pitch, planes.positions, zero_point,
    )  # fmt: skip
    extent = images * (phases * (planes.positions // planes.pitch))
    pointers = (Operand(0), *numbers, Packed(np.asarray(planes.phases, np.int64)), OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, "planes of whole rows", images=images)]


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
