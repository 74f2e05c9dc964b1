"""Convolutions that read and write padded planes: what one writes, the next reads as it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .catalogue import find, source
from .conv_pattern import plan_pattern, whole_tensors
from .epilogue import EpilogueOp, epilogue_text, vector_lines
from .pad_planes import pad_planes
from .planes import ConvGeometry, Planes, plain_planes, planes_for, reads_plain
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Tensor, product
from .winograd import by_phases, plan_winograd

WINOGRAD = {"winograd2": 2, "winograd4": 4}
"""Kernels of Winograd's filtering by the outputs of their tiles, a row."""
_UNLIMITED = 1 << 62


def plan_conv_planes(
    isa: str,
    x: Tensor,
    weights: np.ndarray,
    out: Tensor,
    geometry: ConvGeometry,
    epilogue: tuple[EpilogueOp, ...],
    code: str,
    reason: str,
    layouts: Mapping[int, Planes] | None = None,
    target: Planes | None = None,
) -> list[KernelUse]:
    """`x` * `weights`[O, C / groups, KH, KW]; epilogue operands are from index 2. All sizes but N are known.

    Args:
        x: [N, C, H, W] or [N, C, W], or [N, C, plane] where `layouts` has operand 0.
        out: likewise with `target`.
        code: `pattern` or `dense`: weights compiled into code, or into loops; `depthwise`: one channel in a group;
            a key of WINOGRAD.
        layouts: of operands, by index, that are not NCHW; epilogue operands have no phases, nor has operand 0 of a
            depthwise convolution.
    """
    layouts = layouts or {}
    own = layouts[0] if 0 in layouts else plain_planes(*_size(x))
    target = target or plain_planes(*_size(out))
    reader = weights.shape[2:], geometry
    if code == "depthwise":
        return [replace(_depthwise(isa, own, weights, out, target, geometry, epilogue, layouts), reason=reason)]
    planes, readable = own, _UNLIMITED
    uses: list[KernelUse] = []
    at: Pointer = Operand(0)
    if code in WINOGRAD:
        if geometry.strides != (1, 1):
            planes = planes_for((own.height, own.width), [reader])
            uses, at = pad_planes(isa, x, own, planes)
            weights, planes, geometry = by_phases(weights, planes, geometry)
        what = at, planes, weights, out, target, geometry, epilogue, layouts
        return [*uses, *(replace(use, reason=reason) for use in plan_winograd(isa, WINOGRAD[code], *what))]
    if 0 not in layouts and reads_plain(reader, (own.height, own.width)):
        readable = own.plane
    elif 0 not in layouts or not own.serves(reader):
        planes = planes_for((own.height, own.width), [reader])
        uses, at = pad_planes(isa, x, own, planes)
    use = plan_pattern(
        isa, at, planes, readable, weights, out, target, geometry, epilogue, layouts, dense=code == "dense"
    )
    return [*uses, replace(use, reason=reason)]


def _depthwise(
    isa: str,
    own: Planes,
    weights: np.ndarray,
    out: Tensor,
    target: Planes,
    geometry: ConvGeometry,
    epilogue: tuple[EpilogueOp, ...],
    layouts: Mapping[int, Planes],
) -> KernelUse:
    O, taps = len(weights), weights.shape[2:]  # noqa: E741
    row = find("depthwise_planes", isa)
    text = epilogue_text(epilogue)
    whole = whole_tensors(epilogue)
    tensors = [layouts.get(index, plain_planes(target.height, target.width)) for index in whole.values()]
    lines = vector_lines(epilogue, tuple(
        f"sparsec_load_row({name} + n * {name}_planes->plane, {name}_planes, row, c, valid)"
        if name in whole else f"vset({name}[channel])" for name in text.parameters
    ))  # fmt: skip
    shape = "_".join(f"{h}x{w}" for h, w in (taps, geometry.strides, geometry.dilation))
    name = f"{row.name}_{shape}_{text.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, taps=taps, strides=geometry.strides, dilation=geometry.dilation,
                  epilogue=text, lines=lines, whole=list(whole))  # fmt: skip
    pointers: tuple[Pointer, ...] = (
        Operand(0), Packed(np.ascontiguousarray(weights, np.float32)),
        *(Packed(planes.constant()) for planes in (own, target, *tensors)),
        *(Operand(2 + i) for i in range(len(text.parameters))), OUT,
    )  # fmt: skip
    scalars = (O, O // geometry.groups, *geometry.padding[:2])
    images: Size = out.shape[0]
    macs = product((images, target.height, target.width)) * weights.size
    return KernelUse(row.name, symbol, (unit,), pointers, scalars, images * O, "", macs, images=images)


def _size(tensor: Tensor) -> tuple[int, int]:
    return (1, tensor.shape[2]) if len(tensor.shape) == 3 else (tensor.shape[2], tensor.shape[3])
