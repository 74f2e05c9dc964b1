"""The step that copies planes to planes of another layout."""

from __future__ import annotations

from .catalogue import find, source
from .planes import Planes
from .use import KernelUse, Operand, Pointer, Temp, Tensor


def pad_planes(isa: str, x: Tensor, own: Planes, planes: Planes) -> tuple[list[KernelUse], Pointer]:
    """The step for operand 0, `x`[N, C, …] in planes `own` without strides, and where it leaves the `planes`."""
    row = find("pad_planes", isa)
    count = x.shape[0] * x.shape[1]
    temp = Temp("planes", "float32", (*x.shape[:2], planes.plane))
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    scalars = (
        own.plane, own.top * own.pitch + own.left, own.pitch, planes.height, planes.width, planes.top, planes.left,
        planes.stride_h, planes.stride_w, planes.phases_h, planes.phases_w, planes.plane, planes.phase, planes.pitch,
    )  # fmt: skip
    reason = "planes by phases" if planes.strides != (1, 1) else "padded input planes"
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), temp), scalars, count, reason, images=x.shape[0])], temp
