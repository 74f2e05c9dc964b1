"""Replacing nodes by what they stand for: constants, branches, function bodies, their own input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import default_attrs, from_proto, to_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .graph import Graph
    from .names import NameSupply

    ReadTensor = Callable[[onnx.TensorProto], np.ndarray]


def constant_value(node: Node, read: ReadTensor) -> np.ndarray:
    """The value of a Constant node in any of its forms."""
    attrs = node.attrs
    if "value" in attrs:
        return np.asarray(attrs["value"])
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if name in attrs:
            return np.array(attrs[name], dtype)
    if "value_ints" in attrs:
        return np.array(attrs["value_ints"], np.int64)
    for name in ("value_string", "value_strings"):
        if name in attrs:
            return np.array(attrs[name], object)
    raise CannotConvert("sparse Constant nodes are not supported; store the value as a dense tensor")


def unchanged_input(graph: Graph, node: Node) -> str | None:
    """The input that the node's only used output equals, or None."""
    if node.domain or not node.inputs or not node.inputs[0]:
        return None
    first = node.inputs[0]
    shape = graph.type_of(first).shape
    if node.op_type == "Identity":
        return first
    if node.op_type == "Dropout":
        training = graph.constants.get(node.input(2)) if node.input(2) else np.array(False)
        if training is None or bool(training.reshape(-1)[0]):
            raise CannotConvert("dropout in training mode is not supported; export the model for inference")
        return first if not any(node.outputs[1:]) else None
    if node.op_type == "Cast":
        return first if to_dtype(node.attrs["to"]) == graph.type_of(first).dtype else None
    if node.op_type == "CastLike":
        return first if graph.type_of(node.inputs[1]).dtype == graph.type_of(first).dtype else None
    if node.op_type == "Transpose" and "perm" in node.attrs:
        return first if node.attrs["perm"] == list(range(len(shape or ()))) else None
    if node.op_type in ("Concat", "Sum", "Max", "Min", "Mean") and len(node.inputs) == 1:
        return first
    if node.op_type in ("Pad", "Expand", "Tile") and shape is not None:
        value = graph.constants.get(node.input(1))
        neutral = 1 if node.op_type != "Pad" else 0
        if value is not None and value.size <= 2 * len(shape) and bool(np.all(value == neutral)):
            return first
    return None


def branch_nodes(
    branch: onnx.GraphProto,
    opsets: dict[str, int],
    names: NameSupply,
    read: ReadTensor,
    inputs: Sequence[str] = (),
) -> tuple[list[Node], dict[str, np.ndarray], list[str]]:
    """A subgraph's nodes with fresh inner names, its initializers, and the names of its results.

    `inputs` are what its own inputs stand for.
    """
    inner = {t.name for t in branch.initializer} | {name for node in branch.node for name in node.output if name}
    renamed = {name: names.fresh(name) for name in sorted(inner)}
    renamed |= {value.name: name for value, name in zip(branch.input, inputs, strict=True)}
    initializers = {renamed[t.name]: read(t) for t in branch.initializer}
    nodes = [_renamed(from_proto(proto, opsets, read), renamed) for proto in branch.node]
    return nodes, initializers, [renamed.get(o.name, o.name) for o in branch.output]


def function_nodes(node: Node, body: onnx.FunctionProto, names: NameSupply, read: ReadTensor) -> list[Node]:
    """The function's nodes, with its inputs, outputs and attributes bound to those of `node`.

    Raises:
        CannotConvert: the function does not make one of the outputs.
    """
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in body.opset_import}
    bound: dict[str, str] = {}
    for i, name in enumerate(body.input):
        bound[name] = node.input(i)
    for i, name in enumerate(body.output):
        bound[name] = node.outputs[i] if i < len(node.outputs) and node.outputs[i] else names.fresh(name)
    prefix = node.name or node.outputs[0]
    for proto in body.node:
        for name in proto.output:
            if name and name not in bound:
                bound[name] = names.fresh(f"{prefix}/{name}")
    attrs = default_attrs(node)
    for default in body.attribute_proto:
        attrs.setdefault(default.name, _attribute(default, read))
    nodes = []
    for proto in body.node:
        inner = _renamed(from_proto(proto, opsets, read), bound)
        for attribute in proto.attribute:
            if attribute.ref_attr_name and attribute.ref_attr_name in attrs:
                inner.attrs[attribute.name] = attrs[attribute.ref_attr_name]
        if any(isinstance(value, onnx.GraphProto) for value in inner.attrs.values()):
            inner.attrs = {k: _captures_bound(v, bound) for k, v in inner.attrs.items()}
        inner.name = f"{prefix}/{inner.name or inner.op_type}"
        nodes.append(inner)
    # A result that is an input of the function itself, or of another output, still needs its own name.
    made = {name for inner in nodes for name in inner.outputs}
    for i, name in enumerate(body.output):
        if i >= len(node.outputs) or not node.outputs[i] or bound[name] in made:
            continue
        if name not in body.input:
            raise CannotConvert(f"with these attributes its definition does not make output '{node.outputs[i]}'")
        nodes.append(Node("Identity", [node.input(list(body.input).index(name))], [node.outputs[i]]))
    return nodes


def _attribute(attribute: onnx.AttributeProto, read: ReadTensor) -> Any:
    holder = onnx.NodeProto(op_type="Constant")
    holder.attribute.append(attribute)
    return from_proto(holder, {}, read).attrs[attribute.name]


def _renamed(node: Node, names: dict[str, str]) -> Node:
    node.inputs = [names.get(name, name) for name in node.inputs]
    node.outputs = [names.get(name, name) for name in node.outputs]
    node.attrs = {k: _captures_bound(v, names) for k, v in node.attrs.items()}
    return node


def _captures_bound(value: Any, names: dict[str, str]) -> Any:
    """A subgraph attribute with the tensors it captures renamed; anything else as it is."""
    if not isinstance(value, onnx.GraphProto):
        return value
    graph = onnx.GraphProto()
    graph.CopyFrom(value)
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    outer = {old: new for old, new in names.items() if old not in own}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = outer.get(name, name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                attribute.g.CopyFrom(_captures_bound(attribute.g, outer))
    for output in graph.output:
        output.name = outer.get(output.name, output.name)
    return graph
