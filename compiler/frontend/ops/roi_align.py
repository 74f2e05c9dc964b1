"""Regions of a feature map, resampled to one size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

from ..context import sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("RoiAlign")
def roi_align(context: Context, node: Node) -> Any:
    """RoiAlign-22, the mean of a fixed number of samples per bin."""
    attrs = context.attrs(node)
    grid = attrs["sampling_ratio"]
    if attrs["mode"] != "avg":
        raise CannotConvert("RoiAlign of maxima is not supported")
    if grid <= 0:
        raise CannotConvert("RoiAlign with a number of samples that depends on the region is not supported")
    if context.dtype(node.inputs[0]) not in ("float32", "float64"):
        raise CannotConvert("RoiAlign needs float32 or float64")
    aligned = attrs["coordinate_transformation_mode"] == "half_pixel"
    dtype = context.dtype(node.inputs[0])
    _, channels, height, width = sizes(context.shape(node.inputs[0]))
    regions = sizes(context.shape(node.inputs[1]))[0]
    rows, columns = attrs["output_height"], attrs["output_width"]

    def number(value: float) -> Any:
        return tirx.const(value, dtype)

    def body(data: Any, rois: Any, batches: Any) -> Any:
        def place(r: Any, axis: int, bin_: Any, sample: Any, bins: int) -> Any:
            scale, offset = number(attrs["spatial_scale"]), number(0.5 if aligned else 0.0)
            first, last = (rois[r, axis + side] * scale - offset for side in (0, 2))
            extent = last - first if aligned else tirx.max(last - first, number(1.0))
            step = extent / number(bins)
            inner = (tirx.Cast(dtype, sample) + number(0.5)) * step / number(grid)
            return first + tirx.Cast(dtype, bin_) * step + inner

        def corners(at: Any, extent: Any) -> tuple[Any, Any, Any]:
            """The two neighbours, and the share of the second."""
            top = tirx.Cast(dtype, extent - 1)
            inside = tirx.max(tirx.min(at, top), number(0.0))
            low = tirx.Cast("int64", tirx.floor(inside))
            return low, tirx.min(low + 1, extent - 1), inside - tirx.floor(inside)

        def outside(at: Any, extent: Any) -> Any:
            return tirx.any(at < number(-1.0), at > tirx.Cast(dtype, extent))

        samples = [te.reduce_axis((0, grid), name=name) for name in ("sy", "sx")]

        def total(r: Any, c: Any, i: Any, j: Any) -> Any:
            y, x = place(r, 1, i, samples[0], rows), place(r, 0, j, samples[1], columns)
            (y0, y1, dy), (x0, x1, dx) = corners(y, height), corners(x, width)
            image = tirx.Cast("int64", batches[r])
            one = number(1.0)
            upper = data[image, c, y0, x0] * (one - dx) + data[image, c, y0, x1] * dx
            lower = data[image, c, y1, x0] * (one - dx) + data[image, c, y1, x1] * dx
            value = upper * (one - dy) + lower * dy
            return te.sum(
                tirx.if_then_else(tirx.any(outside(y, height), outside(x, width)), number(0.0), value), axis=samples
            )

        shape = [regions, channels, *sizes([rows, columns])]
        sums = te.compute(shape, total, name="roi_sum")
        return te.compute(shape, lambda *i: sums(*i) / number(grid * grid), name="roi_align")

    return context.builder.emit_te(body, *[context.expr(name) for name in node.inputs])
