"""Unique, of a sort and a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("Unique")
def unique(e: Expansion) -> None:
    """Unique-11 of all elements: (Y, indices of the first of each, inverse indices, counts), Y ascending or not."""
    shape = e.shape(e.input(0))
    if "axis" in e.node.attrs and len(shape) != 1:
        raise CannotConvert("unique slices along an axis are not supported")
    y, first, inverse, counts = ([*e.node.outputs, "", "", ""])[:4]
    flat = e.op("Reshape", [e.input(0), e.ints([-1])])
    count = e.count(e.input(0))
    length = e.ints([count])
    zero, one = e.ints([0]), e.ints([1])
    values, order = e.ops("TopK", [flat, length], 2, axis=0, largest=0, sorted=1)
    before = e.op("Slice", [values, zero, e.ints([count - 1]), zero])
    after = e.op("Slice", [values, one, length, zero])
    changes = e.op("Not", [e.op("Equal", [before, after])])
    begins = e.op("Concat", [e.constant(np.ones(1, bool), "begin"), changes], axis=0)
    places = e.op("Squeeze", [e.op("NonZero", [begins]), zero])
    found, index = e.op("Gather", [values, places]), e.op("Gather", [order, places])
    groups = e.op("Sub", [e.op("CumSum", [e.op("Cast", [begins], to=TensorProto.INT64), zero]), one])
    bounds = e.op("Concat", [places, length], axis=0)
    ends = e.op("Slice", [bounds, one, e.ints([2**62]), zero])
    number = e.op("Sub", [ends, places])
    if not e.attr("sorted", 1):
        index, rank = e.ops("TopK", [index, e.op("Shape", [index])], 2, axis=0, largest=0, sorted=1)
        found, number = e.op("Gather", [found, rank]), e.op("Gather", [number, rank])
        _, places = e.ops("TopK", [rank, e.op("Shape", [rank])], 2, axis=0, largest=0, sorted=1)
        groups = e.op("Gather", [places, groups])
    for name, made in ((y, found), (first, index), (counts, number)):
        if name:
            e.op("Identity", [made], name)
    if inverse:
        e.op("ScatterElements", [groups, order, groups], inverse, axis=0)
