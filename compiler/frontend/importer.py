"""Prepared ONNX -> Relax: a loop over the nodes that calls one converter each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvm import IRModule, relax

from . import registry, tvm_converters
from .context import Context, sizes
from .diagnostics import CannotConvert, describe, reason_of
from .graph import Graph, Node, PreparedModel, TensorType
from .names import NameSupply, identifier

if TYPE_CHECKING:
    from ..graph import Layer


@dataclass
class ImportedModel:
    """The Relax module and what its variables are in the model."""

    module: IRModule
    tensors: dict[str, str] = field(default_factory=dict)
    """Relax variable name -> ONNX tensor name."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Relax variable name -> name of the ONNX node that makes it ('' where the node has none)."""
    inputs: list[str] = field(default_factory=list)
    """ONNX names of `main`'s parameters, in order."""
    layers: dict[str, Layer] = field(default_factory=dict)
    """Kernels that converters call by themselves; see `compiler.graph.Graph`."""
    outputs: list[str] = field(default_factory=list)
    """ONNX names of the fields of `main`'s result, in order."""


def has_converter(node: Node) -> bool:
    """Whether the operator can be imported as it is."""
    return registry.find(node.domain, node.op_type) is not None or tvm_converters.has(node.domain, node.op_type)


def import_model(prepared: PreparedModel) -> ImportedModel:
    """Build the Relax module: `main(inputs…)` gives a tuple of all outputs.

    Symbolic dimensions are `tirx.Var`s named like the ONNX dimension; weights are constants; a Gather with run-time
    indices is `R.call_dps_packed("sparsec.gather.axis<N>", (data, indices))`.

    Raises:
        UnsupportedError: lists every node that cannot be compiled.
    """
    builder = relax.BlockBuilder()
    context = Context(prepared, builder)
    names = NameSupply()
    result = ImportedModel(IRModule(), outputs=[name for name, _ in prepared.outputs])
    parameters = []
    for name in prepared.inputs:
        tensor = prepared.types[name]
        var = relax.Var(names.fresh(identifier(name)), relax.TensorType(sizes(tensor.shape or ()), tensor.dtype))
        parameters.append(var)
        context.exprs[name] = var
        result.inputs.append(name)
        result.tensors[var.name] = name
    found = [dim.var for dim in prepared.dims.values() if dim.is_found]
    # A Relax function defines its symbolic sizes by its parameters.
    defining = [relax.Var(names.fresh("found_sizes"), relax.ShapeType(found))] if found else []
    with builder.function("main", [*parameters, *defining]):
        with builder.dataflow():
            for node in prepared.nodes:
                try:
                    _import_node(context, node, names, result)
                except CannotConvert as verdict:
                    _report(prepared, node, str(verdict))
            # The builder must be left in order before anything is raised.
            complete = not prepared.diagnostics.problems
            results = [context.expr(made) for _, made in prepared.outputs] if complete else []
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    prepared.diagnostics.check()
    result.layers = context.layers
    result.module = builder.get()
    result.module["main"] = result.module["main"].with_attr("num_input", len(parameters))
    return result


def _import_node(context: Context, node: Node, names: NameSupply, result: ImportedModel) -> None:
    made = convert(context, node)
    if len(made) < len(node.outputs):
        raise CannotConvert(f"its output '{node.outputs[len(made)]}' is not supported")
    for name, expr in zip(node.outputs, made, strict=False):
        if not name:
            continue
        _check_type(context.graph, name, expr)
        fresh = isinstance(expr, relax.Var) and expr.name not in result.tensors
        var = expr if fresh else context.builder.emit(expr, name_hint=names.fresh(identifier(name)))
        result.tensors[var.name] = name
        result.nodes[var.name] = node.name
        context.exprs[name] = var


def convert(context: Context, node: Node) -> list[Any]:
    """The node's outputs as normalized expressions.

    Raises:
        CannotConvert: with the reason.
    """
    ready = [name for name in node.inputs if name and name not in context.graph.types]
    if ready:
        raise CannotConvert(f"its input '{ready[0]}' could not be compiled")
    function = registry.find(node.domain, node.op_type)
    try:
        made = function(context, node) if function else tvm_converters.convert(context, node)
        made = made if isinstance(made, (list, tuple)) else _fields(context, made)
        return [context.normalize(expr) for expr in made]
    except CannotConvert:
        raise
    except Exception as error:  # TVM raises many types; each becomes a line of the report
        raise CannotConvert(reason_of(error)) from error


def _fields(context: Context, expr: Any) -> list[Any]:
    if isinstance(expr, relax.Tuple):
        return list(expr.fields)
    expr = context.normalize(expr)
    if isinstance(expr.ty, relax.TupleType):
        var = context.emit(expr)
        return [relax.TupleGetItem(var, i) for i in range(len(expr.ty.fields))]
    return [expr]


def infer_by_conversion(graph: Graph, node: Node) -> dict[str, TensorType]:
    """The node's output types as Relax infers them from our conversion: the only inference that keeps symbolic sizes.

    Raises:
        CannotConvert: the node cannot be imported, or the shape depends on run-time data.
    """
    builder = relax.BlockBuilder()
    context = Context(graph, builder)
    context.abstract_above = 4096
    parameters: list[Any] = []
    for name in dict.fromkeys(name for name in node.inputs if name):
        if name not in graph.constants and name not in graph.symbols:
            tensor = graph.types[name]
            var = relax.Var(f"x{len(parameters)}", relax.TensorType(sizes(tensor.shape or ()), tensor.dtype))
            parameters.append(var)
            context.exprs[name] = var
    problem: CannotConvert | None = None
    types: dict[str, TensorType] = {}
    with builder.function("main", parameters):
        with builder.dataflow():
            try:
                made = convert(context, node)
                types = {
                    name: _tensor_type(graph, expr) for name, expr in zip(node.outputs, made, strict=False) if name
                }
            except CannotConvert as verdict:
                problem = verdict
            output = builder.emit_output(relax.Tuple([]))
        builder.emit_func_output(output)
    if problem is not None:
        raise problem
    return types


def _tensor_type(graph: Graph, expr: Any) -> TensorType:
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        reason = "the output's shape depends on the data"
        if graph.dims:
            reason += f", or on how {', '.join(graph.dims)} compare: narrow their ranges or fix them (--dim, --shape)"
        raise CannotConvert(reason)
    return TensorType(str(ty.dtype.dtype), tuple(graph.algebra.size(d) for d in ty.shape.values))


def _check_type(graph: Graph, name: str, expr: Any) -> None:
    """Inference by onnx and by Relax must agree, else one of the two converters is wrong."""
    wanted, found = graph.types[name], _tensor_type(graph, expr)
    if found.dtype != wanted.dtype or not graph.algebra.same(found.shape or (), wanted.shape or ()):
        made, expected = describe(found.dtype, found.shape), describe(wanted.dtype, wanted.shape)
        raise CannotConvert(f"imported as {made}, but ONNX makes it {expected}")


def _report(prepared: PreparedModel, node: Node, reason: str) -> None:
    types = [prepared.types[name] for name in node.inputs if name in prepared.types]
    if "could not be compiled" in reason:
        return  # a consequence of another node's problem
    prepared.diagnostics.add(node, prepared.opset, [describe(t.dtype, t.shape) for t in types], reason)
