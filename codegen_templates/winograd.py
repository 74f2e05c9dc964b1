"""Convolutions by Winograd's minimal filtering, AVX-512: fewer products, some additions.

F(m x m, r x r) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): m x m outputs take
(m + r - 1)² products where the definition takes r² m². Transformed filters are constants, (m + r - 1)² / r² times the
weights. A convolution with strides is one without over the phases of its input as channels, of fewer taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .catalogue import find, source
from .conv_pattern import whole_tensors
from .epilogue import EpilogueOp, epilogue_text, vector_lines
from .pattern import MAX_ROWS, PatternCode, dense_blocks, dense_stream, rows_per_block
from .planes import ConvGeometry, Planes, plain_planes
from .use import OUT, Code, KernelUse, Operand, Packed, Pointer, Size, Temp, Tensor, product

_LANES = 16
FILTERS = {
    (2, 3): ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    (4, 3): (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    (4, 4): (
        (-1 / 2, 0, 0, 0),
        (-1 / 3, -1 / 3, -1 / 3, -1 / 3),
        (1 / 9, -1 / 9, 1 / 9, -1 / 9),
        (1 / 36, 1 / 18, 1 / 9, 2 / 9),
        (-1 / 60, 1 / 30, -1 / 15, 2 / 15),
        (32 / 45, 16 / 45, 8 / 45, 4 / 45),
        (0, 0, 0, 1),
    ),
}
"""By m and r: the transform of a filter of r taps; winograd.h has those of inputs and outputs."""


def by_phases(weights: np.ndarray, planes: Planes, geometry: ConvGeometry) -> tuple[np.ndarray, Planes, ConvGeometry]:
    """A convolution of `planes`, made for it alone, as one without strides: its weights, planes and geometry.

    The phases of a plane are channels. Taps that a phase does not have are zero, so that each has as many.
    """
    O, C, *taps = weights.shape  # noqa: E741
    (sh, sw), (ph, pw) = planes.strides, (planes.phases_h, planes.phases_w)
    rows, columns = -(-taps[0] // sh), -(-taps[1] // sw)
    padded = np.zeros((O, C, rows * sh, columns * sw), np.float32)
    padded[:, :, : taps[0], : taps[1]] = weights
    split = padded.reshape(O, C, rows, sh, columns, sw)[:, :, :, :ph, :, :pw].transpose(0, 1, 3, 5, 2, 4)
    height = -(-(planes.height + planes.top + planes.bottom) // sh)
    phases = replace(plain_planes(height, planes.pitch), filled=planes.filled, phase=planes.phase, plane=planes.phase)
    unit = ConvGeometry((1, 1), (1, 1), (0, 0, 0, 0), 1)
    return np.ascontiguousarray(split.reshape(O, C * ph * pw, rows, columns)), phases, unit


def plan_winograd(
    isa: str,
    m: int,
    at: Pointer,
    planes: Planes,
    weights: np.ndarray,
    out: Tensor,
    target: Planes,
    geometry: ConvGeometry,
    epilogue: tuple[EpilogueOp, ...],
    layouts: Mapping[int, Planes],
) -> list[KernelUse]:
    """`at`, in `planes` without phases, * `weights`[O, C, r, r] in tiles of `m` x `m` outputs, stored in `target`.

    Strides, dilation and groups are 1; any padding. `layouts`: of epilogue operands that are not NCHW.
    """
    C, r = weights.shape[1:3]
    points = (m + r - 1) ** 2
    down, across = -(-target.height // m), -(-target.width // m)
    vectors = -(-down * across // _LANES)
    images: Size = out.shape[0]
    domain = Temp("winograd", "float32", (images, vectors * points * (C | 1) * _LANES))
    return [
        _input(isa, (m, r), at, planes, domain, (images, C), geometry, (down, across)),
        _products(isa, m, domain, weights, out, target, epilogue, layouts, (across, vectors)),
    ]


def _input(
    isa: str,
    form: tuple[int, int],
    at: Pointer,
    planes: Planes,
    domain: Temp,
    count: tuple[Size, int],
    geometry: ConvGeometry,
    grid: tuple[int, int],
) -> KernelUse:
    row = find("winograd_input", isa)
    name = f"{row.name}_{form[0]}x{form[1]}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, m=form[0], r=form[1])
    pointers = (at, Packed(planes.constant()), domain)
    scalars = (count[1], *geometry.padding[:2], *grid)
    return KernelUse(row.name, symbol, (unit,), pointers, scalars, product(count), "tiles", images=count[0])


def _products(
    isa: str,
    m: int,
    domain: Temp,
    weights: np.ndarray,
    out: Tensor,
    target: Planes,
    epilogue: tuple[EpilogueOp, ...],
    layouts: Mapping[int, Planes],
    grid: tuple[int, int],
) -> KernelUse:
    O, C, r = weights.shape[:3]  # noqa: E741
    row = find("winograd", isa)
    text = epilogue_text(epilogue)
    whole = whole_tensors(epilogue)
    tensors = [layouts.get(index, plain_planes(target.height, target.width)) for index in whole.values()]
    lines = vector_lines(epilogue, tuple(
        f"sparsec_load_row({name} + (n * channels + channel) * {name}_planes->plane, {name}_planes, row, column, mask)"
        if name in whole else f"vset({name}[channel])" for name in text.parameters
    ))  # fmt: skip
    name = f"{row.name}_{m}x{r}_{text.suffix}".rstrip("_")
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, m=m, r=r, most_rows=MAX_ROWS, epilogue=text, lines=lines,
                  whole=list(whole))  # fmt: skip
    height = rows_per_block(O)
    blocks = dense_blocks(O, 1, height)
    values, starts = dense_stream(transformed(weights, m).reshape(O, -1).view(np.int32), blocks)
    code = PatternCode("f32", np.zeros(1, np.int64), blocks, C, 4 * _LANES, 1)
    pointers: tuple[Pointer, ...] = (
        domain, Packed(values), Packed(starts), Code(code), *(Packed(t.constant()) for t in (target, *tensors)),
        *(Operand(2 + i) for i in range(len(text.parameters))), OUT,
    )  # fmt: skip
    across, vectors = grid
    scalars = (C, O, height, across, vectors)
    images: Size = out.shape[0]
    macs = product((images, target.height, target.width)) * weights.size
    return KernelUse(
        row.name, symbol, (unit,), pointers, scalars, images * (len(blocks) * vectors), "", macs, images=images
    )


def transformed(weights: np.ndarray, m: int) -> np.ndarray:
    """[O, C, r, r] -> float32 [O, (m + r - 1)², C]."""
    g = np.asarray(FILTERS[m, weights.shape[2]], np.float64)
    points = np.einsum("ij,ocjk,lk->oilc", g, weights.astype(np.float64), g)
    return np.ascontiguousarray(points.reshape(len(weights), len(g) ** 2, -1), np.float32)
