"""Visits TIR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi

_EXPR_FIELDS = ("a", "b", "value", "condition", "true_value", "false_value", "body", "cond")
_STMT_FIELDS = ("body", "then_case", "else_case", "value", "condition", "init", "block", "min", "extent", "predicate")


def children(node: Any) -> list[Any]:
    """Expressions and statements directly below a node."""
    found: list[Any] = []
    if isinstance(node, tvm.ir.Call):
        return list(node.args)
    for name in dict.fromkeys(_EXPR_FIELDS + _STMT_FIELDS):
        child = getattr(node, name, None)
        if isinstance(child, tvm.ir.Expr | tvm.tirx.Stmt):
            found.append(child)
    for name in ("indices", "seq", "iter_values"):
        found += list(getattr(node, name, None) or ())
    return found


def walk(node: Any) -> Iterator[Any]:
    """Every node at and below, an expression as often as it stands there."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack += children(top)


def reads_of(body: Any, buffer: Any, limit: int) -> int:
    """How often a statement reads a buffer, at most `limit`."""
    count = 0
    for node in walk(body):
        if type(node).__name__ == "TensorLoad" and node.source.same_as(buffer):
            count += 1
            if count >= limit:
                break
    return count


def reads_one_place(body: Any, buffer: Any) -> bool:
    """Whether a statement reads the same element of a buffer wherever it reads it."""
    places = [
        node.indices for node in walk(body) if type(node).__name__ == "TensorLoad" and node.source.same_as(buffer)
    ]
    return all(tvm_ffi.structural_equal(place, places[0]) for place in places)


def size_of(body: Any, limit: int) -> int:
    """How many nodes a statement has, at most `limit`."""
    count = 0
    for _ in walk(body):
        count += 1
        if count >= limit:
            break
    return count


def arithmetic_of(expr: Any) -> list[Any]:
    """The nodes of an expression without those of its indices."""
    if type(expr).__name__ in ("TensorLoad", "BufferLoad"):
        return [expr]
    return [expr, *(node for child in children(expr) for node in arithmetic_of(child))]
