"""The onnx package's knowledge of single nodes: types, values and function bodies.

Nodes are upgraded to their newest form by `canonical`, not by onnx.version_converter: that one works on a whole proto,
so every weight would pass through protobuf (and fail beyond 2 GB), it lacks adapters for a good part of the operators,
and it knows no shapes, which some upgrades (Softmax, Split) need.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, TypeProto, helper, numpy_helper

from .graph import Node, TensorType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NEWEST: int = onnx.defs.onnx_opset_version()

_EVALUATE_AT = 21
"""onnxruntime has kernels for nearly every operator in its form at this opset, and lacks some newer ones."""


_FIRST_TYPED = 7
"""Definitions of older opsets name fewer types than exporters wrote and engines took."""


class Refused(Exception):  # noqa: N818 - a verdict, turned into ModelError or a diagnostic
    """onnx's inference says that the node contradicts its inputs."""


def schema_of(node: Node) -> Any:
    """The operator's definition at the node's opset, None where onnx does not know it."""
    try:
        return onnx.defs.get_schema(node.op_type, node.version, node.domain)
    except onnx.defs.SchemaError:
        return None


def to_dtype(elem_type: int) -> str:
    """The numpy name of an ONNX element type ('object' for strings).

    Raises:
        Refused: there is no such type.
    """
    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name)
    except KeyError:
        raise Refused(f"{elem_type} is not the number of an element type") from None


def to_elem_type(dtype: str) -> int:
    """The ONNX element type of a numpy dtype name."""
    if dtype == "object":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(to_numpy(dtype)))


def to_numpy(dtype: str) -> np.dtype[Any]:
    """A numpy dtype by name, those of ml_dtypes included."""
    try:
        return np.dtype(dtype)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype))


def from_proto(
    proto: onnx.NodeProto, opsets: dict[str, int], array: Callable[[TensorProto], np.ndarray] | None = None
) -> Node:
    """A NodeProto as our Node. `array` reads tensors whose value left the proto."""
    attrs: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.ref_attr_name:
            continue
        value = helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.TENSOR:
            value = array(value) if array else numpy_helper.to_array(value)
        elif attribute.type == onnx.AttributeProto.STRING:
            value = value.decode("utf-8", "replace")
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [v.decode("utf-8", "replace") for v in value]
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = list(value)
        attrs[attribute.name] = value
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    version = opsets.get(domain, 1)
    return Node(proto.op_type, list(proto.input), list(proto.output), attrs, proto.name, domain, version)


def to_proto(node: Node) -> onnx.NodeProto:
    """Our Node as a NodeProto."""
    proto = onnx.NodeProto(op_type=node.op_type, name=node.name, domain=node.domain)
    proto.input.extend(node.inputs)
    proto.output.extend(node.outputs)
    schema = schema_of(node)
    for name, given in node.attrs.items():
        value = given
        if isinstance(given, np.ndarray):
            value = numpy_helper.from_array(np.ascontiguousarray(given).reshape(given.shape))
        kind = None
        if isinstance(value, list) and not value and schema is not None and name in schema.attributes:
            kind = schema.attributes[name].type.value
        proto.attribute.append(helper.make_attribute(name, value, attr_type=kind))
    return proto


def type_proto(tensor: TensorType) -> TypeProto:
    """A tensor type with unknown dims where the shape holds no plain int."""
    proto = TypeProto()
    proto.tensor_type.elem_type = to_elem_type(tensor.dtype)
    if tensor.shape is not None:
        proto.tensor_type.shape.SetInParent()
        for size in tensor.shape:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
    return proto


def check_types(node: Node, types: dict[str, TensorType]) -> None:
    """The element types of the inputs against the operator's definition.

    Raises:
        Refused: an input has a type that the operator does not take, or two differ that must agree.
    """
    schema = schema_of(node)
    if schema is None or not schema.inputs or (not node.domain and node.version < _FIRST_TYPED):
        return
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    bound: dict[str, tuple[str, str]] = {}
    for i, name in enumerate(node.inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        takes = allowed.get(formal.type_str, {formal.type_str})
        if not name or name not in types or not all(t.startswith("tensor(") for t in takes):
            continue
        dtype = types[name].dtype
        if _type_string(dtype) not in takes:
            raise Refused(f"its input {i} ('{name}') is {dtype}, which {node.op_type} does not take there")
        if formal.type_str in allowed and formal.is_homogeneous:
            other, before = bound.setdefault(formal.type_str, (name, dtype))
            if before != dtype:
                raise Refused(f"'{other}' is {before} and '{name}' is {dtype}, but they must be of one type")


@cache
def _type_string(dtype: str) -> str:
    """What schemas call a tensor of a type: tensor(float)."""
    name = TensorProto.DataType.Name(to_elem_type(dtype)).lower()
    return f"tensor({name})"


def infer(node: Node, types: dict[str, TensorType], constants: dict[str, np.ndarray]) -> dict[str, TensorType]:
    """Output types by onnx's own inference. Unknown dims make the whole shape None.

    Raises:
        Refused: the node contradicts its inputs.
    """
    schema = schema_of(node)
    if schema is None:
        return {}
    inputs = {name: type_proto(types[name]) for name in node.inputs if name in types}
    data = {
        name: numpy_helper.from_array(np.ascontiguousarray(constants[name]).reshape(constants[name].shape), name)
        for name in node.inputs
        if name in constants and constants[name].size <= 1024
    }
    opset = helper.make_opsetid(node.domain, node.version)
    try:
        found = onnx.shape_inference.infer_node_outputs(schema, to_proto(node), inputs, data, opset_imports=[opset])
    except onnx.shape_inference.InferenceError as error:
        raise Refused(_last_clause(str(error))) from None
    except (KeyError, ValueError, RuntimeError, TypeError, onnx.checker.ValidationError):
        return {}
    result = {}
    for name, proto in found.items():
        if proto.WhichOneof("value") == "tensor_type" and proto.tensor_type.elem_type:
            result[name] = _tensor_type(proto.tensor_type)
    return result


def _tensor_type(proto: TypeProto.Tensor) -> TensorType:
    dtype = to_dtype(proto.elem_type)
    if not proto.HasField("shape") or any(not d.HasField("dim_value") for d in proto.shape.dim):
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(d.dim_value for d in proto.shape.dim))


def _last_clause(text: str) -> str:
    line = text.strip().splitlines()[-1] if text.strip() else "inference failed"
    return line.rsplit("] ", 1)[-1]


# ---- values ----------------------------------------------------------------------------------------------------------


def evaluate(node: Node, inputs: Iterable[np.ndarray | None]) -> list[np.ndarray] | None:
    """The node's outputs on given inputs, by onnxruntime and else by onnx.reference; None where neither can."""
    arrays = list(inputs)
    for run in (_by_onnxruntime, _by_reference):
        outputs = run(node, arrays)
        if outputs is not None:
            return outputs
    return None


def _single_node_model(node: Node, arrays: list[np.ndarray | None], version: int) -> onnx.ModelProto:
    proto = to_proto(node)
    names = {f"i{k}": a for k, a in enumerate(arrays) if a is not None}
    del proto.input[:]
    proto.input.extend(f"i{k}" if a is not None else "" for k, a in enumerate(arrays))
    inputs = [helper.make_tensor_value_info(n, to_elem_type(a.dtype.name), a.shape) for n, a in names.items()]
    outputs = [helper.make_empty_tensor_value_info(n) for n in node.outputs if n]
    graph = helper.make_graph([proto], "one", inputs, outputs)
    opsets = [helper.make_opsetid("", version)]
    if node.domain:
        opsets.append(helper.make_opsetid(node.domain, node.version))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _valid_at(node: Node, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    return all(name in schema.attributes for name in node.attrs) and len(node.inputs) <= schema.max_input


def _by_onnxruntime(node: Node, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    version = _EVALUATE_AT if not node.domain and _valid_at(node, _EVALUATE_AT) else NEWEST
    try:
        model = _single_node_model(node, arrays, version).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feeds = {f"i{k}": np.ascontiguousarray(a).reshape(a.shape) for k, a in enumerate(arrays) if a is not None}
        outputs = iter(session.run(None, feeds))
    except Exception:  # every failure means: not by this engine
        return None
    return [np.asarray(next(outputs)) if name else np.empty(0) for name in node.outputs]


def _by_reference(node: Node, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(_single_node_model(node, arrays, NEWEST))
            outputs = iter(evaluator.run(None, {f"i{k}": a for k, a in enumerate(arrays) if a is not None}))
    except Exception:  # every failure means: not by this engine
        return None
    return [np.asarray(next(outputs)) if name else np.empty(0) for name in node.outputs]


# ---- functions -------------------------------------------------------------------------------------------------------


def function_body(node: Node, types: dict[str, TensorType]) -> onnx.FunctionProto | None:
    """The operator's definition in terms of simpler ones, if its schema has one for these inputs."""
    schema = schema_of(node)
    if schema is None:
        return None
    if schema.has_function:
        return schema.function_body
    if schema.has_context_dependent_function:
        inputs = [type_proto(types[n]).SerializeToString() if n in types else b"" for n in node.inputs]
        try:
            body = schema.get_context_dependent_function(to_proto(node).SerializeToString(), inputs)
        except (RuntimeError, ValueError):
            return None
        function = onnx.FunctionProto.FromString(body) if body else None
        # A builder that gives up halfway leaves the signature out.
        return function if function is not None and function.output else None
    return None


def default_attrs(node: Node) -> dict[str, Any]:
    """The node's attributes, completed by the schema's defaults."""
    schema = schema_of(node)
    attrs: dict[str, Any] = {}
    if schema is not None:
        for name, attribute in schema.attributes.items():
            value = attribute.default_value
            if value is not None and value.type != onnx.AttributeProto.UNDEFINED:
                attrs[name] = helper.get_attribute_value(value)
                if isinstance(attrs[name], bytes):
                    attrs[name] = attrs[name].decode()
                elif isinstance(attrs[name], list) and attrs[name] and isinstance(attrs[name][0], bytes):
                    attrs[name] = [text.decode() for text in attrs[name]]
    return attrs | node.attrs
