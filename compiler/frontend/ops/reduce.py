"""Reductions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tvm import relax, te, tirx

from ..context import scalar
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..context import Context
    from ..graph import Node


@converter("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceProd")
def reduce_(context: Context, node: Node) -> Any:
    """ReduceMax-20, ReduceMin-20 (bool as well), ReduceMean-18, ReduceSum-13, ReduceProd-18."""
    function = {
        "ReduceMax": functools.partial(_extreme, context, True),
        "ReduceMin": functools.partial(_extreme, context, False),
        "ReduceMean": functools.partial(_mean, context),
        "ReduceSum": relax.op.sum,
        "ReduceProd": relax.op.prod,
    }[node.op_type]
    if context.dtype(node.inputs[0]) == "bool":
        as_number = context.emit(relax.op.astype(context.expr(node.inputs[0]), "uint8"))
        return relax.op.astype(context.normalize(_over_axes(context, node, function, as_number)), "bool")
    return _over_axes(context, node, function, context.expr(node.inputs[0]))


def _mean(context: Context, x: Any, axes: list[int] | None, keepdims: bool) -> Any:
    """Of integers towards zero, in their own type."""
    dtype = str(x.ty.dtype.dtype)
    if dtype.startswith("float"):
        return relax.op.mean(x, axes, keepdims=keepdims)
    exact = context.emit(relax.op.astype(x, "float64"))
    return relax.op.astype(context.emit(relax.op.mean(exact, axes, keepdims=keepdims)), dtype)


def _extreme(context: Context, largest: bool, x: Any, axes: list[int] | None, keepdims: bool) -> Any:
    """Maximum or minimum. For floats it starts from an infinity; Relax's own starts from the largest finite number,
    which is wrong for rows of infinities (masks)."""
    dtype = str(x.ty.dtype.dtype)
    if not dtype.startswith("float"):
        return (relax.op.max if largest else relax.op.min)(x, axes, keepdims=keepdims)
    start = float("-inf") if largest else float("inf")

    def pick(a: Any, b: Any) -> Any:
        return tirx.max(a, b) if largest else tirx.min(a, b)

    reducer = te.comm_reducer(pick, lambda t: tirx.const(start, t), name="extreme")
    shape = list(x.ty.shape.values)
    reduced = list(range(len(shape))) if axes is None else axes
    out = [tirx.const(1, "int64") if i in reduced else d for i, d in enumerate(shape)]
    kept = [d for i, d in enumerate(shape) if i not in reduced]

    def body(data: Any) -> Any:
        axis = {i: te.reduce_axis((0, shape[i]), name=f"k{i}") for i in reduced}

        def element(*index: Any) -> Any:
            spatial = iter(index)
            at = []
            for i in range(len(shape)):
                outer = next(spatial) if keepdims or i not in reduced else None
                at.append(axis[i] if i in reduced else outer)
            return reducer(data(*at), axis=list(axis.values()))

        return te.compute(out if keepdims else kept, element, name="reduce_max" if largest else "reduce_min")

    return context.builder.emit_te(body, x)


def _over_axes(context: Context, node: Node, function: Callable[..., Any], x: Any) -> Any:
    axes = axes_of(context, node)
    return x if axes == [] else function(x, axes, keepdims=bool(node.attrs.get("keepdims", 1)))


def axes_of(context: Context, node: Node) -> list[int] | None:
    """The reduced axes, None for all of them, [] for none."""
    rank = len(context.shape(node.inputs[0]))
    axes = context.ints(node.inputs[1], "axes") if node.input(1) else []
    if not axes:
        return [] if node.attrs.get("noop_with_empty_axes", 0) or rank == 0 else None
    if any(not isinstance(a, int) for a in axes):
        raise CannotConvert("reduction axes must be constant")
    return sorted(int(a) % rank for a in axes)


@converter("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def reduce_composed(context: Context, node: Node) -> Any:
    """ReduceL1-18, ReduceL2-18, ReduceSumSquare-18, ReduceLogSum-18."""
    x = context.expr(node.inputs[0])
    if node.op_type == "ReduceL1":
        x = context.emit(relax.op.abs(x))
    elif node.op_type != "ReduceLogSum":
        x = context.emit(relax.op.multiply(x, x))
    total = context.normalize(_over_axes(context, node, relax.op.sum, x))
    dtype = context.dtype(node.inputs[0])
    if node.op_type == "ReduceL2":
        return _in_float(context, relax.op.sqrt, total, dtype)
    return _in_float(context, relax.op.log, total, dtype) if node.op_type == "ReduceLogSum" else total


def _in_float(context: Context, function: Callable[[Any], Any], x: Any, dtype: str) -> Any:
    if dtype.startswith("float"):
        return function(x)
    y = context.normalize(function(context.emit(relax.op.astype(x, "float64"))))
    return relax.op.astype(y, dtype)


@converter("ReduceLogSumExp")
def reduce_log_sum_exp(context: Context, node: Node) -> Any:
    """ReduceLogSumExp-18, with the maximum taken out so that exp cannot overflow."""
    x, dtype = context.expr(node.inputs[0]), context.dtype(node.inputs[0])
    if not dtype.startswith("float"):
        raise CannotConvert("ReduceLogSumExp of integers is not supported")
    axes = axes_of(context, node)
    if axes == []:
        return x
    top = context.normalize(_extreme(context, True, x, axes, True))
    infinite = context.emit(relax.op.isinf(top))  # inf - inf would be NaN
    largest = context.emit(relax.op.where(infinite, scalar(0.0, dtype), top))
    shifted = context.emit(relax.op.exp(context.normalize(relax.op.subtract(x, largest))))
    total = context.emit(relax.op.sum(shifted, axes, keepdims=True))
    y = context.emit(relax.op.add(context.normalize(relax.op.log(total)), largest))
    return y if node.attrs.get("keepdims", 1) else relax.op.squeeze(y, axes)
