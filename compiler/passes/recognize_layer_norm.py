"""Finds layer normalization (Ba et al., 2016) that an exporter spelled as means, differences and a root."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from ..graph import Dataflow, Graph, constant, free_vars, op_name

Values = Mapping[relax.Var, relax.Expr]


def recognize_layer_norm(graph: Graph) -> Graph:
    """Replaces (x - mean) / sqrt(var + eps) [* gamma] [+ beta] over the last axis by `relax.nn.layer_norm`."""
    main = Dataflow.of(graph)
    values, uses = main.values(), main.uses()
    readers = {read: var for var, value in main.bindings for read in free_vars(value)}
    replaced: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        found = _normalized(value, values)
        if found is None:
            continue
        x, epsilon = found
        last, gamma = _affine(var, "relax.multiply", values, uses, readers)
        last, beta = _affine(last, "relax.add", values, uses, readers)
        width = int(x.ty.shape[-1])
        scale = relax.const(np.ones(width, np.float32) if gamma is None else gamma)
        shift = relax.const(np.zeros(width, np.float32) if beta is None else beta)
        replaced[last] = relax.op.nn.layer_norm(x, scale, shift, axes=[-1], epsilon=epsilon)
    main.bindings = [(var, replaced.get(var, value)) for var, value in main.bindings]
    return graph.with_main(main.live()) if replaced else graph


def _value(expr: relax.Expr, values: Values, op: str) -> tvm.ir.Call | None:
    """The call behind a variable, where it is a call of `op`."""
    value = values.get(expr) if isinstance(expr, relax.Var) else None
    return value if value is not None and op_name(value) == op else None


def _is_row_mean(call: tvm.ir.Call | None) -> bool:
    if call is None or call.attrs.axis is None or not bool(call.attrs.keepdims):
        return False
    rank = len(call.args[0].ty.shape)
    return [int(a) % rank for a in call.attrs.axis] == [rank - 1]


def _normalized(value: relax.Expr, values: Values) -> tuple[relax.Var, float] | None:
    """(x, epsilon) when `value` divides the centred x by its standard deviation."""
    if op_name(value) != "relax.divide":
        return None
    centred, root = _value(value.args[0], values, "relax.subtract"), _value(value.args[1], values, "relax.sqrt")
    if centred is None or root is None or not isinstance(centred.args[0], relax.Var):
        return None
    x = centred.args[0]
    mean = _value(centred.args[1], values, "relax.mean")
    shifted = _value(root.args[0], values, "relax.add")
    if mean is None or shifted is None or not _is_row_mean(mean) or not mean.args[0].same_as(x):
        return None
    variance = _value(shifted.args[0], values, "relax.mean")
    epsilon = constant(shifted.args[1], values)
    if variance is None or not _is_row_mean(variance) or epsilon is None or epsilon.size != 1:
        return None
    square = values.get(variance.args[0])
    if square is None or not _is_square_of(square, centred, values) or not isinstance(x.ty.shape[-1], tvm.tirx.IntImm):
        return None
    return x, float(epsilon.reshape(())[()])


def _is_square_of(square: relax.Expr, centred: tvm.ir.Call, values: Values) -> bool:
    operands: list[relax.Expr]
    if op_name(square) == "relax.power":
        exponent = constant(square.args[1], values)
        if exponent is None or exponent.size != 1 or float(exponent.reshape(())[()]) != 2:
            return False
        operands = [square.args[0]]
    elif op_name(square) == "relax.multiply":
        operands = list(square.args)
    else:
        return False
    calls = [_value(o, values, "relax.subtract") for o in operands]
    return all(c is not None and all(a.same_as(b) for a, b in zip(c.args, centred.args, strict=True)) for c in calls)


def _affine(
    var: relax.Var, op: str, values: Values, uses: Mapping[relax.Var, int], readers: Mapping[relax.Var, relax.Var]
) -> tuple[relax.Var, np.ndarray | None]:
    """The reader of `var` and its vector, where that multiplies or adds one constant per column; else `var` itself."""
    reader = readers.get(var)
    if uses.get(var) != 1 or reader is None or op_name(values[reader]) != op:
        return var, None
    call = values[reader]
    other = call.args[1] if isinstance(call.args[0], relax.Var) and call.args[0].same_as(var) else call.args[0]
    vector = constant(other, values)
    width = int(var.ty.shape[-1])
    if vector is None or vector.size not in (1, width) or (vector.size > 1 and vector.shape[-1] != width):
        return var, None
    return reader, np.ascontiguousarray(np.broadcast_to(vector.reshape(-1), (width,)))
