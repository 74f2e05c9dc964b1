"""Caches that grow: `present = concat(past, new)`, where past is an input and present an output of the model.

The rows of the two lie in one buffer whose outermost axis is the one that grows. Bound as a state, it outlives the run:
new rows are appended where they stay, and nothing is copied, whatever its length. Without a binding, past is copied in
and present out. What reads present sees the buffer through a transpose, which products and attention read in place.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, op_name, substitute


def append_states(graph: Graph) -> Graph:
    """Every such pair becomes layers `append` (past, new) -> rows, and `appended` rows -> present."""
    main = Dataflow.of(graph)
    results = list(main.result.fields) if isinstance(main.result, tvm.ir.Tuple) else [main.result]
    uses = main.uses()
    layers = dict(graph.layers)
    bindings: list[tuple[relax.Var, relax.Expr]] = []
    renamed: dict[relax.Var, relax.Var] = {}
    for var, value in main.bindings:
        axis = _grows_along(var, value, main, results, uses)
        if axis is None:
            bindings.append((var, value))
            continue
        past = value.args[0].fields[0]
        attrs = {"state": graph.tensors.get(past.name, past.name), "axis": axis}
        present = graph.tensors.get(var.name, var.name)
        shape = list(var.ty.shape)
        order = [axis, *(i for i in range(len(shape)) if i != axis)]
        rows_type = relax.TensorType([shape[i] for i in order], var.ty.dtype)
        append, appended = (f"{LAYER_PREFIX}{len(layers) + i}" for i in range(2))
        layers[append] = Layer("append", attrs, (), present)
        layers[appended] = Layer("appended", attrs, (), present)
        rows = relax.Var(f"{var.name}_rows", rows_type)
        seen = relax.Var(f"{var.name}_seen", var.ty)
        bindings.append((rows, relax.op.call_dps_packed(append, value.args[0], out_ty=rows_type)))
        if all(_is_one(shape[i]) for i in range(axis)):
            bindings.append((seen, relax.op.reshape(rows, shape)))
        else:
            bindings.append((seen, relax.op.permute_dims(rows, [order.index(i) for i in range(len(shape))])))
        bindings.append((var, relax.op.call_dps_packed(appended, relax.Tuple([rows]), out_ty=var.ty)))
        renamed[var] = seen
    if not renamed:
        return graph
    main.bindings = [(var, value if var in renamed else substitute(value, renamed)) for var, value in bindings]
    return graph.with_main(main.live(), layers)


def _grows_along(
    var: relax.Var, value: Any, main: Dataflow, results: list[relax.Expr], uses: dict[relax.Var, int]
) -> int | None:
    """The axis along which rows are appended to a parameter that nothing else reads, for an output."""
    if op_name(value) != "relax.concat" or sum(var.same_as(r) for r in results) != 1:
        return None
    parts = value.args[0].fields
    if len(parts) != 2 or not any(parts[0].same_as(p) for p in main.params) or uses.get(parts[0]) != 1:
        return None
    axis = int(value.attrs.axis) % len(var.ty.shape)
    return axis if isinstance(parts[0].ty.shape[axis], tvm.tirx.Var) else None


def _is_one(size: Any) -> bool:
    return isinstance(size, tvm.tirx.IntImm) and int(size) == 1
