"""ONNX -> ONNX without shape arithmetic: one pass over the nodes in topological order.

Each node is brought to its newest form, then evaluated where its inputs are known (as numbers, or as expressions over
the dynamic dimensions), inlined where it is a function, dropped where it does nothing, or kept with its output types.
"""

from __future__ import annotations

import contextlib
from collections import deque
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError, ShapeError, UnsupportedError
from . import cleanup, inline, onnx_schema, ranges, registry
from .canonical import Rewriter, canonical
from .control_flow import ControlFlow
from .diagnostics import CannotConvert, describe, reason_of
from .dims import Bound, bind_inputs
from .expansion import Expansion
from .fixed import fixed_inputs
from .graph import MOST_ELEMENTS, Node, Output, PreparedModel, TensorType
from .importer import has_converter, infer_by_conversion
from .linear import SizesMeet, Sum, check_depths, check_sizes_meet
from .load import LoadedModel, tensor_array
from .names import NameSupply, label
from .sequences import Sequences
from .symbolic import Algebra, evaluate_symbolic, is_symbolic, object_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FREE_BYTES = 1 << 20
"""A constant result up to this size is always computed at build time."""

_GROWTH = 4
"""A larger one only if it is at most so many times its inputs; else the node stays (one-hot tables, tiled masks)."""

_COMPUTED = frozenset(
    [
        "bool",
        "bfloat16",
        "float16",
        "float32",
        "float64",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ]
)
"""Types that kernels compute with."""

_LIST = ", ".join(sorted(_COMPUTED))

_AXIS_OF_FIRST = {
    *(
        "LayerNormalization",
        "RMSNormalization",
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "Gather",
        "GatherElements",
        "Split",
    ),
    *("ArgMax", "ArgMin", "CumSum", "CumProd", "ScatterElements", "TopK", "Compress", "Unique", "LpNormalization"),
}
"""Operators whose axis counts the dimensions of their first input."""

_KEPT_ON_CONSTANTS = {"DequantizeLinear"}
"""Not evaluated but for single numbers: integer weights must stay visible as such."""


def prepare(
    loaded: LoadedModel,
    dims: Mapping[str, Bound] | None = None,
    shapes: Mapping[str, Sequence[Bound | None]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    turns: Mapping[str, int] | None = None,
) -> PreparedModel:
    """Bind the input dimensions and remove everything that is known at build time.

    Args:
        loaded: a model from `load`.
        dims: ONNX dimension name -> size, or (lowest, highest) to keep it dynamic.
        shapes: input name -> sizes or ranges, None for an axis that `dims` or the model give.
        fixed: input name -> its value, for inputs that become constants.
        turns: Loop, by its name or an output's -> the most turns of one whose number only a run knows.

    Dynamic sizes that an elementwise operator or a product brings together are taken to be equal, where one of them is
    an input's dimension: runs in which they differ are refused.

    Returns:
        the prepared graph; nodes that cannot be compiled are in its `diagnostics`, raised by `import_model`.

    Raises:
        ShapeError: a dimension is unbound or contradicts the model.
        ModelError: a node contradicts its inputs.
    """
    sums: dict[str, Sum] = {}
    while True:
        try:
            return _prepare(loaded, dims or {}, shapes or {}, fixed or {}, sums, turns or {})
        except SizesMeet as found:
            if found.name in sums:
                raise ShapeError(
                    f"Dimension '{found.name}' would have to be {found.total} and {sums[found.name]}."
                ) from None
            sums[found.name] = found.total


def _prepare(
    loaded: LoadedModel,
    dims: Mapping[str, Bound],
    shapes: Mapping[str, Sequence[Bound | None]],
    fixed: Mapping[str, Any],
    sums: Mapping[str, Sum],
    turns: Mapping[str, int],
) -> PreparedModel:
    constants = {**loaded.weights, **fixed_inputs(loaded, fixed)}
    graph = PreparedModel(algebra=Algebra(), constants=constants, sha256=loaded.sha256)
    graph.opset = loaded.opsets.get("", 0)
    for name, value in graph.constants.items():
        graph.types[name] = TensorType(str(value.dtype.name), value.shape)
    free = [value for value in loaded.proto.graph.input if value.name not in constants]
    bind_inputs(graph, free, dims, shapes, sums)
    for name in graph.inputs:
        tensor = graph.types[name]
        if tensor.dtype not in _COMPUTED:
            raise UnsupportedError(f"Input '{name}' is {tensor.dtype}; only these are supported: {_LIST}.")
        if tensor.empty:
            graph.constants[name] = np.zeros(tuple(tensor.shape or ()), tensor.dtype)
    _Pass(loaded, graph, turns).run()
    cleanup.run(graph)
    graph.input_ranges = ranges.find(graph)
    return graph


class _Pass:
    """The state of the forward pass."""

    def __init__(self, loaded: LoadedModel, graph: PreparedModel, turns: Mapping[str, int]) -> None:
        self.loaded = loaded
        self.graph = graph
        self.names = NameSupply()
        self.aliases: dict[str, str] = {}
        """Removed tensor -> the tensor that holds the same value."""
        self.rewriter = Rewriter(graph, self.names)
        self.control_flow = ControlFlow(graph, self.names, self.rewriter, self._array, loaded.opsets, turns)
        self.sequences = Sequences(graph, self.names, self.rewriter, self.control_flow)
        self.functions = {("" if f.domain == "ai.onnx" else f.domain, f.name): f for f in loaded.proto.functions}
        self.queue: deque[Node] = deque(
            onnx_schema.from_proto(n, loaded.opsets, self._array) for n in loaded.proto.graph.node
        )
        self.inferred: list[tuple[Node, str, TensorType]] = []
        """What functions of ONNX that are taken apart should make: their definitions check less than inference."""
        self.given = set(map(id, self.queue))
        """The model's own nodes, as long as they wait: what they are rewritten to is valid by construction."""

    def _array(self, tensor: Any) -> np.ndarray:
        return tensor_array(tensor, self.loaded.weights)

    def run(self) -> None:
        """Consume the queue."""
        for name in [*self.graph.constants, *self.graph.inputs]:
            self.names.reserve(name)
        for node in self.queue:
            for name in node.outputs:
                self.names.reserve(name)
        while self.queue:
            node = self.queue.popleft()
            node.inputs = [self.aliases.get(name, name) for name in node.inputs]
            if any(name and name not in self.graph.types and name not in self.sequences.of for name in node.inputs):
                continue  # it depends on a node that was reported
            try:
                if id(node) in self.given:
                    self.given.remove(id(node))
                    onnx_schema.check_types(node, self.graph.types)
                    self._check_axis(node)
                self._step(node)
            except CannotConvert as verdict:
                check_sizes_meet(self.graph, node)
                self._report(node, str(verdict))
            except onnx_schema.Refused as error:
                inputs = ", ".join(self._described(node)) or "none"
                raise ModelError(f"{label(node)} contradicts its inputs ({inputs}): {reason_of(error)}") from None
        self._check_inferred()
        for value in self.loaded.proto.graph.output:
            if value.name in self.sequences.of:
                raise UnsupportedError(f"Output '{value.name}' is a sequence; only tensors can be outputs.")
            self.graph.outputs.append(Output(value.name, self.aliases.get(value.name, value.name)))

    def _check_axis(self, node: Node) -> None:
        """onnx's inference lets some operators have any axis."""
        axis, name = node.attrs.get("axis"), node.input(0)
        shape = self.graph.types[name].shape if name in self.graph.types else None
        if node.op_type in _AXIS_OF_FIRST and not node.domain and axis is not None and shape is not None:
            rank = len(shape)
            if not -rank <= axis < rank:
                raise onnx_schema.Refused(f"its axis {axis} is none of a tensor with {rank}")

    def _check_inferred(self) -> None:
        for node, name, wanted in self.inferred:
            made = self.graph.types.get(self.aliases.get(name, name))
            if made is not None and made.static and wanted.static and made.shape != wanted.shape:
                raise ModelError(
                    f"{label(node)} contradicts its inputs ({', '.join(self._described(node))}): '{name}' would be "
                    f"{describe(made.dtype, made.shape)}, not {describe(wanted.dtype, wanted.shape)}"
                )

    # ---- one node ----------------------------------------------------------------------------------------------------

    def _step(self, node: Node) -> None:
        graph = self.graph
        if node.op_type == "Constant" and not node.domain:
            self._constant(node.outputs[0], inline.constant_value(node, self._array))
        elif (expanded := self.control_flow.expand(node)) is not None or (
            expanded := self.sequences.expand(node)
        ) is not None:
            self.given |= set(map(id, expanded))
            self._again(expanded)
        elif (node.domain, node.op_type) in self.functions:
            body = inline.function_nodes(node, self.functions[node.domain, node.op_type], self.names, self._array)
            self._again(body)
        elif (expand := registry.find_expander(node.domain, node.op_type)) is not None:
            expansion = Expansion(node, self.rewriter)
            try:
                expand(expansion)
            except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise CannotConvert(reason_of(error)) from error  # wrong numbers or ranks of inputs
            self._again(expansion.nodes)
        elif held := [name for name in node.inputs if name in self.sequences.of]:
            raise CannotConvert(f"its input '{held[0]}' is a sequence, not a tensor")
        elif (replaced := canonical(node, self.rewriter)) is not None:
            self._again(replaced)
        elif (same := inline.unchanged_input(graph, node)) is not None:
            self.aliases[node.outputs[0]] = same
        elif not self._fold(node):
            self._keep(node)

    def _again(self, nodes: Iterable[Node]) -> None:
        self.queue.extendleft(reversed(list(nodes)))

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.graph.constants[name] = value
        self.graph.types[name] = TensorType(str(value.dtype.name), value.shape)

    def _known(self, name: str, value: np.ndarray, dtype: str) -> None:
        """Record a value computed here: numbers become a constant, expressions a symbolic tensor."""
        if value.dtype != object or dtype == "object":
            self._constant(name, value)
        elif not is_symbolic(value):
            self._constant(name, np.array(value.tolist(), onnx_schema.to_numpy(dtype)).reshape(value.shape))
        else:
            self.graph.symbols[name] = value
            self.graph.types[name] = TensorType(dtype, value.shape)

    # ---- values ------------------------------------------------------------------------------------------------------

    def _fold(self, node: Node) -> bool:
        """Compute the outputs now, where the inputs are known and the result is not out of proportion."""
        graph = self.graph
        if node.domain:
            return False
        if node.op_type in ("Shape", "Size"):
            shape = graph.shape(node.inputs[0])
            if node.op_type == "Size":
                value = object_array([graph.algebra.product(shape)], ())
            else:
                value = object_array(list(shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]))
            self._known(node.outputs[0], value, "int64")
            return True
        values = [graph.known(name) if name else None for name in node.inputs]
        if not node.inputs or any(name and value is None for name, value in zip(node.inputs, values, strict=True)):
            return False
        if node.op_type in _KEPT_ON_CONSTANTS and any(v is not None and v.size > 1 for v in values):
            return False
        if any(name in graph.symbols for name in node.inputs):
            return self._fold_symbolic(node, values)
        if node.op_type in ("ConstantOfShape", "Expand"):
            return self._fold_filled(node, values)
        try:
            types = onnx_schema.infer(node, graph.types, graph.constants)
            refusal = None
        except onnx_schema.Refused as error:  # inference is stricter than the operator (Range of vectors of one)
            types, refusal = {}, error
        if self._blows_up(node, types):
            return False
        outputs = onnx_schema.evaluate(node, values)
        if outputs is None:
            if refusal is not None:
                raise refusal
            return False
        for name, value in zip(node.outputs, outputs, strict=True):
            if name:
                self._constant(name, value)
        return True

    def _fold_symbolic(self, node: Node, values: list[np.ndarray | None]) -> bool:
        if any(v is not None and v.size > 4096 for v in values):
            return False
        if node.op_type == "Expand" and self.graph.symbols.get(node.inputs[1]) is not None:
            return False
        dtype = self._first_dtype(node)
        outputs = evaluate_symbolic(self.graph.algebra, node, values, dtype)
        if outputs is None:
            return False
        for name, value in zip(node.outputs, outputs, strict=True):
            if name:
                self._known(name, value, dtype)
        return True

    def _first_dtype(self, node: Node) -> str:
        if node.op_type == "Cast":
            return onnx_schema.to_dtype(node.attrs["to"])
        if node.op_type in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or"):
            return "bool"
        return self.graph.type_of(node.inputs[1 if node.op_type == "Where" else 0]).dtype

    def _fold_filled(self, node: Node, values: list[np.ndarray | None]) -> bool:
        """Filled and broadcast tensors are views: they take memory only where a converter needs the elements."""
        first, target = values[0], values[1] if len(values) > 1 else values[0]
        assert first is not None and target is not None
        if node.op_type == "ConstantOfShape":
            value = node.attrs.get("value", np.zeros(1, np.float32)).reshape(())
            self._constant(node.outputs[0], np.broadcast_to(value, tuple(target.tolist())))
            return True
        try:
            shape = np.broadcast_shapes(first.shape, tuple(target.tolist()))
        except ValueError as error:
            raise onnx_schema.Refused(str(error)) from None
        self._constant(node.outputs[0], np.broadcast_to(first, shape))
        return True

    def _blows_up(self, node: Node, types: dict[str, TensorType]) -> bool:
        made = 0
        for tensor in types.values():
            if not tensor.static or tensor.dtype == "object":
                return False
            made += int(np.prod(tensor.shape or (), dtype=np.int64)) * onnx_schema.to_numpy(tensor.dtype).itemsize
        used = sum(self.graph.constants[n].nbytes for n in node.inputs if n in self.graph.constants)
        return made > max(_FREE_BYTES, _GROWTH * used)

    # ---- what stays --------------------------------------------------------------------------------------------------

    def _keep(self, node: Node) -> None:
        check_depths(self.graph, node)
        if not has_converter(node):
            body = onnx_schema.function_body(node, self.graph.types)
            if body is not None:
                inferred = onnx_schema.infer(node, self.graph.types, self.graph.constants)
                self.inferred += [(node, name, inferred[name]) for name in node.outputs if name in inferred]
                self._again(inline.function_nodes(node, body, self.names, self._array))
                return
            self._report(node, "")
            with contextlib.suppress(onnx_schema.Refused):
                self._type_outputs(node, onnx_schema.infer(node, self.graph.types, self.graph.constants))
            return
        types: dict[str, TensorType] = {}
        if all(self.graph.types[name].static for name in node.inputs if name) and not self._uses_symbols(node):
            types = onnx_schema.infer(node, self.graph.types, self.graph.constants)
        if any(name and (name not in types or types[name].shape is None) for name in node.outputs):
            types = infer_by_conversion(self.graph, node)
        made = [types[name] for name in node.outputs if name in types]
        strange = [t.dtype for t in made if t.dtype not in _COMPUTED]
        if strange:
            raise CannotConvert(f"results of type {strange[0]} are not supported")
        if made and all(t.empty for t in made):
            for name in node.outputs:
                if name:
                    self._constant(name, np.zeros(tuple(types[name].shape or ()), types[name].dtype))
            return
        self._type_outputs(node, types)
        self.graph.nodes.append(node)

    def _uses_symbols(self, node: Node) -> bool:
        return any(name in self.graph.symbols for name in node.inputs)

    def _type_outputs(self, node: Node, types: dict[str, TensorType]) -> None:
        for name in node.outputs:
            if name and name in types and types[name].shape is not None:
                self.graph.types[name] = types[name]
                elements = prod(types[name].shape or ()) if types[name].static else 0
                if elements > MOST_ELEMENTS:
                    raise CannotConvert(f"'{name}' would have {elements} elements; {MOST_ELEMENTS} are possible")

    def _report(self, node: Node, reason: str) -> None:
        self.graph.diagnostics.add(node, self.graph.opset, self._described(node), reason)

    def _described(self, node: Node) -> list[str]:
        return [describe(t.dtype, t.shape) for t in (self.graph.types[n] for n in node.inputs if n in self.graph.types)]
