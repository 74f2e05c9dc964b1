"""Finds activation functions by their values, however the exporter spelled them.

A region of elementwise operations on one tensor with scalar constants is a function R -> R. It is evaluated on a grid
and compared with the functions that kernels know: GELU alone has a dozen spellings, and they all agree in value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax

from ..graph import Dataflow, Graph, constant, free_vars, op_name

Array = np.ndarray
Function = Callable[[Array], Array]

MARKER = "sparsec.activation."
_LONGEST = 12
_GRID = np.concatenate([np.linspace(-12, 12, 97), np.linspace(-1.5, 1.5, 61), [-1e3, 1e3]])
_TOLERANCE = 2e-6


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


KNOWN: dict[str, Function] = {
    "gelu_erf": lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}
"""The functions looked for; single Relax operators (relu, tanh, …) need no recognition."""

_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.power": np.power,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.negative": np.negative,
    "relax.tanh": np.tanh,
    "relax.erf": _erf,
    "relax.exp": np.exp,
    "relax.sigmoid": _sigmoid,
    "relax.nn.relu": lambda x: np.maximum(x, 0),
    "relax.nn.silu": KNOWN["silu"],
    "relax.nn.gelu": KNOWN["gelu_erf"],
    "relax.nn.gelu_tanh": KNOWN["gelu_tanh"],
    "relax.clip": np.clip,
}


def recognize_activations(graph: Graph) -> Graph:
    """Replaces each recognised region by a call `sparsec.activation.<name>(x)`."""
    main = Dataflow.of(graph)
    values, uses = main.values(), main.uses()
    replaced: dict[relax.Var, relax.Expr] = {}
    for var, value in reversed(main.bindings):
        if op_name(value) not in _ELEMENTWISE or str(var.ty.dtype) != "float32":
            continue
        found = _match(var, values, uses)
        if found is not None:
            name, source = found
            replaced[var] = relax.op.call_dps_packed(MARKER + name, relax.Tuple([source]), out_ty=var.ty)
            values[var] = replaced[var]
    main.bindings = [(var, replaced.get(var, value)) for var, value in main.bindings]
    return graph.with_main(main.live())


def _match(
    var: relax.Var, values: Mapping[relax.Var, relax.Expr], uses: Mapping[relax.Var, int]
) -> tuple[str, relax.Var] | None:
    """The known function that `var` is, and of which tensor; the largest region wins."""
    order = _cone(var, values)
    best: tuple[str, relax.Var] | None = None
    for size in range(1, len(order) + 1):
        region = order[:size]
        sources = {v for u in region for v in free_vars(values[u])} - set(region)
        inner_uses = [u for u in region if not u.same_as(var)]
        if len(sources) != 1 or not all(uses[u] == _reads(u, region, values) for u in inner_uses):
            continue
        (source,) = sources
        with np.errstate(all="ignore"):
            result = _evaluate(var, source, values, {})
        if result is None:
            continue
        for name, function in KNOWN.items():
            want = function(_GRID)
            close = np.abs(result - want) <= _TOLERANCE * (1 + np.abs(want))
            if result.shape == want.shape and bool(close.all()):
                best = (name, source)
    return best


def _cone(var: relax.Var, values: Mapping[relax.Var, relax.Expr]) -> list[relax.Var]:
    """Elementwise ancestors of `var`, nearest first, each after all of its readers within the cone."""
    order: list[relax.Var] = []
    frontier = [var]
    position = {v: i for i, v in enumerate(values)}
    while frontier and len(order) < _LONGEST:
        frontier.sort(key=lambda v: position[v])
        current = frontier.pop()
        order.append(current)
        for parent in free_vars(values[current]):
            if parent in values and op_name(values[parent]) in _ELEMENTWISE and parent not in frontier:
                frontier.append(parent)
    return order


def _reads(var: relax.Var, region: list[relax.Var], values: Mapping[relax.Var, relax.Expr]) -> int:
    return sum(free_vars(values[u]).count(var) for u in region)


def _evaluate(
    var: relax.Var, source: relax.Var, values: Mapping[relax.Var, relax.Expr], done: dict[relax.Var, Array | None]
) -> Array | None:
    """The region's value on the grid, or nothing when an operand is no scalar."""
    if var.same_as(source):
        return _GRID
    if var not in done:
        done[var] = _apply(values[var], source, values, done) if var in values else None
    return done[var]


def _apply(
    value: relax.Expr, source: relax.Var, values: Mapping[relax.Var, relax.Expr], done: dict[relax.Var, Array | None]
) -> Array | None:
    operands: list[Array] = []
    for arg in value.args:
        if isinstance(arg, relax.Var):
            operand = _evaluate(arg, source, values, done)
        elif hasattr(arg, "value") and not hasattr(arg, "fields"):
            array = constant(arg, values)
            operand = np.float64(arg.value) if array is None else array.astype(np.float64)
            operand = operand.reshape(()) if operand.size == 1 else None
        else:
            operand = None
        if operand is None:
            return None
        operands.append(operand)
    return np.asarray(_ELEMENTWISE[op_name(value)](*operands))


def expand_activations(graph: Graph) -> Graph:
    """Writes the markers that no kernel took as plain Relax operators again."""
    main = Dataflow.of(graph)
    main.bindings = [
        (var, _EXPANSIONS[op_name(value).removeprefix(MARKER)](value.args[1].fields[0]))
        if op_name(value).startswith(MARKER)
        else (var, value)
        for var, value in main.bindings
    ]
    return graph.with_main(main)


def _hard_swish(x: relax.Expr) -> relax.Expr:
    scaled = relax.op.multiply(relax.op.clip(relax.op.add(x, relax.const(3.0)), 0, 6), relax.const(1 / 6))
    return relax.op.multiply(x, scaled)


_EXPANSIONS: dict[str, Callable[[relax.Expr], relax.Expr]] = {
    "gelu_erf": relax.op.nn.gelu,
    "gelu_tanh": relax.op.nn.gelu_tanh,
    "silu": relax.op.nn.silu,
    "hard_swish": _hard_swish,
}
