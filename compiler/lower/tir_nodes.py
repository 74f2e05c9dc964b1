"""Small questions to TIR expressions and statements."""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx

from ...schedules.walk import walk
from .program import Size


def flatten(body: Any) -> list[Any]:
    """Statements in order, sequences opened."""
    if type(body).__name__ == "SeqStmt":
        return [s for part in body.seq for s in flatten(part)]
    if type(body).__name__ == "AttrStmt":
        return flatten(body.body)
    return [body]


def dtype_of(ty: Any) -> str:
    """As numpy spells it."""
    return str(ty)


def plain(size: Any) -> Size:
    """An int where the size is known."""
    return int(size) if isinstance(size, int | tirx.IntImm) else size


def is_buffer(var: Any) -> bool:
    """Whether a variable is a tensor."""
    return type(var.ty).__name__ == "BufferType"


def data_var(data: Any) -> Any:
    """The buffer whose memory an expression like `x.data` names."""
    if isinstance(data, tirx.Var):
        return data
    return data_var(data.args[0])


def among(var: Any, pool: list[Any]) -> bool:
    """Whether it is one of them, not merely equal."""
    return any(var.same_as(other) for other in pool)


def mentions(expr: Any, variables: list[Any]) -> bool:
    """Whether an expression reads any of them."""
    for node in walk(expr):
        if isinstance(node, tirx.Var) and among(node, variables):
            return True
        if type(node).__name__ == "TensorLoad" and among(node.source, variables):
            return True
    return False


def is_pure(e: Any) -> bool:
    """Whether an expression may be evaluated where it would not have been."""
    return not any(type(node).__name__ in ("TensorLoad", "Call") for node in walk(e))


def ternary(e: Any) -> tuple[Any, Any, Any] | None:
    """(condition, then, else) of a choice between values."""
    if type(e).__name__ == "Select":
        return e.condition, e.true_value, e.false_value
    if type(e).__name__ == "Call" and str(e.op.name).endswith(".if_then_else"):
        return tuple(e.args)
    return None


def conjuncts(condition: Any) -> list[Any]:
    """The conditions that all have to hold."""
    if type(condition).__name__ == "And":
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    if type(condition).__name__ == "Call" and str(condition.op.name).endswith(".likely"):
        return conjuncts(condition.args[0])
    return [condition]


def is_load(e: Any, store: Any) -> bool:
    """Whether an expression is what stands where a store writes."""
    return (
        type(e).__name__ == "TensorLoad"
        and e.source.same_as(store.buffer)
        and tvm_ffi.structural_equal(e.indices[0], store.indices[0])
    )
