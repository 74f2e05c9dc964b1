"""Convolutions of NCHW planes: direct, depthwise, and as a matrix product where the planes are single positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .catalogue import Kernel, find, source
from .epilogue import EpilogueOp, epilogue_text
from .gemm import plan_linear
from .use import OUT, KernelUse, Operand, Packed, Pointer, Size, Temp, Tensor, ceil_div, product

_RUN_BYTES = 256 << 10
"""Of input planes that should stay in the L2 cache while the blocks of output channels pass by."""
_MAX_TAPS = 1024
_UNLIMITED = 1 << 62


@dataclass(frozen=True)
class ConvGeometry:
    """Strides, dilation and padding (top, left, bottom, right) of a 2-D convolution (ONNX Conv-22)."""

    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int


@dataclass(frozen=True)
class _Planes:
    """How the kernel finds a plane's rows: see pad_planes.c.j2."""

    height: Size
    width: Size
    phases: tuple[int, int]
    pitch: Size
    phase: Size
    plane: Size
    readable: Size
    in_place: bool


def plan_conv(
    isa: str, x: Tensor, weights: np.ndarray, out: Tensor, geometry: ConvGeometry, epilogue: tuple[EpilogueOp, ...]
) -> list[KernelUse]:
    """`x`[N, C, H, W] (or [N, C, W]) * `weights`[O, C / groups, KH, KW]; epilogue operands are from index 2."""
    height, width = (1, x.shape[2]) if len(x.shape) == 3 else x.shape[2:]
    out_h, out_w = (1, out.shape[2]) if len(out.shape) == 3 else out.shape[2:]
    O, I = weights.shape[:2]  # noqa: E741
    kernel_h, kernel_w = weights.shape[2:]
    if kernel_h * kernel_w > _MAX_TAPS:
        raise ValueError(f"a kernel of {kernel_h}x{kernel_w} has more than {_MAX_TAPS} taps")
    if geometry.groups == 1 and _is_one(out_h, out_w) and _covers(height, width, weights, geometry):
        flat = np.ascontiguousarray(weights.reshape(O, -1).T)
        return plan_linear(isa, Tensor(x.dtype, (x.shape[0], flat.shape[0])), flat, epilogue)
    depthwise = I == 1 and geometry.groups > 1
    kernel = find("depthwise" if depthwise else "conv2d", isa)
    planes = _planes(kernel, (height, width), (out_h, out_w), (kernel_h, kernel_w), geometry, depthwise)
    uses, source_planes = _padded(isa, x, (height, width), planes, geometry)
    taps = (*geometry.strides, *geometry.dilation, planes.phases[1])
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
    run = max(1, _RUN_BYTES // (4 * I * kernel.columns * planes.phases[0] * planes.phases[1])) * kernel.columns
    scalars = (
        geometry.groups, I, per_group, planes.plane, planes.phase, planes.pitch, out_h, out_w, kernel_h, kernel_w,
        *taps, run, planes.readable,
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
    kernel: Kernel,
    size: tuple[Size, Size],
    out: tuple[Size, Size],
    taps: tuple[int, int],
    geometry: ConvGeometry,
    depthwise: bool,
) -> _Planes:
    (height, width), (top, left, bottom, right) = size, geometry.padding
    phases_h, phases_w = (
        max(k * d % s for k in range(n)) + 1 for n, d, s in zip(taps, geometry.dilation, geometry.strides, strict=True)
    )
    plain = geometry.strides == (1, 1) and not any(geometry.padding)
    positions = height * width
    lanes = kernel.columns // kernel.vectors
    fits = isinstance(positions, int) and (positions >= kernel.columns or positions % lanes == 0)
    if plain and taps == (1, 1) and fits and not depthwise:
        return _Planes(height, width, (1, 1), width, positions, positions, positions, True)
    # Where columns are contiguous, one gap between two rows serves as padding of both, unless more outputs than that
    # lie in a row.
    reach = (taps[1] - 1) * geometry.dilation[1]
    if geometry.strides[1] == 1:
        pitch = width + (max(left, right) if min(left, right) <= reach else left + right)
    else:
        pitch = ceil_div(width + left + right, geometry.strides[1])
    rows = ceil_div(height + top + bottom, geometry.strides[0])
    # The last tile may read a whole tile beyond the last position; keep planes on 64-byte lines.
    phase = ceil_div(rows * pitch + max(left, right) + kernel.columns, 16) * 16
    return _Planes(height, width, (phases_h, phases_w), pitch, phase, phase * (phases_h * phases_w), _UNLIMITED, False)


def _padded(
    isa: str, x: Tensor, size: tuple[Size, Size], planes: _Planes, geometry: ConvGeometry
) -> tuple[list[KernelUse], Pointer]:
    """The step that makes the planes, and where they are."""
    if planes.in_place:
        return [], Operand(0)
    kernel = find("pad_planes", isa)
    count = x.shape[0] * x.shape[1]
    temp = Temp("planes", "float32", (count, planes.plane))
    symbol = f"sparsec_k_{kernel.name}"
    unit = source(kernel.template, kernel.name, symbol=symbol)
    scalars = (
        *size,
        *geometry.padding[:2],
        *geometry.strides,
        *planes.phases,
        planes.plane,
        planes.phase,
        planes.pitch,
    )
    use = KernelUse(kernel.name, symbol, (unit,), (Operand(0), temp), scalars, count, "padded input planes")
    return [use], temp
