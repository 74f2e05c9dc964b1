"""Col2Im, which is a transposed convolution whose weights put each column's element in its place."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("Col2Im")
def col2im(e: Expansion) -> None:
    """Col2Im-18: (columns[N, C · block, positions], image_shape, block_shape) -> [N, C, *image_shape]."""
    image, block = e.value(e.input(1)), e.value(e.input(2))
    if image is None or block is None:
        raise CannotConvert("the shapes of its image and blocks must be constant")
    extents, sides = image.tolist(), block.tolist()
    rank, taps = len(sides), prod(sides)
    strides, dilations = e.attr("strides", [1] * rank), e.attr("dilations", [1] * rank)
    pads = e.attr("pads", [0] * 2 * rank)
    batch, depth, _ = e.shape(e.input(0))
    if not isinstance(depth, int):
        raise CannotConvert("the number of its channels must be known at build time")
    spans = [dilation * (side - 1) + 1 for dilation, side in zip(dilations, sides, strict=True)]
    padded = [extent + pads[i] + pads[i + rank] for i, extent in enumerate(extents)]
    positions = [(p - span) // s + 1 for p, span, s in zip(padded, spans, strides, strict=True)]
    rest = [p - span - (n - 1) * s for p, span, n, s in zip(padded, spans, positions, strides, strict=True)]
    channels = depth // taps
    weights = np.tile(np.eye(taps, dtype=e.dtype(e.input(0))), (channels, 1)).reshape(depth, 1, *sides)
    planes = e.op("Reshape", [e.input(0), e.ints([batch, depth, *positions])])
    attrs = {"group": channels, "strides": strides, "dilations": dilations, "pads": pads, "output_padding": rest}
    e.op("ConvTranspose", [planes, e.constant(weights, "places")], e.node.outputs[0], kernel_shape=sides, **attrs)
