"""Convolutions of NCHW planes: direct, depthwise, and as a matrix product where the planes are single positions."""

from __future__ import annotations

import numpy as np

from .catalogue import find, source
from .epilogue import EpilogueOp, epilogue_text
from .gemm import plan_linear
from .pad_planes import pad_planes
from .planes import ConvGeometry, plain_planes, planes_for, reads_plain
from .use import OUT, KernelUse, Operand, Packed, Size, Tensor, ceil_div, product

_RUN_BYTES = 256 << 10
"""Of input planes that should stay in the L2 cache while the blocks of output channels pass by."""
_MAX_TAPS = 1024
_UNLIMITED = 1 << 62


def plan_conv(
    isa: str,
    x: Tensor,
    weights: np.ndarray,
    out: Tensor,
    geometry: ConvGeometry,
    epilogue: tuple[EpilogueOp, ...],
) -> list[KernelUse]:
    """`x`[N, C, H, W] (or [N, C, W]) * `weights`[O, C / groups, KH, KW]; epilogue operands are from index 2."""
    height, width = (1, x.shape[2]) if len(x.shape) == 3 else x.shape[2:]
    out_h, out_w = (1, out.shape[2]) if len(out.shape) == 3 else out.shape[2:]
    O, I = weights.shape[:2]  # noqa: E741
    kernel_h, kernel_w = weights.shape[2:]
    if kernel_h * kernel_w > _MAX_TAPS:
        raise ValueError(f"a kernel of {kernel_h}x{kernel_w} has more than {_MAX_TAPS} taps")
    if covers((height, width), (out_h, out_w), weights, geometry):
        flat = np.ascontiguousarray(weights.reshape(O, -1).T)
        return plan_linear(isa, Tensor(x.dtype, (x.shape[0], flat.shape[0])), flat, epilogue)
    depthwise = I == 1 and geometry.groups > 1
    kernel = find("depthwise" if depthwise else "conv2d", isa)
    lanes = kernel.columns // kernel.vectors
    reader = (kernel_h, kernel_w), geometry
    in_place = not depthwise and reads_plain(reader, (height, width), kernel.vectors, lanes)
    own = plain_planes(height, width)
    planes = own if in_place else planes_for((height, width), [reader], kernel.columns)
    uses, source_planes = ([], Operand(0)) if in_place else pad_planes(isa, x, own, planes)
    taps = (*geometry.strides, *geometry.dilation, planes.phases_w)
    text = epilogue_text(epilogue)
    extra = tuple(Operand(2 + i) for i in range(len(text.parameters)))
    macs = product(out.shape) * I * kernel_h * kernel_w
    scalars: tuple[Size, ...]
    if depthwise:
        name = f"{kernel.name}_{kernel_h}x{kernel_w}_{text.suffix}".rstrip("_")
        symbol = f"sparsec_k_{name}"
        unit = source(kernel.template, name, symbol=symbol, kernel_h=kernel_h, kernel_w=kernel_w, nv=kernel.vectors,
                      epilogue=text)  # fmt: skip
        scalars = (O, O // geometry.groups, planes.plane, planes.phase, planes.pitch, out_h, out_w, *taps)
        pointers = (source_planes, Packed(np.ascontiguousarray(weights, np.float32)), *extra, OUT)
        reason = f"depthwise {kernel_h}x{kernel_w}"
        return [
            *uses,
            KernelUse(kernel.name, symbol, (unit,), pointers, scalars, x.shape[0] * O, reason, macs, images=x.shape[0]),
        ]
    name = f"{kernel.name}_{text.suffix}".rstrip("_")
    symbol, tile_symbol = f"sparsec_k_{name}", f"sparsec_tile_{kernel.name}"
    tile = source("conv2d_tile", f"tile_{kernel.name}", tile_symbol=tile_symbol, mr=kernel.rows, nv=kernel.vectors)
    unit = source(kernel.template, name, symbol=symbol, tile_symbol=tile_symbol, mr=kernel.rows, nv=kernel.vectors,
                  max_taps=_MAX_TAPS, epilogue=text)  # fmt: skip
    per_group = O // geometry.groups
    run = max(1, _RUN_BYTES // (4 * I * kernel.columns * planes.phases_h * planes.phases_w)) * kernel.columns
    scalars = (
        geometry.groups, I, per_group, planes.plane, planes.phase, planes.pitch, out_h, out_w, kernel_h, kernel_w,
        *taps, run, height * width if in_place else _UNLIMITED,
    )  # fmt: skip
    positions = (out_h - 1) * planes.pitch + out_w
    extent = x.shape[0] * geometry.groups * ceil_div(positions, run) * -(-per_group // kernel.rows)
    packed = pack_weights(weights, geometry.groups, kernel.rows)
    reason = f"dense {kernel_h}x{kernel_w}" + (f" in {geometry.groups} groups" if geometry.groups > 1 else "")
    pointers = (source_planes, Packed(packed), *extra, OUT)
    return [
        *uses,
        KernelUse(kernel.name, symbol, (tile, unit), pointers, scalars, extent, reason, macs, images=x.shape[0]),
    ]


def pack_weights(weights: np.ndarray, groups: int, rows: int) -> np.ndarray:
    """[O, I, KH, KW] -> [groups, ⌈O / groups / rows⌉, I, KH * KW, rows], padded with zeros."""
    O, I = weights.shape[:2]  # noqa: E741
    per_group = O // groups
    blocks = -(-per_group // rows)
    padded = np.zeros((groups, blocks * rows, I, weights.shape[2] * weights.shape[3]), np.float32)
    padded[:, :per_group] = weights.reshape(groups, per_group, I, -1)
    return np.ascontiguousarray(padded.reshape(groups, blocks, rows, I, -1).transpose(0, 1, 3, 4, 2))


def covers(size: tuple[Size, Size], out: tuple[Size, Size], weights: np.ndarray, geometry: ConvGeometry) -> bool:
    """Whether the kernel is the whole image, unpadded: then the convolution is a matrix product."""
    one = all(isinstance(s, int) and s == 1 for s in out)
    whole = size == weights.shape[2:] and not any(geometry.padding) and geometry.dilation == (1, 1)
    return geometry.groups == 1 and one and whole
