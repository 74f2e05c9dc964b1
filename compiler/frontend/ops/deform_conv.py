"""DeformConv: every tap samples the input where an offset points, the rest is a product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("DeformConv")
def deform_conv(e: Expansion) -> None:
    """DeformConv-22 of images: (X[N, C, H, W], W[M, C / group, kH, kW], offset, bias, mask)."""
    x, offset, mask = e.input(0), e.input(2), e.input(4)
    batch, channels, height, width = e.shape(x) if len(e.shape(x)) == 4 else (None,) * 4
    made, _, *sides = e.shape(e.input(1))
    rows, columns = e.shape(offset)[2:4] if len(e.shape(offset)) == 4 else (None, None)
    known = (channels, height, width, made, *sides, rows, columns)
    if not all(isinstance(size, int) for size in known):
        raise CannotConvert("only images of sizes known at build time are supported: bind height and width")
    taps, groups, offsets = sides[0] * sides[1], e.attr("group", 1), e.attr("offset_group", 1)
    strides, dilations, pads = e.attr("strides", [1, 1]), e.attr("dilations", [1, 1]), e.attr("pads", [0] * 4)
    at = np.meshgrid(np.arange(sides[0]) * dilations[0], np.arange(sides[1]) * dilations[1],
                     np.arange(rows) * strides[0] - pads[0], np.arange(columns) * strides[1] - pads[1],
                     indexing="ij")  # fmt: skip
    base = np.stack([at[0] + at[2], at[1] + at[3]]).reshape(2, taps * rows, columns).astype(e.dtype(x))
    where = e.op("Reshape", [offset, e.ints([batch, offsets, taps, 2, rows, columns])])
    factors = None if not mask else e.op("Reshape", [mask, e.ints([batch, offsets, 1, taps * rows, columns])])
    depth, parts = channels // offsets, []
    for g in range(offsets):
        own = e.op("Gather", [where, e.constant(np.array(g), "group")], axis=1)
        part = e.op("Slice", [x, e.ints([g * depth]), e.ints([(g + 1) * depth]), e.ints([1])])
        coordinates = []
        for axis, extent in ((1, width), (0, height)):
            moved = e.op("Gather", [own, e.constant(np.array(axis), "axis")], axis=2)
            place = e.op("Add", [e.op("Reshape", [moved, e.ints([batch, taps * rows, columns])]),
                                 e.constant(base[axis], "places")])  # fmt: skip
            scaled = e.op("Mul", [place, e.scalar(2 / extent, x)])  # GridSample's -1 to 1 are the outer edges
            coordinates.append(e.op("Unsqueeze", [e.op("Add", [scaled, e.scalar(1 / extent - 1, x)]), e.ints([-1])]))
        grid = e.op("Concat", coordinates, axis=-1)
        sampled = e.op("GridSample", [part, grid], mode="linear", padding_mode="zeros", align_corners=0)
        if factors is not None:
            sampled = e.op("Mul", [sampled, e.op("Gather", [factors, e.constant(np.array(g), "group")], axis=1)])
        parts.append(sampled)
    joined = e.op("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
    inner = channels // groups * taps
    factor = e.op("Reshape", [joined, e.ints([batch, groups, inner, rows * columns])])
    weights = e.op("Reshape", [e.input(1), e.ints([1, groups, made // groups, inner])])
    product = e.op("MatMul", [weights, factor])
    if e.input(3):
        product = e.op("Add", [product, e.op("Reshape", [e.input(3), e.ints([1, groups, made // groups, 1])])])
    e.op("Reshape", [product, e.ints([batch, made, rows, columns])], e.node.outputs[0])
