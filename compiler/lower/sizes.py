"""Integer expressions over the dynamic dimensions: their C text, bounds and values.

A size is an int or a TVM `PrimExpr` whose free variables are the model's dimensions, found by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import tirx

from .program import Dim, Size

_BINARY: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "Add": ("({0} + {1})", lambda a, b: a + b),
    "Sub": ("({0} - {1})", lambda a, b: a - b),
    "Mul": ("({0} * {1})", lambda a, b: a * b),
    "FloorDiv": ("sparsec_floordiv({0}, {1})", lambda a, b: a // b),
    "FloorMod": ("sparsec_floormod({0}, {1})", lambda a, b: a % b),
    "Min": ("sparsec_min({0}, {1})", min),
    "Max": ("sparsec_max({0}, {1})", max),
    "EQ": ("({0} == {1})", lambda a, b: int(a == b)),
    "NE": ("({0} != {1})", lambda a, b: int(a != b)),
    "LT": ("({0} < {1})", lambda a, b: int(a < b)),
    "LE": ("({0} <= {1})", lambda a, b: int(a <= b)),
    "GT": ("({0} > {1})", lambda a, b: int(a > b)),
    "GE": ("({0} >= {1})", lambda a, b: int(a >= b)),
    "And": ("({0} && {1})", lambda a, b: int(bool(a) and bool(b))),
    "Or": ("({0} || {1})", lambda a, b: int(bool(a) or bool(b))),
}
"""Node class -> C text, value."""


def substitute(size: Size, values: Mapping[Any, Size]) -> Size:
    """The size with variables replaced, simplified; a variable without a value stays."""
    if isinstance(size, int | tirx.IntImm):
        return int(size)

    def walk(e: Any) -> Any:
        if isinstance(e, int | tirx.IntImm):
            return tirx.IntImm("int64", int(e))
        if isinstance(e, tirx.Var):
            found = next((v for var, v in values.items() if var.same_as(e)), e)
            return tirx.IntImm("int64", found) if isinstance(found, int) else found
        if isinstance(e, tirx.Cast):
            return walk(e.value)
        if isinstance(e, tirx.Select):
            return tirx.Select(condition(e.condition), walk(e.true_value), walk(e.false_value))
        if isinstance(e, tirx.Not):
            return tirx.Not(condition(e.a))
        if isinstance(e, tirx.And | tirx.Or):
            return type(e)(condition(e.a), condition(e.b))
        return type(e)(walk(e.a), walk(e.b))

    def condition(e: Any) -> Any:
        made = walk(e)
        return made if str(made.ty.dtype) == "bool" else made != 0

    simple = tvm.sym.Analyzer().simplify(walk(size))
    return int(simple) if isinstance(simple, tirx.IntImm) else simple


def product(sizes: tuple[Size, ...]) -> Size:
    """The number of elements of a shape, an int where it is known."""
    count = math.prod(sizes, start=1)
    return int(count) if isinstance(count, tirx.IntImm) else count


def to_c(size: Size, dims: tuple[Dim, ...]) -> str:
    """C expression of type int64_t over an array `dims`."""
    names = {dim.name: f"dims[{i}]" for i, dim in enumerate(dims)}

    def walk(e: Any) -> str:
        if isinstance(e, int | tirx.IntImm):
            return f"INT64_C({int(e)})"
        if isinstance(e, tirx.Var):
            return names[e.name]
        if isinstance(e, tirx.Cast):
            return walk(e.value)
        if isinstance(e, tirx.Select):
            return f"({walk(e.condition)} ? {walk(e.true_value)} : {walk(e.false_value)})"
        if isinstance(e, tirx.Not):
            return f"(!{walk(e.a)})"
        text, _ = _BINARY[type(e).__name__]
        return text.format(walk(e.a), walk(e.b))

    return walk(size)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The size at given values of the dimensions."""

    def walk(e: Any) -> int:
        if isinstance(e, int | tirx.IntImm):
            return int(e)
        if isinstance(e, tirx.Var):
            return values[e.name]
        if isinstance(e, tirx.Cast):
            return walk(e.value)
        if isinstance(e, tirx.Select):
            return walk(e.true_value) if walk(e.condition) else walk(e.false_value)
        if isinstance(e, tirx.Not):
            return int(not walk(e.a))
        return _BINARY[type(e).__name__][1](walk(e.a), walk(e.b))

    return walk(size)


def bounds(size: Size, dims: tuple[Dim, ...]) -> tuple[int, int]:
    """Smallest and largest value that interval arithmetic can prove, both included."""
    ranges = {dim.name: (dim.lower, dim.upper) for dim in dims}

    def corners(e: Any) -> tuple[int, int]:
        (al, ah), (bl, bh) = walk(e.a), walk(e.b)
        op = _BINARY[type(e).__name__][1]
        if isinstance(e, tirx.Sub):
            return al - bh, ah - bl
        if isinstance(e, tirx.FloorMod):
            return (al, ah) if al >= 0 and ah < bl else (0, bh - 1)
        if isinstance(e, tirx.FloorDiv) and bl <= 0 <= bh:
            raise ValueError(f"division by a range that holds zero: {e}")
        values = [op(a, b) for a in (al, ah) for b in (bl, bh)]
        return min(values), max(values)

    def walk(e: Any) -> tuple[int, int]:
        if isinstance(e, int | tirx.IntImm):
            return int(e), int(e)
        if isinstance(e, tirx.Var):
            return ranges[e.name]
        if isinstance(e, tirx.Cast):
            return walk(e.value)
        if isinstance(e, tirx.Select):
            (tl, th), (fl, fh) = walk(e.true_value), walk(e.false_value)
            return min(tl, fl), max(th, fh)
        if type(e).__name__ in ("EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or", "Not"):
            return 0, 1
        return corners(e)

    return walk(size)


def upper(size: Size, dims: tuple[Dim, ...]) -> int:
    """The size at its largest."""
    return bounds(size, dims)[1]


def text(size: Size) -> int | str:
    """For the manifest and tables: an int, or the expression as one would write it by hand."""
    if isinstance(size, int | tirx.IntImm):
        return int(size)

    def walk(e: Any) -> str:
        if isinstance(e, int | tirx.IntImm):
            return str(int(e))
        if isinstance(e, tirx.Var):
            return str(e.name)
        if isinstance(e, tirx.Cast):
            return walk(e.value)
        sign = {"Add": "+", "Sub": "-", "Mul": "*", "FloorDiv": "//", "FloorMod": "%"}.get(type(e).__name__)
        if sign:
            return f"({walk(e.a)} {sign} {walk(e.b)})"
        if isinstance(e, tirx.Select):
            return f"({walk(e.true_value)} if {walk(e.condition)} else {walk(e.false_value)})"
        return f"{type(e).__name__.lower()}({walk(e.a)}, {walk(e.b)})"

    out = walk(size)
    return out[1:-1] if out.startswith("(") and out.endswith(")") and out.count("(") == 1 else out
