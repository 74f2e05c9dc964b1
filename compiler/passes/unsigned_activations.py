"""Signed 8-bit activations as unsigned ones: the integers and their zero point move up by 128, the numbers stay.

Kernels take unsigned activations and signed weights; what quantizes to one type may as well quantize to the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from ..graph import Dataflow, Graph, constant, free_vars, op_name

_VIEWS = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze")
_SHIFT = 128


def unsigned_activations(graph: Graph) -> Graph:
    """Rewrites every int8 tensor that is quantized here and read by nothing but views and dequantizations."""
    main = Dataflow.of(graph)
    values = main.values()
    readers = main.readers()
    results = set(free_vars(main.result))
    moved: dict[relax.Var, relax.Var] = {}
    bindings: list[tuple[relax.Var, relax.Expr]] = []
    for var, value in main.bindings:
        name = op_name(value)
        new: relax.Expr | None = None
        if name == "relax.quantize" and str(var.ty.dtype) == "int8":
            zero = _moved_zero(value, values)
            if zero is not None and _only_dequantized(var, readers, values, results):
                new = relax.op.quantize(*value.args[:2], zero, axis=int(value.attrs.axis), out_dtype="uint8")
        elif name in _VIEWS and value.args[0] in moved:
            args = [moved[value.args[0]], *value.args[1:]]
            new = tvm.ir.Call(value.op, args, value.attrs, value.ty_args)
        elif name == "relax.dequantize" and value.args[0] in moved:
            zero = _moved_zero(value, values)
            new = relax.op.dequantize(moved[value.args[0]], value.args[1], zero, axis=int(value.attrs.axis))
        if new is None:
            bindings.append((var, value))
        elif name == "relax.dequantize":
            bindings.append((var, new))
        else:
            unsigned = relax.Var(var.name, relax.TensorType(var.ty.shape, "uint8"))
            moved[var] = unsigned
            bindings.append((unsigned, new))
    main.bindings = bindings
    return graph.with_main(main.live())


def _moved_zero(value: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> relax.Expr | None:
    """A constant zero point as that of the unsigned tensor."""
    zero = constant(value.args[2], values)
    if zero is None or zero.dtype != np.int8:
        return None
    return relax.const((zero.astype(np.int16) + _SHIFT).astype(np.uint8))


def _only_dequantized(
    var: relax.Var,
    readers: Mapping[relax.Var, list[relax.Var]],
    values: Mapping[relax.Var, relax.Expr],
    results: set[relax.Var],
) -> bool:
    if var in results:
        return False
    for reader in readers.get(var, ()):
        value = values[reader]
        if op_name(value) in _VIEWS:
            if not _only_dequantized(reader, readers, values, results):
                return False
        elif op_name(value) != "relax.dequantize" or _moved_zero(value, values) is None:
            return False
    return True
