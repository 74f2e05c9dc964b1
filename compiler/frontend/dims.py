"""Binding the model's input dimensions: every one becomes an int or a range."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, TypeAlias

from ...errors import ModelError, ShapeError
from .graph import MOST_ELEMENTS, DynamicDim, Graph, Size, TensorType
from .linear import Sum, parse
from .onnx_schema import Refused, to_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

Bound: TypeAlias = "int | tuple[int, int] | str"
"""A size, the lowest and highest size of a dimension that stays open, or a sum of other dimensions as text."""


def bind_inputs(
    graph: Graph,
    inputs: list[onnx.ValueInfoProto],
    dims: Mapping[str, Bound],
    shapes: Mapping[str, Sequence[Bound | None]],
    sums: Mapping[str, Sum],
) -> None:
    """Give every input of `graph` its type.

    Args:
        graph: receives `inputs`, `types` and `dims`.
        inputs: the model's inputs, those with an initializer left out.
        dims: by ONNX dimension name.
        shapes: by input name; None leaves an axis to the model and to `dims`.
        sums: dimensions with bounds that are sums of others besides.

    Raises:
        ShapeError: a dimension is unbound, a name is unknown, or bindings contradict the model or each other.
    """
    declared = {value.name: _declared(value) for value in inputs}
    names = {d for _, axes in declared.values() for d in axes or () if isinstance(d, str)}
    _check_known("dimension", "--dim", sorted(dims.keys() - names), sorted(names))
    _check_known("input", "--shape", sorted(shapes.keys() - declared.keys()), sorted(declared))
    bound = _by_shapes(declared, dims, shapes)
    sums = _with_bounds(bound, sums)
    unbound: list[str] = []
    for name, (dtype, declared_axes) in declared.items():
        given = shapes.get(name)
        if declared_axes is None and given is None:
            unbound.append(f"input '{name}' has no declared rank: --shape {name}=SIZE,…")
            continue
        axes: list[int | str | None] = declared_axes or [None] * len(given or ())
        shape: list[Size] = []
        for i, axis in enumerate(axes):
            value = given[i] if given is not None else None
            if isinstance(axis, int):
                shape.append(axis)
            elif isinstance(axis, str) and axis in bound:
                shape.append(_size(graph, axis, bound, sums))
            elif value is not None:
                shape.append(_size(graph, f"{name}_{i}", {**bound, f"{name}_{i}": _checked("", value)}, sums))
            else:
                unbound.append(_unbound(name, axes, given, i))
        _check_size(graph, name, shape)
        graph.inputs.append(name)
        graph.types[name] = TensorType(dtype, tuple(shape))
    if unbound:
        unique = list(dict.fromkeys(unbound))
        raise ShapeError("Bind every dimension of the inputs:\n" + "\n".join(f"  {line}" for line in unique))


def _declared(value: onnx.ValueInfoProto) -> tuple[str, list[int | str | None] | None]:
    """dtype and axes: int, the dimension's name, or None for one without a name; None for an unknown rank.

    An optional tensor counts as one that is there.
    """
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    if kind.WhichOneof("value") != "tensor_type":
        raise ModelError(f"Input '{value.name}' is not a tensor (sequences and maps are not supported).")
    tensor = kind.tensor_type
    try:
        dtype = to_dtype(tensor.elem_type)
    except Refused as error:
        raise ModelError(f"Input '{value.name}': {error}.") from None
    if not tensor.HasField("shape"):
        return dtype, None
    axes: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value > 0:
            axes.append(dim.dim_value)
        else:
            axes.append(dim.dim_param if dim.dim_param not in ("", "?", "None", "-1") else None)
    return dtype, axes


def _by_shapes(
    declared: dict[str, tuple[str, list[int | str | None] | None]],
    dims: Mapping[str, Bound],
    shapes: Mapping[str, Sequence[Bound | None]],
) -> dict[str, Bound]:
    """`dims` completed by what `shapes` say of named dimensions."""
    bound = {name: _checked(f"--dim {name}", value) for name, value in dims.items()}
    for name, given in shapes.items():
        axes = declared[name][1]
        if axes is None:
            continue
        if len(axes) != len(given):
            raise ShapeError(
                f"--shape {name} gives {len(given)} dimensions, but the model declares {len(axes)}: "
                f"{name}[{','.join(_text(a) for a in axes)}]."
            )
        for i, (axis, asked) in enumerate(zip(axes, given, strict=True)):
            if asked is None:
                continue
            value = _checked(f"--shape {name}, axis {i}", asked)
            if isinstance(axis, int) and value != axis:
                raise ShapeError(f"--shape {name} gives {_text(value)} for axis {i}, but the model fixes it at {axis}.")
            if isinstance(axis, str) and bound.setdefault(axis, value) != value:
                raise ShapeError(
                    f"--shape {name} gives {_text(value)} for axis {i}, but its dimension '{axis}' is bound "
                    f"to {_text(bound[axis])} elsewhere."
                )
    return bound


def _checked(where: str, value: Bound) -> Bound:
    if isinstance(value, str):
        return value
    lower, upper = (value, value) if isinstance(value, int) else value
    if lower < 0 or upper < lower:
        raise ShapeError(f"{where}: {_text(value)} is not a size; give an int, or LOW..HIGH from 0 up.")
    return lower if lower == upper else (lower, upper)


def _check_size(graph: Graph, name: str, shape: list[Size]) -> None:
    elements = prod(map(graph.algebra.largest, shape))
    if elements > MOST_ELEMENTS:
        raise ShapeError(f"Input '{name}' has up to {elements} elements; {MOST_ELEMENTS} are possible: bind less.")


def _with_bounds(bound: dict[str, Bound], sums: Mapping[str, Sum]) -> dict[str, Sum]:
    """All sums, with those that `bound` gives as text; there they get the bounds that follow."""
    given = {name: parse(value) for name, value in bound.items() if isinstance(value, str)}
    for name, total in given.items():
        missing = [n for n in total.terms if isinstance(bound.get(n, ""), str)]
        if missing:
            raise ShapeError(f"--dim {name}={total}: the dimension {missing[0]} must have a size or bounds of its own.")
        lower, upper = (total.size({n: _ends(bound[n])[i] for n in total.terms}) for i in range(2))
        bound[name] = lower if lower == upper else (lower, upper)
    return {**sums, **given}


def _ends(bound: Bound) -> tuple[int, int]:
    assert not isinstance(bound, str)
    return (bound, bound) if isinstance(bound, int) else bound


def _size(graph: Graph, name: str, bound: Mapping[str, Bound], sums: Mapping[str, Sum]) -> Size:
    lower, upper = _ends(bound[name])
    if lower == upper:
        return lower
    if name not in graph.dims:
        equals = None
        if name in sums:
            equals = graph.algebra.size(sums[name].size({n: _size(graph, n, bound, sums) for n in sums[name].terms}))
            if isinstance(equals, int):
                return equals
        graph.dims[name] = DynamicDim(name, graph.algebra.new_dim(name, lower, upper), lower, upper, equals=equals)
    dim = graph.dims[name]
    return dim.var if dim.equals is None else dim.equals


def _unbound(name: str, axes: list[int | str | None], given: Sequence[Bound | None] | None, i: int) -> str:
    axis = axes[i]
    if isinstance(axis, str):
        return f"dimension '{axis}' of input '{name}': --dim {axis}=1 (or a range, --dim {axis}=1..8)"
    parts = []
    for k, other in enumerate(axes):
        if isinstance(other, int):
            parts.append(str(other))
        else:
            parts.append(_text(given[k]) if given is not None and given[k] is not None else "?")
    return f"axis {i} of input '{name}' has no name: --shape {name}={','.join(parts)} with a size for each ?"


def _text(value: Bound | str | None) -> str:
    if value is None:
        return "?"
    return f"{value[0]}..{value[1]}" if isinstance(value, tuple) else str(value)


def _check_known(kind: str, flag: str, unknown: list[str], valid: list[str]) -> None:
    if unknown:
        names = ", ".join(repr(n) for n in valid) or "none"
        raise ShapeError(f"{flag}: the model has no {kind} named '{unknown[0]}'; it has {names}.")
