"""What a TIR loop does: reduces floats, computes one element a step, makes a choice that could be made outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...schedules.walk import walk
from .tir_nodes import conjuncts, dtype_of, flatten, is_load, is_pure, mentions

LANES = 32
"""Partial results of a reduction, on every ISA: the result is the same on all."""


@dataclass(frozen=True)
class Choice:
    """A condition, and for one on the loop variable where it flips and what it is below."""

    condition: Any
    cut: Any = None
    below: bool = False


@dataclass(frozen=True)
class Leaf:
    """An innermost loop that computes one element in every step."""

    var: Any
    fixed: list[Any]
    """Bindings that are the same in all steps."""
    moving: list[Any]
    store: Any

    @staticmethod
    def of(var: Any, body: list[Any]) -> Leaf | None:
        """The loop over `var` as a leaf, if it is one."""
        *bindings, store = body
        if type(store).__name__ != "BufferStore" or any(type(b).__name__ != "Bind" for b in bindings):
            return None
        if any(type(node).__name__ == "Let" for s in (*bindings, store) for node in walk(s.value)):
            return None
        varying, fixed, moving = [var], [], []
        for binding in bindings:
            if is_pure(binding.value) and not mentions(binding.value, varying):
                fixed.append(binding)
            else:
                moving.append(binding)
                varying.append(binding.var)
        return Leaf(var, fixed, moving, store)


def guard_of(var: Any, body: list[Any]) -> tuple[list[Choice], list[Any]]:
    """Conditions under which a loop body does anything and that hold up to some step; the body without them."""
    *bindings, last = body
    if type(last).__name__ != "IfThenElse" or last.else_case is not None:
        return [], body
    if any(type(b).__name__ != "Bind" or not is_pure(b.value) for b in bindings):
        return [], body
    found, rest = [], []
    for part in conjuncts(last.condition):
        choice = choice_of(part, [var, *(b.var for b in bindings)], bindings)
        if choice is not None and choice.cut is not None and choice.below:
            found.append(choice)
        else:
            rest.append(part)
    if not found:
        return [], body
    inner = flatten(last.then_case)
    if rest:
        inner = [tirx.IfThenElse(tirx.all(*rest), last.then_case, None)]
    return found, [*bindings, *inner]


def choice_of(condition: Any, varying: list[Any], bindings: list[Any]) -> Choice | None:
    """How to take a condition out of a loop over `varying[0]`, whose steps bind the other varying variables."""
    if not is_pure(condition):
        return None
    if not mentions(condition, varying):
        return Choice(condition)
    kind = type(condition).__name__
    if kind not in ("LT", "LE", "GT", "GE"):
        return None
    below = kind in ("LT", "LE")
    left, right = condition.a, condition.b
    if not mentions(left, varying):
        left, right, below = right, left, not below
    left = next((b.value for b in bindings if b.var.same_as(left)), left)
    shift: Any = 0
    if type(left).__name__ == "Sub" and not mentions(left.b, varying):
        left, shift = left.a, -left.b
    elif type(left).__name__ == "Add":
        left, shift = (left.b, left.a) if mentions(left.b, varying) else (left.a, left.b)
    if not isinstance(left, tirx.Var) or not left.same_as(varying[0]) or mentions(right, varying):
        return None
    if not isinstance(shift, int) and mentions(shift, varying):
        return None
    # below: v < cut or v <= cut - 1; above: v >= cut or v > cut - 1
    strict = kind in ("LT", "GT")
    return Choice(condition, right - shift + (0 if strict == below else 1), below)


@dataclass(frozen=True)
class Part:
    """One value that a loop reduces: its operation, the store to it and what the loop adds."""

    kind: str
    store: Any
    operand: Any

    @property
    def dtype(self) -> str:
        """Of the accumulator."""
        return dtype_of(self.store.buffer.ty.dtype)

    def update(self, into: str, value: str) -> str:
        """C statement."""
        if self.kind == "Add":
            return f"{into} = {into} + {value};"
        return f"{into} = sparsec_{self.kind.lower()}_{self.dtype}({into}, {value});"


@dataclass(frozen=True)
class LaneReduction:
    """A loop that does nothing but reduce float values, each into one place."""

    bindings: list[Any]
    parts: list[Part]


def lane_reduction(loop: Any) -> LaneReduction | None:
    """What a loop reduces, if it does nothing else."""
    if loop.kind != tirx.ForKind.SERIAL or not isinstance(loop.min, tirx.IntImm) or int(loop.min) != 0:
        return None
    if isinstance(loop.extent, tirx.IntImm) and int(loop.extent) < LANES:
        return None
    statements = flatten(loop.body)
    bindings = [s for s in statements if type(s).__name__ == "Bind"]
    stores = statements[len(bindings) :]
    if not stores or any(type(s).__name__ != "BufferStore" for s in stores):
        return None
    results = [b for b in bindings if any(b.var.same_as(s.value) for s in stores)]
    bindings = [b for b in bindings if b not in results]
    moving = [loop.loop_var, *(b.var for b in bindings)]
    buffers = [s.buffer for s in stores]
    parts = []
    for store in stores:
        value = next((b.value for b in results if b.var.same_as(store.value)), store.value)
        kind, dtype = type(value).__name__, dtype_of(store.buffer.ty.dtype)
        if kind not in ("Add", "Max", "Min") or dtype not in ("float32", "float64"):
            return None
        if mentions(store.indices[0], [*moving, *buffers]) or not is_load(value.a, store):
            return None
        if mentions(value.b, [*buffers, *(b.var for b in results)]):
            return None
        parts.append(Part(kind, store, value.b))
    if any(mentions(b.value, buffers) for b in bindings):
        return None
    return LaneReduction(bindings, parts)


def accumulators(body: Any) -> list[Any]:
    """Buffers whose elements become the larger or smaller of what they were and something else."""
    values = {node.var: node.value for node in walk(body) if type(node).__name__ == "Bind"}
    found = []
    for node in walk(body):
        if type(node).__name__ == "BufferStore":
            value = values.get(node.value, node.value) if isinstance(node.value, tirx.Var) else node.value
            kind = type(value).__name__
            if (kind in ("Max", "Min") and is_load(value.a, node)) or (
                kind == "Select" and is_load(value.true_value, node)
            ):
                found.append(node.buffer)
    return found
