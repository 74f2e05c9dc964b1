"""Convolutions of NCHW planes: direct, depthwise, and as a matrix product where the planes are single positions."""

from __future__ import annotations

import numpy as np

from .catalogue import find, source
from .conv_pattern import plan_pattern
from .epilogue import EpilogueOp, epilogue_text
from .gemm import plan_linear
from .planes import ConvGeometry, Planes, plain_planes, planes_for
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Temp, Tensor, ceil_div, product

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
    code: str = "",
    reason: str = "",
) -> list[KernelUse]:
    """`x`[N, C, H, W] (or [N, C, W]) * `weights`[O, C / groups, KH, KW]; epilogue operands are from index 2.

    `code`: `pattern` or `dense` for weights compiled into code, all sizes but N known.
    """
    height, width = (1, x.shape[2]) if len(x.shape) == 3 else x.shape[2:]
    out_h, out_w = (1, out.shape[2]) if len(out.shape) == 3 else out.shape[2:]
    O, I = weights.shape[:2]  # noqa: E741
    kernel_h, kernel_w = weights.shape[2:]
    if kernel_h * kernel_w > _MAX_TAPS:
        raise ValueError(f"a kernel of {kernel_h}x{kernel_w} has more than {_MAX_TAPS} taps")
    if geometry.groups == 1 and _is_one(out_h, out_w) and _covers(height, width, weights, geometry):
        flat = np.ascontiguousarray(weights.reshape(O, -1).T)
        return plan_linear(isa, Tensor(x.dtype, (x.shape[0], flat.shape[0])), flat, epilogue)
    if code:
        planes = _planes((height, width), (kernel_h, kernel_w), geometry, 1, 16)
        uses, source_planes = _padded(isa, x, planes)
        use = plan_pattern(
            isa, source_planes, planes, weights, out, plain_planes(out_h, out_w), geometry, epilogue, {},
            dense=code == "dense", reason=reason,
        )  # fmt: skip
        return [*uses, use]
    depthwise = I == 1 and geometry.groups > 1
    kernel = find("depthwise" if depthwise else "conv2d", isa)
    lanes = kernel.columns // kernel.vectors
    planes = _planes((height, width), (kernel_h, kernel_w), geometry, kernel.vectors, lanes, in_place=not depthwise)
    uses, source_planes = _padded(isa, x, planes)
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
        return [*uses, KernelUse(kernel.name, symbol, (unit,), pointers, scalars, x.shape[0] * O, reason, macs)]
    name = f"{kernel.name}_{text.suffix}".rstrip("_")
    symbol, tile_symbol = f"sparsec_k_{name}", f"sparsec_tile_{kernel.name}"
    tile = source("conv2d_tile", f"tile_{kernel.name}", tile_symbol=tile_symbol, mr=kernel.rows, nv=kernel.vectors)
    unit = source(kernel.template, name, symbol=symbol, tile_symbol=tile_symbol, mr=kernel.rows, nv=kernel.vectors,
                  max_taps=_MAX_TAPS, epilogue=text)  # fmt: skip
    per_group = O // geometry.groups
    run = max(1, _RUN_BYTES // (4 * I * kernel.columns * planes.phases_h * planes.phases_w)) * kernel.columns
    scalars = (
        geometry.groups, I, per_group, planes.plane, planes.phase, planes.pitch, out_h, out_w, kernel_h, kernel_w,
        *taps, run, height * width if planes.plain else _UNLIMITED,
    )  # fmt: skip
    positions = (out_h - 1) * planes.pitch + out_w
    extent = x.shape[0] * geometry.groups * ceil_div(positions, run) * -(-per_group // kernel.rows)
    packed = pack_weights(weights, geometry.groups, kernel.rows)
    reason = f"dense {kernel_h}x{kernel_w}" + (f" in {geometry.groups} groups" if geometry.groups > 1 else "")
    pointers = (source_planes, Packed(packed), *extra, OUT)
    return [*uses, KernelUse(kernel.name, symbol, (tile, unit), pointers, scalars, extent, reason, macs)]


def pack_weights(weights: np.ndarray, groups: int, rows: int) -> np.ndarray:
    """[O, I, KH, KW] -> [groups, ⌈O / groups / rows⌉, I, KH * KW, rows], padded with zeros."""
    O, I = weights.shape[:2]  # noqa: E741
    per_group = O // groups
    blocks = -(-per_group // rows)
    padded = np.zeros((groups, blocks * rows, I, weights.shape[2] * weights.shape[3]), np.float32)
    padded[:, :per_group] = weights.reshape(groups, per_group, I, -1)
    return np.ascontiguousarray(padded.reshape(groups, blocks, rows, I, -1).transpose(0, 1, 3, 4, 2))


def _is_one(*sizes: Size) -> bool:
    return all(isinstance(s, int) and s == 1 for s in sizes)


def _covers(height: Size, width: Size, weights: np.ndarray, geometry: ConvGeometry) -> bool:
    """Whether the kernel is the whole image, unpadded: then the convolution is a matrix product."""
    return (height, width) == weights.shape[2:] and not any(geometry.padding) and geometry.dilation == (1, 1)


def _planes(
    size: tuple[Size, Size],
    taps: tuple[int, int],
    geometry: ConvGeometry,
    vectors: int,
    lanes: int,
    in_place: bool = True,
) -> Planes:
    """Where a kernel of tiles of so many vectors finds its input: as it is where no tap reads beside it."""
    positions = size[0] * size[1]
    whole = geometry.strides == (1, 1) and not any(geometry.padding) and taps == (1, 1)
    fits = isinstance(positions, int) and (positions >= vectors * lanes or positions % lanes == 0)
    return plain_planes(*size) if in_place and whole and fits else planes_for(size, taps, geometry, vectors * lanes)


def _padded(isa: str, x: Tensor, planes: Planes) -> tuple[list[KernelUse], Pointer]:
    """The step that makes the planes, and where they are."""
    if planes.plain:
        return [], Operand(0)
    kernel = find("pad_planes", isa)
    count = x.shape[0] * x.shape[1]
    temp = Temp("planes", "float32", (count, planes.plane))
    symbol = f"sparsec_k_{kernel.name}"
    unit = source(kernel.template, kernel.name, symbol=symbol)
    scalars = (
        planes.height, planes.width, planes.top, planes.left, planes.stride_h, planes.stride_w,
        planes.phases_h, planes.phases_w, planes.plane, planes.phase, planes.pitch,
    )  # fmt: skip
    use = KernelUse(kernel.name, symbol, (unit,), (Operand(0), temp), scalars, count, "padded input planes")
    return [use], temp
