"""Transposes in a row, or with reshapes between them that only join dimensions and split them again, as one transpose.

    reshape(permute(reshape(x, [a * b, c, d]), [0, 2, 1]), [a, b, d, c])  ->  permute(x, [0, 1, 3, 2])

is how torch exports the transposed keys of attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from ..graph import Dataflow, Graph, op_name


def merge_transposes(graph: Graph) -> Graph:
    """Rewrites what it finds; what nothing reads any more is dropped."""
    main = Dataflow.of(graph)
    values: dict[relax.Var, relax.Expr] = {}
    bindings = []
    for var, value in main.bindings:
        merged = _merged(var, value, values)
        value = value if merged is None else merged
        values[var] = value
        bindings.append((var, value))
    main.bindings = bindings
    return graph.with_main(main.live())


def _merged(var: relax.Var, value: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> relax.Expr | None:
    """The transpose that `value` is in all."""
    if op_name(value) == "relax.permute_dims":
        inner: Any = values.get(value.args[0])
        if op_name(inner) != "relax.permute_dims":
            return None
        first, second = _axes(inner), _axes(value)
        return relax.op.permute_dims(inner.args[0], [first[i] for i in second])
    if op_name(value) != "relax.reshape":
        return None
    turned: Any = values.get(value.args[0])
    if op_name(turned) != "relax.permute_dims":
        return None
    joined: Any = values.get(turned.args[0])
    if op_name(joined) != "relax.reshape":
        return None
    source = joined.args[0]
    groups = _groups(list(source.ty.shape), list(joined.ty.shape))
    if groups is None:
        return None
    axes = [axis for group in _axes(turned) for axis in groups[group]]
    shape = [source.ty.shape[axis] for axis in axes]
    if len(shape) != len(var.ty.shape) or not all(map(_equal, shape, var.ty.shape)):
        return None
    return _merged_again(relax.op.permute_dims(source, axes), values)


def _merged_again(value: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    inner: Any = values.get(value.args[0])
    if op_name(inner) != "relax.permute_dims":
        return value
    first = _axes(inner)
    return relax.op.permute_dims(inner.args[0], [first[int(i)] for i in value.attrs.axes])


def _groups(shape: list[Any], joined: list[Any]) -> list[list[int]] | None:
    """For each dimension of `joined` the neighbouring ones of `shape` whose product it is."""
    groups: list[list[int]] = []
    at = 0
    for extent in joined:
        group: list[int] = []
        product: Any = None
        while at < len(shape) and (product is None or not _equal(product, extent)):
            product = shape[at] if product is None else _times(product, shape[at])
            if product is None:
                return None
            group.append(at)
            at += 1
        if product is None or not _equal(product, extent):
            return None
        groups.append(group)
    return groups if at == len(shape) else None


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, tvm.tirx.IntImm) and isinstance(b, tvm.tirx.IntImm):
        return tvm.tirx.IntImm("int64", int(a) * int(b))
    return b if isinstance(a, tvm.tirx.IntImm) and int(a) == 1 else None


def _equal(a: Any, b: Any) -> bool:
    return bool(tvm_ffi.structural_equal(a, b))


def _axes(value: Any) -> list[int]:
    rank = len(value.args[0].ty.shape)
    if value.attrs.axes is None:
        return list(reversed(range(rank)))
    return [int(a) % rank for a in value.attrs.axes]
