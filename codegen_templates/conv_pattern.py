"""Convolutions whose weights are compiled into code (see pattern.py): the zeros of a sparse one cost nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .catalogue import find, source
from .epilogue import FULL_TENSOR, EpilogueOp, epilogue_text, vector_lines
from .pattern import (
    MOST_ROWS,
    MOST_SEGMENTS,
    Ending,
    keeps_sums,
    rows_per_block,
)
from .planes import ConvGeometry, Planes, plain_planes, tap_offsets, tile_segments
from .row_code import dense_code, sparse_code, sparse_rows
from .use import OUT, Code, KernelUse, Operand, Packed, Pointer, Size, Tensor, product

_RUN_BYTES = 512 << 10
"""Of input planes that should stay in the L2 cache while the blocks of output channels pass by."""
_TILE = 16
_MOST_TOGETHER = 4
"""Images that meet a block of weights one after the other, where they are small."""


def plan_pattern(
    isa: str,
    source_planes: Pointer,
    planes: Planes,
    readable: int,
    weights: np.ndarray,
    out: Tensor,
    target: Planes,
    geometry: ConvGeometry,
    epilogue: tuple[EpilogueOp, ...],
    layouts: Mapping[int, Planes],
    *,
    dense: bool,
) -> KernelUse:
    """The convolution of planes at `source_planes` by `weights`[O, C / groups, KH, KW], stored in planes `target`.

    `readable` positions of a plane may be read. `out`[N, O, …]; `layouts`: of epilogue operands that are not plain.
    `dense`: by a loop over channels that takes every weight, one group only.
    """
    O, KH, KW = weights.shape[0], *weights.shape[2:]  # noqa: E741
    units = matrix_of(weights, geometry.groups)
    taps = 4 * tap_offsets(planes, ((KH, KW), geometry))
    channels = units.shape[1] // len(taps)
    tiles = -(-((target.height - 1) * planes.pitch + target.width) // _TILE)
    most = max(1, _RUN_BYTES // (4 * _TILE * channels * planes.phases_h * planes.phases_w))
    run = -(-tiles // -(-tiles // most))
    whole = whole_tensors(epilogue)
    plain = plain_planes(target.height, target.width)
    tensors = [layouts.get(index, plain) for index in whole.values()]
    tables = [tile_segments(t, planes.pitch, readable) for t in (target, *tensors)]
    ending = _ending(epilogue, target, tensors, tables) if keeps_sums(isa) else None
    height = rows_per_block(O) if dense else min(O, MOST_ROWS) if keeps_sums(isa) else sparse_rows(isa, "f32", units)
    if dense:
        code, values, starts = dense_code(
            isa, "f32", units, taps, 4 * planes.plane, height, tiles=run, fetch_activations=True, ending=ending
        )
    else:
        offsets = (4 * planes.plane * np.arange(channels)[:, None] + taps).reshape(-1)
        code, values, starts = sparse_code(
            isa, "f32", units, offsets, height, tiles=run, fetch_activations=True, ending=ending
        )
    row = find("conv2d_dense" if dense else "conv2d_sparse", isa)
    text = epilogue_text(epilogue)
    if ending is None:
        lines = vector_lines(epilogue, tuple(_lanes(name, name in whole) for name in text.parameters))
        name = f"conv_pattern_{row.isa}_{text.suffix}".rstrip("_")
    else:
        lines = []
        name = "_".join([f"conv_pattern_{row.isa}_ending", *text.parameters])
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, epilogue=text, lines=lines, whole=list(whole),
                  ending=ending is not None, bias=ending is not None and ending.has_bias)  # fmt: skip
    pointers = (
        source_planes, Packed(values), Packed(starts), Code(code), Packed(target.constant()), *map(Packed, tables),
        *(Operand(2 + i) for i in range(len(text.parameters))), OUT,
    )  # fmt: skip
    together = min(_MOST_TOGETHER, max(1, _RUN_BYTES // (4 * channels * planes.plane)))
    scalars = (
        O,
        channels * planes.plane,
        O * target.plane,
        *(t.plane for t in tensors),
        height,
        run,
        tiles,
        readable,
        together,
        *([] if ending is None else [ending.segments, ending.added_segments]),
    )
    images: Size = out.shape[0]
    extent = images * (len(code.blocks) * tiles)
    per_position = weights.size if dense else int(np.count_nonzero(weights))
    macs = product((images, target.height, target.width)) * per_position
    return KernelUse(row.name, symbol, (unit,), pointers, scalars, extent, "", macs, images=images)


def _ending(
    epilogue: tuple[EpilogueOp, ...], target: Planes, added: list[Planes], tables: list[np.ndarray]
) -> Ending | None:
    """The epilogue as part of the code, where code can do it."""
    rest = epilogue[1:] if epilogue and epilogue[0].kind == "bias" else epilogue
    segments = [int(np.diff(t[1 : 2 + t[0]]).max()) for t in tables]
    if (
        target.strides != (1, 1)
        or any(op.kind not in ("add", "relu", "clip") for op in rest)
        or len(added) > 1
        or max(segments) > MOST_SEGMENTS
    ):
        return None
    if not added:
        return Ending(epilogue, 4 * target.plane, segments[0])
    return Ending(epilogue, 4 * target.plane, segments[0], 4 * added[0].plane, segments[1])


def whole_tensors(epilogue: tuple[EpilogueOp, ...]) -> dict[str, int]:
    """Operands of the epilogue that are shaped like the output, by the name of their parameter."""
    taking = [op for op in epilogue if op.takes_operand]
    named = zip(epilogue_text(epilogue).parameters, taking, strict=True)
    return {name: 2 + i for i, (name, op) in enumerate(named) if op.kind in FULL_TENSOR}


def _lanes(name: str, whole: bool) -> str:
    """C: the values of an epilogue's tensor that belong to the lanes of a tile."""
    if not whole:
        return f"vset({name}[channel])"
    return f"sparsec_gathered({name} + (n * channels + channel) * {name}_plane, {name}_from)"


def matrix_of(weights: np.ndarray, groups: int) -> np.ndarray:
    """[O, C / groups, KH, KW] -> the bits of the weights, [O, C * KH * KW]; what lies in other groups is zero."""
    O = len(weights)  # noqa: E741
    flat = (weights.astype(np.float32, copy=False) + np.float32(0)).reshape(O, -1)  # no negative zeros
    if groups == 1:
        return np.ascontiguousarray(flat).view(np.int32)
    whole = np.zeros((groups, O // groups, groups, flat.shape[1]), np.float32)
    index = np.arange(groups)
    whole[index, :, index] = flat.reshape(groups, O // groups, -1)
    return whole.reshape(O, -1).view(np.int32)
