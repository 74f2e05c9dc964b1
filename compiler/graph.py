"""The IR between import and lower: a Relax module, plus what Relax cannot hold.

`main` is one dataflow block. A layer that a kernel of the catalogue computes appears as
`R.call_dps_packed("sparsec.layer.N", (operands…))`, and `Graph.layers` says what layer N is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax

if TYPE_CHECKING:
    from ..codegen_templates.epilogue import EpilogueOp

LAYER_PREFIX = "sparsec.layer."
REPEAT = "repeat_"
"""A TIR function's name that begins so goes on with how often it repeats elements along each axis:
`repeat_1x1x2x2_times`, where TVM may append a number."""


@dataclass(frozen=True)
class Layer:
    """A kernel call to be: the operation and what follows it on the accumulator.

    Operands are those of the operation, then one for each epilogue op that takes a tensor, in order.
    """

    family: str
    attrs: Mapping[str, Any]
    epilogue: tuple[EpilogueOp, ...]
    tensor: str
    """The ONNX tensor it computes."""
    note: str = ""
    """What the report adds to the kernel's reason."""


@dataclass(frozen=True)
class Graph:
    """What every pass takes and returns; passes do not change their argument."""

    module: tvm.IRModule
    tensors: Mapping[str, str]
    """Relax variable -> ONNX tensor."""
    layers: Mapping[str, Layer] = field(default_factory=dict)

    def with_main(self, main: Dataflow, layers: Mapping[str, Layer] | None = None) -> Graph:
        """The same graph with another `main`."""
        module = tvm.IRModule(self.module.functions, attrs=self.module.attrs)
        module["main"] = main.function()
        return replace(self, module=module, layers=self.layers if layers is None else layers)

    def script(self) -> str:
        """For `--dump-ir`."""
        rows = [f"# {name}: {layer}" for name, layer in self.layers.items()]
        return "\n".join([*rows, self.module.script(show_meta=False)]) + "\n"


@dataclass
class Dataflow:
    """`main` as a list of (variable, value) and what is returned; the form in which passes edit it."""

    params: list[relax.Var]
    bindings: list[tuple[relax.Var, relax.Expr]]
    result: relax.Expr
    attrs: Any

    @staticmethod
    def of(graph: Graph) -> Dataflow:
        """The bindings of `main`."""
        main = graph.module["main"]
        bindings = [(b.var, b.value) for block in main.body.blocks for b in block.bindings]
        result = main.body.body
        # `function` names the result again, here the names go
        while bindings and bindings[-1][0].same_as(result) and isinstance(bindings[-1][1], relax.Var | tvm.ir.Tuple):
            result = bindings.pop()[1]
        return Dataflow(list(main.params), bindings, result, main.attrs)

    def function(self) -> relax.Function:
        """The Relax function of these bindings, in one dataflow block; types are inferred anew."""
        builder = relax.BlockBuilder()
        fresh: dict[relax.Var, relax.Expr] = {}
        with builder.function("main", self.params):
            with builder.dataflow():
                for var, value in self.bindings:
                    fresh[var] = builder.emit(substitute(value, fresh), name_hint=var.name)
                result = builder.emit_output(substitute(self.result, fresh))
            builder.emit_func_output(result)
        function = builder.get()["main"]
        return function.with_attrs(self.attrs) if self.attrs is not None else function

    def values(self) -> dict[relax.Var, relax.Expr]:
        """Variable -> its value."""
        return dict(self.bindings)

    def uses(self) -> dict[relax.Var, int]:
        """Variable -> how often it is read, the result included."""
        count: dict[relax.Var, int] = {}
        for expr in [*(value for _, value in self.bindings), self.result]:
            for var in free_vars(expr):
                count[var] = count.get(var, 0) + 1
        return count

    def readers(self) -> dict[relax.Var, list[relax.Var]]:
        """Variable -> the variables whose values read it, as often as they do; the result is no reader."""
        found: dict[relax.Var, list[relax.Var]] = {}
        for var, value in self.bindings:
            for read in free_vars(value):
                found.setdefault(read, []).append(var)
        return found

    def live(self) -> Dataflow:
        """Without bindings that nothing reads."""
        needed = set(free_vars(self.result))
        kept = []
        for var, value in reversed(self.bindings):
            if var in needed:
                kept.append((var, value))
                needed.update(free_vars(value))
        return Dataflow(self.params, kept[::-1], self.result, self.attrs)


def children(expr: relax.Expr) -> Iterable[relax.Expr]:
    """The expressions that a normalized value is made of."""
    if isinstance(expr, tvm.ir.Call):
        return list(expr.args)
    if isinstance(expr, tvm.ir.Tuple):
        return list(expr.fields)
    if isinstance(expr, tvm.ir.TupleGetItem):
        return [expr.tuple_value]
    return []


def constants(graph: Graph) -> list[np.ndarray]:
    """The tensors that `main` holds, each once."""
    found: dict[tvm.ir.GenericConst, np.ndarray] = {}

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, tvm.ir.GenericConst):
            found.setdefault(expr, expr.value.numpy())
        for child in children(expr):
            visit(child)

    for _, value in Dataflow.of(graph).bindings:
        visit(value)
    return list(found.values())


def free_vars(expr: relax.Expr) -> list[relax.Var]:
    """Variables that hold tensors in a normalized value, as often as they stand there."""
    if isinstance(expr, relax.Var):
        return [] if isinstance(expr.ty, tvm.ir.PrimType) else [expr]
    return [v for child in children(expr) for v in free_vars(child)]


def substitute(expr: relax.Expr, mapping: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """The value with variables replaced."""
    if isinstance(expr, relax.Var):
        return mapping.get(expr, expr)
    if isinstance(expr, tvm.ir.Call):
        args = [substitute(a, mapping) for a in expr.args]
        return tvm.ir.Call(expr.op, args, expr.attrs, expr.ty_args)
    if isinstance(expr, tvm.ir.Tuple):
        return relax.Tuple([substitute(f, mapping) for f in expr.fields])
    if isinstance(expr, tvm.ir.TupleGetItem):
        return relax.TupleGetItem(substitute(expr.tuple_value, mapping), expr.index)
    return expr


def op_name(expr: relax.Expr) -> str:
    """`relax.add`, …, the symbol of an extern call, or an empty string."""
    if not isinstance(expr, tvm.ir.Call):
        return ""
    if isinstance(expr.op, tvm.ir.Op):
        if expr.op.name == "relax.call_dps_packed":
            return str(expr.args[0].global_symbol)
        return str(expr.op.name)
    return ""


def constant(expr: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> np.ndarray | None:
    """The array that a value is known to be, through reshapes and transposes of constants."""
    if isinstance(expr, tvm.ir.GenericConst):
        return np.asarray(expr.value.numpy())
    if isinstance(expr, relax.Var):
        return constant(values[expr], values) if expr in values else None
    if op_name(expr) in ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.permute_dims"):
        base = constant(expr.args[0], values)
        if base is None:
            return None
        if op_name(expr) == "relax.permute_dims":
            return np.ascontiguousarray(base.transpose(None if expr.attrs.axes is None else list(expr.attrs.axes)))
        return base.reshape([int(d) for d in expr.ty.shape])
    if op_name(expr) == "relax.dequantize":
        return _dequantized(expr, *(constant(a, values) for a in expr.args))
    return None


def _dequantized(
    expr: tvm.ir.Call, data: np.ndarray | None, scale: np.ndarray | None, zero_point: np.ndarray | None
) -> np.ndarray | None:
    """(data - zero_point) * scale in float32, per tensor or along an axis (ONNX DequantizeLinear)."""
    if data is None or scale is None or zero_point is None:
        return None
    shape = [1] * data.ndim
    if scale.size > 1:
        shape[int(expr.attrs.axis)] = scale.size
    zero = zero_point.astype(np.int64).reshape(shape if zero_point.size > 1 else [1] * data.ndim)
    centred = (data.astype(np.int64) - zero).astype(np.float32)
    return np.asarray(centred * scale.astype(np.float32).reshape(shape), np.float32)
