"""Resampling. Resize is linear and separable, so each resized axis is a small table of source indices and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from ...graph import REPEAT
from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..graph import Node
from ..onnx_schema import NEWEST, evaluate
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Size

_MAX_ENTRIES = 1 << 25
"""Largest input x output extent of one axis whose table is probed."""


@dataclass(frozen=True)
class _Dynamic:
    """How positions on an axis of dynamic extent are found."""

    linear: bool
    mode: str
    nearest: str
    extent: Size
    scale: float | None


@dataclass
class _Axis:
    """One resized axis: out[i] = Σ_t weights[i, t] · x[indices[i, t]]."""

    axis: int
    out: Size
    indices: np.ndarray | None = None
    weights: np.ndarray | None = None
    """None where every weight is 1 (nearest)."""
    factor: int = 0
    """The index is i // factor where that is all there is to it."""
    dynamic: _Dynamic | None = None


@converter("Resize")
def resize(context: Context, node: Node) -> Any:
    """Resize-19: nearest, linear and cubic in every coordinate mode but tf_crop_and_resize beyond the input."""
    shape = context.shape(node.inputs[0])
    targets, scales = _targets(context, node, shape)
    axes = [
        _axis(context, node, i, shape[i], targets[i], scales[i] if scales else None)
        for i in range(len(shape))
        if not (context.algebra.equal(targets[i], shape[i]) and (scales is None or scales[i] == 1.0))
    ]
    x = context.expr(node.inputs[0])
    dtype = context.dtype(node.inputs[0])
    as_float = not dtype.startswith("float") and any(a.weights is not None or a.dynamic for a in axes)
    if as_float:
        x = context.emit(relax.op.astype(x, "float32"))
    few = all(a.indices is None or a.indices.shape[1] <= 2 for a in axes)
    for group in [axes] if few and len(axes) <= 2 else [[a] for a in axes]:
        if group:
            x = _sample(context, x, group)
    return relax.op.astype(x, dtype) if as_float else x


def _targets(context: Context, node: Node, shape: tuple[Size, ...]) -> tuple[list[Size], list[float] | None]:
    """Output sizes, and the scales where those are what the model gives."""
    rank = len(shape)
    axes = [a % rank for a in node.attrs.get("axes", range(rank))]
    targets: list[Size] = list(shape)
    if node.input(3):
        wanted = context.ints(node.inputs[3], "sizes")
        policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            if any(not isinstance(d, int) for d in [*shape, *wanted]):
                raise CannotConvert(f"keep_aspect_ratio_policy {policy} needs fixed sizes")
            ratios = [w / shape[a] for w, a in zip(wanted, axes, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            wanted = [int(np.floor(ratio * shape[a] + 0.5)) for a in axes]
        for axis, size in zip(axes, wanted, strict=True):
            targets[axis] = size
        return targets, None
    value = context.value(node.input(2)) if node.input(2) else None
    if value is None:
        raise CannotConvert("its scales must be known at build time")
    scales = [1.0] * rank
    for axis, scale in zip(axes, value.tolist(), strict=True):
        scales[axis] = scale
        targets[axis] = _scaled(context, shape[axis], scale)
        _check_corners(node, shape[axis], targets[axis], scale)
    return targets, scales


def _check_corners(node: Node, extent: Size, out: Size, scale: float) -> None:
    """With aligned corners the last position depends on the output's size: rounded or not, engines disagree."""
    if node.attrs.get("coordinate_transformation_mode") != "align_corners":
        return
    if isinstance(extent, int) and isinstance(out, int) and abs(extent * scale - out) > 1e-3:
        raise CannotConvert(f"align_corners with a scale that makes {extent * scale:g} of {extent}: give sizes instead")


def _scaled(context: Context, extent: Size, scale: float) -> Size:
    """floor(extent · scale), exact for an int and for whole or unit-fraction scales of a dynamic size."""
    if isinstance(extent, int):
        return int(np.floor(np.float32(extent) * np.float32(scale)))
    if float(scale).is_integer():
        return context.algebra.size(extent * int(scale))
    inverse = round(1 / scale)
    if np.float32(1 / inverse) == np.float32(scale):
        return context.algebra.div(extent, inverse)
    raise CannotConvert(f"scaling a dynamic dimension by {scale}: bind the dimension")


def _axis(context: Context, node: Node, axis: int, extent: Size, out: Size, scale: float | None) -> _Axis:
    attrs = context.attrs(node)
    if not isinstance(extent, int) or not isinstance(out, int):
        return _symbolic_axis(attrs, axis, extent, out, scale)
    matrix = _matrix(context, node, attrs, axis, extent, out, scale)
    taps = np.maximum(1, (matrix != 0).sum(axis=1)).max()
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]
    weights = np.take_along_axis(matrix, order, axis=1)
    order = np.where(weights == 0, order[:, :1], order)
    if taps == 1 and bool(np.all(weights == 1)):
        factor = out // extent if out % extent == 0 else 0
        if factor and bool(np.all(order[:, 0] == np.arange(out) // factor)):
            return _Axis(axis, out, factor=factor)
        return _Axis(axis, out, order.astype(np.int32))
    return _Axis(axis, out, order.astype(np.int32), weights.astype(np.float32))


def _symbolic_axis(attrs: dict[str, Any], axis: int, extent: Size, out: Size, scale: float | None) -> _Axis:
    """An axis whose extent is dynamic: source positions are computed at run time."""
    mode, nearest = attrs["coordinate_transformation_mode"], attrs["nearest_mode"]
    exact = (mode, nearest) == ("asymmetric", "floor") or (mode == "half_pixel" and nearest.startswith("round"))
    if attrs["mode"] == "nearest" and scale is not None and float(scale).is_integer() and exact:
        return _Axis(axis, out, factor=int(scale))
    if attrs["mode"] == "cubic" or attrs.get("antialias", 0) or mode not in _COORDINATES:
        raise CannotConvert(f"{attrs['mode']} resizing of a dynamic dimension in mode {mode}: bind the dimension")
    return _Axis(axis, out, dynamic=_Dynamic(attrs["mode"] == "linear", mode, nearest, extent, scale))


def _positions(i: Any, out: Any, a: _Dynamic) -> list[tuple[Any, Any]]:
    """(weight, source index) pairs of output i; weight None stands for 1. float32, as in onnxruntime."""
    extent = sizes([a.extent])[0]
    last = extent - 1
    scale = tirx.const(a.scale, "float32") if a.scale else out.astype("float32") / extent.astype("float32")
    at = _COORDINATES[a.mode](i.astype("float32"), scale, extent, out)
    zero = tirx.const(0, "int64")
    if not a.linear:
        half = tirx.const(0.5, "float32")
        rounded = {
            "floor": lambda: tirx.floor(at),
            "ceil": lambda: tirx.ceil(at),
            "round_prefer_floor": lambda: tirx.ceil(at - half),
            "round_prefer_ceil": lambda: tirx.floor(at + half),
        }[a.nearest]()
        return [(None, tirx.max(zero, tirx.min(rounded.astype("int64"), last)))]
    at = tirx.max(tirx.const(0.0, "float32"), tirx.min(at, last.astype("float32")))
    low = tirx.min(tirx.floor(at).astype("int64"), last)
    part = at - low.astype("float32")
    return [(tirx.const(1.0, "float32") - part, low), (part, tirx.min(low + 1, last))]


def _half_pixel(i: Any, scale: Any, extent: Any, out: Any) -> Any:
    half = tirx.const(0.5, "float32")
    return (i + half) / scale - half


def _align_corners(i: Any, scale: Any, extent: Any, out: Any) -> Any:
    steps = tirx.max(out - 1, tirx.const(1, "int64")).astype("float32")
    return i * (extent - 1).astype("float32") / steps


_COORDINATES = {
    "align_corners": _align_corners,
    "asymmetric": lambda i, scale, extent, out: i / scale,
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": lambda i, scale, extent, out: tirx.Select(
        out > 1, _half_pixel(i, scale, extent, out), tirx.const(0.0, "float32")
    ),
}


def _matrix(
    context: Context, node: Node, attrs: dict[str, Any], axis: int, extent: int, out: int, scale: float | None
) -> np.ndarray:
    """The axis' resampling matrix [out, in], read off by resizing unit vectors with the reference implementation."""
    if extent * max(out, extent) > _MAX_ENTRIES:
        raise CannotConvert(f"resizing an axis from {extent} to {out} is not supported")
    names = ("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode")
    probe_attrs = {name: attrs[name] for name in names if name in attrs}
    roi = None
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        whole = context.value(node.input(1)) if node.input(1) else None
        if whole is None:
            raise CannotConvert("its region of interest must be known at build time")
        listed = [a % len(context.shape(node.inputs[0])) for a in attrs.get("axes", [])]
        place = listed.index(axis) if listed else axis
        start, end = whole.reshape(2, -1)[:, place]
        if min(start, end) < 0 or max(start, end) > 1:
            raise CannotConvert("a region of interest beyond the input is not supported")
        roi = np.array([0, start, 1, end], np.float32)
    probe = Node("Resize", ["x", "roi", "scales", "sizes"], ["y"], probe_attrs, version=NEWEST)
    scales = np.array([1, scale], np.float32) if scale is not None else None
    goal = np.array([extent, out], np.int64) if scale is None else None
    for four in (False, True):
        eye: np.ndarray = np.eye(extent, dtype=np.float32)
        inputs = [eye, roi, scales, goal]
        if four:  # onnxruntime's cubic takes four dimensions only
            front = np.array([1, 1])
            inputs = [
                eye[None, None],
                np.concatenate([[0, 0], roi[:2], [1, 1], roi[2:]]).astype(np.float32) if roi is not None else None,
                np.concatenate([front, scales]).astype(np.float32) if scales is not None else None,
                np.concatenate([front, goal]) if goal is not None else None,
            ]
        outputs = evaluate(probe, inputs)
        if outputs is not None and outputs[0].size == extent * out:
            return outputs[0].reshape(extent, out).T
    raise CannotConvert(f"its mode ({', '.join(f'{k}={v}' for k, v in probe_attrs.items())}) is not supported")


def _taps(a: _Axis, i: Any, indices: Any, weights: Any, dtype: str) -> list[tuple[Any, Any]]:
    """(weight, source index) pairs of output i; weight None stands for 1."""
    if a.dynamic is not None:
        pairs = _positions(i, sizes([a.out])[0], a.dynamic)
        return [(w if w is None else w.astype(dtype), at) for w, at in pairs]
    if indices is None:
        return [(None, tirx.floordiv(i, a.factor))]
    assert a.indices is not None
    return [
        (weights[i, t].astype(dtype) if weights is not None else None, indices[i, t].astype("int64"))
        for t in range(a.indices.shape[1])
    ]


def _sample(context: Context, x: Any, group: list[_Axis]) -> Any:
    """One kernel that resamples the axes of `group` together."""
    shape = list(context.normalize(x).ty.shape.values)
    for a in group:
        shape[a.axis] = a.out
    tables: list[Any] = []
    for a in group:
        for table in (a.indices, a.weights):
            if table is not None:
                tables.append(constant(table))

    def body(data: Any, *arrays: Any) -> Any:
        queue = list(arrays)
        sources = []
        for a in group:
            indices = queue.pop(0) if a.indices is not None else None
            weights = queue.pop(0) if a.weights is not None else None
            sources.append((a, indices, weights))

        def element(*index: Any) -> Any:
            terms: list[tuple[Any, list[Any]]] = [(None, list(index))]
            for a, indices, weights in sources:
                grown = []
                for weight, at in terms:
                    i = index[a.axis]
                    for own, source in _taps(a, i, indices, weights, data.dtype):
                        place = list(at)
                        place[a.axis] = source
                        grown.append((own if weight is None else weight if own is None else weight * own, place))
                terms = grown
            total = None
            for weight, place in terms:
                term = data(*place) if weight is None else weight * data(*place)
                total = term if total is None else total + term
            return total

        return te.compute(sizes(shape), element, name="resize")

    extents = [a.dynamic.extent for a in group if a.dynamic is not None]
    extra = [d for d in [*shape, *extents] if not isinstance(d, (int, tirx.IntImm))]
    return context.builder.emit_te(
        lambda data, *args: body(data, *args[: len(tables)]),
        x,
        *tables,
        *extra,
        primfunc_name_hint=_name(len(shape), group),
    )


def _name(rank: int, group: list[_Axis]) -> str:
    """Of the function: where every element is repeated along axes, passes read off the name how often."""
    if any(not a.factor for a in group):
        return "resize"
    factors = {a.axis: a.factor for a in group}
    return REPEAT + "x".join(str(factors.get(i, 1)) for i in range(rank)) + "_times"
