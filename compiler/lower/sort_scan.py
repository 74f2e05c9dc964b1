"""TIR functions for the operators that TVM leaves to a library on CPUs: running sums and products, sorting, top k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import te, tirx, topi
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from .sizes import product

_ANY_PASSES = 31
"""Merge passes for an axis whose length is not known: enough for every index that an int32 holds."""


def tir_function(call: tvm.ir.Call, name: str) -> tirx.PrimFunc:
    """The function of one call; its parameters are the call's tensor, its results and then memory to work in."""
    data = te.placeholder(tuple(call.args[0].ty.shape), str(call.args[0].ty.dtype), "data")
    return te.create_prim_func([data, *BUILDERS[name](data, call.attrs)])


def _scan(operation: Callable[..., te.Tensor]) -> Callable[[te.Tensor, Any], list[te.Tensor]]:
    def build(data: te.Tensor, attrs: Any) -> list[te.Tensor]:
        axis = None if attrs.axis is None else int(attrs.axis)
        dtype = str(attrs.dtype) if attrs.dtype is not None else ""
        return [operation(data, axis, dtype if dtype not in ("", "void") else data.dtype, bool(attrs.exclusive))]

    return build


def _sort(data: te.Tensor, attrs: Any) -> list[te.Tensor]:
    values, _, *scratch = _merge_sort(data, int(attrs.axis), bool(attrs.descending))
    return [values, *scratch]


def _argsort(data: te.Tensor, attrs: Any) -> list[te.Tensor]:
    _, indices, *scratch = _merge_sort(data, int(attrs.axis), bool(attrs.descending), dtype=str(attrs.dtype))
    return [indices, *scratch]


def _topk(data: te.Tensor, attrs: Any) -> list[te.Tensor]:
    values, indices, *scratch = _merge_sort(data, int(attrs.axis), bool(attrs.largest), int(attrs.k), str(attrs.dtype))
    kept = {"both": [values, indices], "values": [values], "indices": [indices]}[str(attrs.ret_type)]
    return [*kept, *scratch]


BUILDERS: dict[str, Callable[[te.Tensor, Any], list[te.Tensor]]] = {
    "relax.cumsum": _scan(topi.cumsum),
    "relax.cumprod": _scan(topi.cumprod),
    "relax.sort": _sort,
    "relax.argsort": _argsort,
    "relax.topk": _topk,
}
"""Relax operator -> its results and scratch tensors, as tensor expressions."""


def _merge_sort(
    data: te.Tensor, axis: int, descending: bool, kept: int = -1, dtype: str = "int64"
) -> tuple[te.Tensor, te.Tensor, te.Tensor, te.Tensor]:
    """(values, indices, two scratch tensors) of the first `kept` along an axis, -1 for all.

    Equal elements keep their order; NaN counts as larger than every number, as in numpy.
    """
    shape = tuple(data.shape)
    axis %= len(shape)
    length = shape[axis]
    inner, outer = product(shape[axis + 1 :]), product(shape[:axis])
    count = length if kept < 0 else min(kept, int(length)) if isinstance(length, tirx.IntImm) else kept
    passes = max(1, (int(length) - 1).bit_length()) if isinstance(length, tirx.IntImm) else _ANY_PASSES

    def before(a: Any, b: Any) -> Any:
        """Whether the element `a` has to stand before `b`, which now stands before it."""
        first, second = (b, a) if descending else (a, b)
        smaller = first < second
        if not str(data.dtype).startswith("float"):
            return smaller
        return tirx.any(smaller, tirx.all(second != second, first == first))  # noqa: PLR0124

    def body(ins: list[Any], outs: list[Any]) -> Any:
        with IRBuilder() as builder:
            source = script.buffer_proxy(ins[0])
            values, indices, order, merged = (script.buffer_proxy(out) for out in outs)
            with script.parallel(0, outer * inner) as row:
                cursor = script.buffer_proxy(script.alloc_buffer((2,), "int64", scope="local"))
                base = row // inner * length * inner + row % inner
                at = row * length

                def key(place: Any) -> Any:
                    return source[base + tirx.Cast("int64", order[at + place]) * inner]

                with script.serial(0, length) as i:
                    order[at + i] = tirx.Cast("int32", i)
                with script.serial(0, tirx.IntImm("int64", passes)) as level:
                    half = tirx.IntImm("int64", 1) << level
                    with script.serial(0, tirx.floordiv(length + 2 * half - 1, 2 * half)) as pair:
                        low = pair * 2 * half
                        middle, high = tirx.min(low + half, length), tirx.min(low + 2 * half, length)
                        cursor[0] = low
                        cursor[1] = middle
                        with script.serial(0, high - low) as step:
                            right_first = before(key(cursor[1]), key(cursor[0]))
                            right = tirx.if_then_else(
                                cursor[0] >= middle, True, tirx.if_then_else(cursor[1] >= high, False, right_first)
                            )
                            with script.If(right):
                                with script.Then():
                                    merged[at + low + step] = order[at + cursor[1]]
                                    cursor[1] = cursor[1] + 1
                                with script.Else():
                                    merged[at + low + step] = order[at + cursor[0]]
                                    cursor[0] = cursor[0] + 1
                    with script.serial(0, length) as i:
                        order[at + i] = merged[at + i]
                with script.serial(0, count) as i:
                    place = row // inner * count * inner + i * inner + row % inner
                    values[place] = key(i)
                    indices[place] = tirx.Cast(dtype, order[at + i])
            return builder.get()

    out_shape = (*shape[:axis], count, *shape[axis + 1 :])
    return te.extern(
        [out_shape, out_shape, (outer * inner * length,), (outer * inner * length,)],
        [data],
        body,
        dtype=[data.dtype, dtype, "int32", "int32"],
        name="merge_sort",
    )
