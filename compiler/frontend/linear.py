"""Dimensions that are sums of others: `total = past + sequence`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvm import tirx

from .diagnostics import CannotConvert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .graph import DynamicDim, Graph, Node, Size


@dataclass(frozen=True)
class Sum:
    """Factors by dimension, and a number."""

    terms: Mapping[str, int] = field(default_factory=dict)
    constant: int = 0

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in self.terms.items()]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)

    def size(self, dims: Mapping[str, Size]) -> Size:
        """The value at sizes of the dimensions."""
        total: Size = self.constant
        for name, factor in self.terms.items():
            total = total + (dims[name] if factor == 1 else dims[name] * factor)
        return total


_TERM = re.compile(r"(?:(\d+)\*)?(.+)")


def parse(text: str) -> Sum:
    """Reads `past+sequence`, `2*frames+1`; names may hold anything but `+` and spaces at their ends.

    Raises:
        ValueError: an empty term.
    """
    terms: dict[str, int] = {}
    constant = 0
    for part in text.split("+"):
        found = _TERM.fullmatch(part.strip())
        if found is None:
            raise ValueError(text)
        factor, name = int(found[1] or 1), found[2].strip()
        if name.isdecimal():
            constant += factor * int(name)
        else:
            terms[name] = terms.get(name, 0) + factor
    return Sum(terms, constant)


class SizesMeet(Exception):  # noqa: N818 - the model is prepared again with what it says
    """A dimension has to be a sum of others."""

    def __init__(self, name: str, total: Sum) -> None:
        super().__init__(f"{name} = {total}")
        self.name = name
        self.total = total


_ELEMENTWISE = frozenset(
    [
        *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
    ]
)


def check_sizes_meet(graph: Graph, node: Node) -> None:
    """For a node whose types cannot be inferred as it is.

    Raises:
        SizesMeet: they could be if a dimension of the inputs was a sum of others, as it has to be wherever no axis is
            repeated.
    """
    shapes = [list(graph.types[n].shape or ()) for n in node.inputs if n and n in graph.types]
    if node.domain or len(shapes) < 2:
        return
    if node.op_type == "MatMul":
        shapes = [shape[:-2] for shape in shapes]
    elif node.op_type == "Concat":
        axis = node.attrs["axis"] % max(len(shapes[0]), 1)
        shapes = [[*shape[:axis], 1, *shape[axis + 1 :]] for shape in shapes]
    elif node.op_type not in _ELEMENTWISE:
        return
    pairs: list[tuple[Size, Size]] = []
    first = shapes[0]
    for other in shapes[1:]:
        pairs += list(zip(reversed(first), reversed(other), strict=False))
        first = max(first, other, key=len)
    for one, two in pairs:
        if not any(graph.algebra.equal(size, 1) for size in (one, two)):
            _meet(graph, one, two)


def check_depths(graph: Graph, node: Node) -> None:
    """For a product: its factors must have one depth.

    Raises:
        SizesMeet: they would if a dimension of the inputs was a sum of others.
        CannotConvert: whether they have is not known.
    """
    if node.domain or node.op_type not in ("MatMul", "Gemm", "MatMulInteger"):
        return
    a, b = (list(graph.types[n].shape or ()) for n in node.inputs[:2])
    if not a or not b:
        return
    first = a[0] if node.attrs.get("transA") else a[-1]
    second = b[-1] if node.attrs.get("transB") or len(b) == 1 else b[-2]
    _meet(graph, first, second)
    if not graph.algebra.equal(first, second) and not (isinstance(first, int) and isinstance(second, int)):
        raise CannotConvert(f"its factors have depths {first} and {second}, which may differ")


def _meet(graph: Graph, one: Size, two: Size) -> None:
    if not graph.algebra.equal(one, two) and (found := solved(graph, one, two)) is not None:
        raise SizesMeet(*found)


def solved(graph: Graph, a: Size, b: Size) -> tuple[str, Sum] | None:
    """A dimension of the inputs as the sum that makes `a` equal to `b`; None where no positive one does."""
    left, right = linear(a, graph.dims), linear(b, graph.dims)
    if left is None or right is None:
        return None
    terms = {n: left.terms.get(n, 0) - right.terms.get(n, 0) for n in dict.fromkeys([*left.terms, *right.terms])}
    constant = left.constant - right.constant
    for whole in (True, False):  # best a dimension that is one of the two sizes
        for name, factor in reversed(terms.items()):
            if abs(factor) != 1 or (whole and not any(s.terms == {name: 1} and not s.constant for s in (left, right))):
                continue
            rest = {n: -f * factor for n, f in terms.items() if n != name and f}
            number, dim = -constant * factor, graph.dims[name]
            if all(f > 0 for f in rest.values()) and (number >= 0 if rest else dim.lower <= number <= dim.upper):
                return name, Sum(rest, number)
    return None


def linear(size: Size, dims: Mapping[str, DynamicDim]) -> Sum | None:
    """A size as a sum of dimensions of the inputs, None where it is none."""
    if isinstance(size, int | tirx.IntImm):
        return Sum({}, int(size))
    if isinstance(size, tirx.Var):
        dim = dims.get(size.name)
        return Sum({size.name: 1}) if dim is not None and not dim.is_found else None
    if isinstance(size, tirx.Cast):
        return linear(size.value, dims)
    if not isinstance(size, tirx.Add | tirx.Sub | tirx.Mul):
        return None
    a, b = linear(size.a, dims), linear(size.b, dims)
    if a is None or b is None:
        return None
    if isinstance(size, tirx.Mul):
        if a.terms and b.terms:
            return None
        scale, of = (b.constant, a) if a.terms else (a.constant, b)
        return Sum({name: scale * factor for name, factor in of.terms.items()}, scale * of.constant)
    sign = -1 if isinstance(size, tirx.Sub) else 1
    terms = {n: a.terms.get(n, 0) + sign * b.terms.get(n, 0) for n in dict.fromkeys([*a.terms, *b.terms])}
    return Sum(terms, a.constant + sign * b.constant)
