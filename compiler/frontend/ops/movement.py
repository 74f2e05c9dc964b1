"""Operators that copy elements to other places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from ..context import constant, scalar, sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node, Size


@converter("Transpose")
def transpose(context: Context, node: Node) -> Any:
    """Transpose-25."""
    return relax.op.permute_dims(context.expr(node.inputs[0]), node.attrs.get("perm"))


@converter("Concat")
def concat(context: Context, node: Node) -> Any:
    """Concat-13."""
    parts = [name for name in node.inputs if not context.graph.type_of(name).empty]
    if len(parts) == 1:
        return context.expr(parts[0])
    return relax.op.concat([context.expr(name) for name in parts], node.attrs["axis"])


@converter("Expand")
def expand(context: Context, node: Node) -> Any:
    """Expand-13: broadcasting both ways."""
    target = tuple(context.ints(node.inputs[1], "target shape"))
    shape = context.algebra.broadcast([context.shape(node.inputs[0]), target])
    if context.algebra.same(shape, context.shape(node.inputs[0])):
        return context.expr(node.inputs[0])
    return relax.op.broadcast_to(context.expr(node.inputs[0]), sizes(shape))


@converter("Tile")
def tile(context: Context, node: Node) -> Any:
    """Tile-13."""
    repeats = context.ints(node.inputs[1], "repeats")
    shape = context.shape(node.inputs[0])
    if all(isinstance(r, int) for r in repeats):
        return relax.op.tile(context.expr(node.inputs[0]), repeats)
    if any(not isinstance(r, int) and not context.algebra.equal(d, 1) for d, r in zip(shape, repeats, strict=True)):
        raise CannotConvert("a dynamic repeat count needs an axis of size 1")
    fixed = [r if isinstance(r, int) else 1 for r in repeats]
    x = context.emit(relax.op.tile(context.expr(node.inputs[0]), fixed))
    return relax.op.broadcast_to(x, sizes([context.algebra.size(d * r) for d, r in zip(shape, repeats, strict=True)]))


@converter("Slice")
def slice_(context: Context, node: Node) -> Any:
    """Slice-13, with any steps; bounds are clamped at build time."""
    data = node.inputs[0]
    shape = list(context.shape(data))
    starts, ends = context.ints(node.inputs[1], "starts"), context.ints(node.inputs[2], "ends")
    axes = context.ints(node.input(3), "axes") if node.input(3) else list(range(len(starts)))
    steps = context.ints(node.input(4), "steps") if node.input(4) else [1] * len(starts)
    begin: list[Size] = []
    end: list[Size] = []
    flipped = []
    axes = [int(a) % len(shape) for a in axes]
    for axis, first, last, step in zip(axes, starts, ends, steps, strict=True):
        low, high = _bounds(context, shape[axis], first, last, step)
        begin.append(low)
        end.append(high)
        if step < 0:
            flipped.append(axis)
    strides = [abs(s) for s in steps]
    changed = any(
        not (context.algebra.equal(b, 0) and context.algebra.equal(e, shape[a]) and s == 1)
        for a, b, e, s in zip(axes, begin, end, strides, strict=True)
    )
    x = context.expr(data)
    if changed:
        x = relax.op.strided_slice(x, axes, sizes(begin), sizes(end), sizes(strides), assume_inbound=True)
    for axis in flipped:
        x = relax.op.flip(context.normalize(x), axis)
    return x


def _bounds(context: Context, extent: Size, first: Size, last: Size, step: Size) -> tuple[Size, Size]:
    """An increasing half-open range with the same elements, in order for step > 0 and reversed for step < 0."""
    algebra = context.algebra
    if not isinstance(step, int) or step == 0:
        raise CannotConvert("slice steps must be known at build time and not 0")

    def place(at: Size, low: Size, high: Size) -> Size:
        negative = algebra.decide(at < 0) if not isinstance(at, int) else at < 0
        if negative is None:
            raise CannotConvert("a slice bound may be negative or not, depending on a dynamic dimension")
        return algebra.maximum(low, algebra.minimum(high, algebra.size(at + extent) if negative else at))

    if step > 0:
        begin, end = place(first, 0, extent), place(last, 0, extent)
        return begin, algebra.maximum(begin, end)
    top, bottom = place(first, -1, extent - 1), place(last, -1, extent - 1)
    count = algebra.maximum(0, algebra.ceildiv(algebra.size(top - bottom), -step))
    if isinstance(count, int) and count == 0:
        return 0, 0
    return algebra.size(top + step * (count - 1)), algebra.size(top + 1)


@converter("Split")
def split(context: Context, node: Node) -> Any:
    """Split-18: given sizes, or equal parts with a smaller last one."""
    shape = context.shape(node.inputs[0])
    axis = node.attrs.get("axis", 0) % len(shape)
    extent = shape[axis]
    if node.input(1):
        parts = context.ints(node.inputs[1], "split sizes")
    else:
        count = node.attrs.get("num_outputs", len(node.outputs))
        size = context.algebra.ceildiv(extent, count)
        parts = [size] * (count - 1) + [context.algebra.size(extent - size * (count - 1))]
    x = context.expr(node.inputs[0])
    if len(parts) == 1:
        return x
    results, at = [], 0
    for part in parts:
        end = context.algebra.size(at + part)
        results.append(relax.op.strided_slice(x, [axis], sizes([at]), sizes([end]), assume_inbound=True))
        at = end
    return results


@converter("Gather")
def gather(context: Context, node: Node) -> Any:
    """Gather-13. Indices known at build time become slices or a `take` in range; others a bounds-checked call."""
    data, index = node.inputs
    shape = context.shape(data)
    axis = node.attrs.get("axis", 0) % len(shape)
    out = (*shape[:axis], *context.shape(index), *shape[axis + 1 :])
    known = context.graph.known(index)
    if known is not None and known.size == 1:
        at = context.ints(index, "index")[0]
        if isinstance(at, int) and isinstance(shape[axis], int) and not -shape[axis] <= at < shape[axis]:
            raise CannotConvert(f"its index {at} lies outside of the axis of size {shape[axis]}")
        if context.algebra.decide(at < 0) is True:
            at = context.algebra.size(at + shape[axis])
        low = relax.op.strided_slice(
            context.expr(data), [axis], sizes([at]), sizes([context.algebra.size(at + 1)]), assume_inbound=True
        )
        return context.reshape(context.normalize(low), out)
    value = context.value(index)
    if value is not None and isinstance(shape[axis], int):
        extent = shape[axis]
        if value.size and (int(value.min()) < -extent or int(value.max()) >= extent):
            raise CannotConvert(f"an index lies outside its axis of size {extent}")
        indices = constant(np.where(value < 0, value + extent, value).astype(np.int64))
        return relax.op.take(context.expr(data), indices, axis, mode="fast")
    return relax.call_dps_packed(
        f"sparsec.gather.axis{axis}",
        relax.Tuple([context.expr(data), context.expr(index)]),
        out_ty=relax.TensorType(sizes(out), context.dtype(data)),
    )


@converter("Range")
def range_(context: Context, node: Node) -> Any:
    """Range-11 of integers up to a dynamic limit (constant ranges are folded before)."""
    start, limit, delta = (context.ints(name, "range")[0] for name in node.inputs)
    if not isinstance(delta, int) or delta == 0:
        raise CannotConvert("the step must be constant and not 0")
    algebra = context.algebra
    span = algebra.size(limit - start) if delta > 0 else algebra.size(start - limit)
    count = algebra.maximum(0, algebra.ceildiv(span, abs(delta)))
    dtype = context.dtype(node.inputs[0])

    def values(first: Any, *_: Any) -> Any:
        return te.compute(
            sizes([count]), lambda i: (first + i * tirx.const(delta, "int64")).astype(dtype), name="range"
        )

    return context.builder.emit_te(values, *sizes([start, limit]))


@converter("ConstantOfShape")
def constant_of_shape(context: Context, node: Node) -> Any:
    """ConstantOfShape-25 of a dynamic shape."""
    shape = context.ints(node.inputs[0], "shape")
    value = node.attrs.get("value", np.zeros(1, np.float32)).reshape(-1)[0]
    dtype = str(value.dtype.name)
    return relax.op.full(sizes(shape), scalar(value.item(), dtype), dtype)


@converter("DepthToSpace", "SpaceToDepth")
def depth_to_space(context: Context, node: Node) -> Any:
    """DepthToSpace-13 and SpaceToDepth-28, both in the modes DCR and CRD."""
    n, c, h, w = context.shape(node.inputs[0])
    block = node.attrs["blocksize"]
    x = context.expr(node.inputs[0])
    div = context.algebra.div
    if node.op_type == "SpaceToDepth":
        order = [0, 1, 3, 5, 2, 4] if node.attrs.get("mode", "DCR") == "CRD" else [0, 3, 5, 1, 2, 4]
        steps = [n, c, div(h, block), block, div(w, block), block], order
        out = [n, c * block * block, div(h, block), div(w, block)]
    elif context.attrs(node)["mode"] == "CRD":
        steps = [n, div(c, block * block), block, block, h, w], [0, 1, 4, 2, 5, 3]
        out = [n, div(c, block * block), h * block, w * block]
    else:
        steps = [n, block, block, div(c, block * block), h, w], [0, 3, 4, 1, 5, 2]
        out = [n, div(c, block * block), h * block, w * block]
    x = context.emit(context.reshape(x, steps[0]))
    x = context.emit(relax.op.permute_dims(x, steps[1]))
    return context.reshape(x, [context.algebra.size(d) for d in out])


@converter("OneHot")
def one_hot(context: Context, node: Node) -> Any:
    """OneHot-11: an index outside [-depth, depth) gives a row of off-values."""
    depth = int(context.number(node.inputs[1], "depth"))
    shape, dtype = context.shape(node.inputs[0]), context.dtype(node.inputs[0])
    axis = context.attrs(node)["axis"] % (len(shape) + 1)
    index = context.expr(node.inputs[0])
    if dtype != "int64":
        index = context.emit(relax.op.astype(index, "int64"))
    index = context.emit(context.reshape(index, [*shape[:axis], 1, *shape[axis:]]))
    below = context.emit(relax.op.less(index, scalar(0, "int64")))
    index = context.emit(relax.op.where(below, context.emit(relax.op.add(index, scalar(depth, "int64"))), index))
    classes = constant(np.arange(depth).reshape([-1 if i == axis else 1 for i in range(len(shape) + 1)]))
    hit = context.emit(relax.op.equal(index, classes))
    off, on = (
        context.emit(relax.op.strided_slice(context.expr(node.inputs[2]), [0], sizes([i]), sizes([i + 1])))
        for i in (0, 1)
    )
    return relax.op.where(hit, on, off)


@converter("EyeLike")
def eye_like(context: Context, node: Node) -> Any:
    """EyeLike-22 of a static shape."""
    from ..onnx_schema import to_dtype, to_numpy

    rows, columns = context.shape(node.inputs[0])
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise CannotConvert("an identity matrix of dynamic size is not supported")
    dtype = to_dtype(node.attrs["dtype"]) if "dtype" in node.attrs else context.dtype(node.inputs[0])
    return constant(np.eye(rows, columns, k=node.attrs.get("k", 0), dtype=to_numpy(dtype)))
