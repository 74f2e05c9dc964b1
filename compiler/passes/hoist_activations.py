"""Activations from behind data movement to the product before it, where they cost no pass over memory.

activation(transpose(reshape(conv(x))))  ->  transpose(reshape(activation(conv(x))))
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from ..graph import Dataflow, Graph, constant, op_name, substitute
from .layer_anchor import Values
from .recognize_activations import MARKER

_MOVES = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze")
_UNARY = ("relax.nn.relu", "relax.sigmoid", "relax.tanh", "relax.nn.silu", "relax.nn.gelu", "relax.clip")
_PRODUCTS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul")


def hoist_activations(graph: Graph) -> Graph:
    """Moves activations whose operand is a product's result, moved and read by nothing else."""
    main = Dataflow.of(graph)
    values, uses = main.values(), main.uses()
    hoisted: dict[relax.Var, tuple[relax.Var, relax.Var, relax.Expr]] = {}
    alias: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        moved = _operand(value)
        first = None if moved is None else _first_move(moved, values, uses)
        if first is None:
            continue
        product = values[first].args[0]
        activated = relax.Var(f"{var.name}_hoisted", product.ty)
        hoisted[first] = (product, activated, _applied(value, product))
        alias[var] = moved
    bindings: list[tuple[relax.Var, relax.Expr]] = []
    for var, value in main.bindings:
        if var in alias:
            continue
        value = substitute(value, alias)
        if var in hoisted:
            product, activated, call = hoisted[var]
            bindings.append((activated, call))
            value = substitute(value, {product: activated})
        bindings.append((var, value))
    main.bindings, main.result = bindings, substitute(main.result, alias)
    return graph.with_main(main.live())


def _applied(value: tvm.ir.Call, product: relax.Var) -> relax.Expr:
    """The activation on another operand; its type is that of the operand."""
    name = op_name(value)
    if name.startswith(MARKER):
        return relax.op.call_dps_packed(name, relax.Tuple([product]), out_ty=product.ty)
    return tvm.ir.Call(value.op, [product, *value.args[1:]], value.attrs, value.ty_args)


def _first_move(var: relax.Var, values: Values, uses: Mapping[relax.Var, int]) -> relax.Var | None:
    """The first of a chain of moves that begins at a product and ends in `var`; each is read once."""
    first = None
    while uses.get(var) == 1 and var in values:
        value = values[var]
        if op_name(value) not in _MOVES:
            return first if first is not None and _is_product(var, values, uses) else None
        first, var = var, value.args[0]
        if not isinstance(var, relax.Var):
            return None
    return None


def _is_product(var: relax.Var, values: Values, uses: Mapping[relax.Var, int]) -> bool:
    """A product of float32, with a constant bias or without."""
    value = values[var]
    if op_name(value) == "relax.add" and constant(value.args[1], values) is not None:
        var = value.args[0]
        value = values.get(var) if isinstance(var, relax.Var) and uses.get(var) == 1 else None
    return op_name(value) in _PRODUCTS and str(var.ty.dtype) == "float32"


def _operand(value: relax.Expr) -> relax.Var | None:
    """What an activation is applied to."""
    name = op_name(value)
    if name.startswith(MARKER):
        (operand,) = value.args[1].fields
    elif name in _UNARY:
        operand = value.args[0]
    else:
        return None
    return operand if isinstance(operand, relax.Var) else None
