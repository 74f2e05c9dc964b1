"""Mutations of ONNX files: of the graph, and of the bytes. One decorated function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Rng = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Rng], None]

GRAPH: list[Mutation] = []

INTEGERS = (0, 1, -1, 2, 3, -2, 7, 16, 64, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
STRINGS = (b"", b"NOTSET", b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"linear", b"reflect", b"\xff\xfe", b"x" * 300)
TYPES = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64,
         TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.STRING,
         TensorProto.BFLOAT16, 99)  # fmt: skip
OPS = (
    *("Relu", "Neg", "Abs", "Sigmoid", "Exp", "Sqrt", "Identity", "Floor", "Softmax", "Transpose", "Shape", "Flatten"),
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "MatMul", "Gemm", "Conv", "Concat", "Reshape", "Gather"),
    *("ReduceSum", "ReduceMax", "Squeeze", "Unsqueeze", "Slice", "Split", "Cast", "Expand", "Where", "Pad", "Resize"),
    *("QuantizeLinear", "DequantizeLinear", "MaxPool", "GlobalAveragePool", "LayerNormalization", "TopK", "If", "Loop"),
)
UNARY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Relu", {}), ("Neg", {}), ("Identity", {}), ("Sigmoid", {}), ("Tanh", {}), ("Abs", {}), ("Exp", {}),
    ("Softmax", {"axis": -1}), ("Transpose", {}), ("Flatten", {"axis": 1}), ("Clip", {}), ("Erf", {}),
    ("LeakyRelu", {"alpha": 0.2}), ("HardSigmoid", {}), ("ReduceMean", {"keepdims": 1}), ("Softplus", {}),
    ("Cast", {"to": TensorProto.FLOAT}), ("Floor", {}), ("Sign", {}), ("LogSoftmax", {"axis": 0}),
)  # fmt: skip


def mutation(function: Mutation) -> Mutation:
    """Adds a mutation of graphs: it changes the model in place, and does nothing where it finds no place to."""
    GRAPH.append(function)
    return function


def pick(rng: Rng, values: Any) -> Any:
    """One of a sequence of any kind, or None of an empty one."""
    return values[int(rng.integers(len(values)))] if len(values) else None


def edges(graph: onnx.GraphProto) -> list[str]:
    """Every name of a tensor."""
    names = [i.name for i in graph.input] + [t.name for t in graph.initializer]
    return names + [o for n in graph.node for o in n.output if o]


def elements(tensor: onnx.TensorProto | None) -> np.ndarray | None:
    """A copy of a tensor's values; None where an earlier mutation made it unreadable."""
    try:
        return None if tensor is None else numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, KeyError):
        return None


def mutate_graph(model: onnx.ModelProto, rng: Rng) -> str:
    """One to four mutations, most often one; returns their names."""
    names = []
    for _ in range(min(int(rng.geometric(0.6)), 4)):
        function = pick(rng, GRAPH)
        function(model, rng)
        names.append(function.__name__)
    return "+".join(names)


def mutate_bytes(data: bytes, rng: Rng) -> bytes:
    """Flips, cuts, doubles or overwrites a few places of the file."""
    changed = bytearray(data)
    for _ in range(min(int(rng.geometric(0.5)), 8)):
        at, length = int(rng.integers(len(changed) + 1)), int(rng.integers(1, 17))
        match int(rng.integers(5)):
            case 0 if at < len(changed):
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at : at + length] = rng.bytes(length)
            case 4 if rng.random() < 0.2:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)


# --- nodes ------------------------------------------------------------------------------------------------------------


@mutation
def change_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    """To an extreme, or to a neighbour of what it was."""
    node = pick(rng, [n for n in model.graph.node if n.attribute])
    if node is None:
        return
    attribute = pick(rng, node.attribute)
    near = rng.random() < 0.6
    if attribute.type == AttributeProto.INT:
        attribute.i = attribute.i + int(rng.choice([-1, 1])) if near else pick(rng, INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = attribute.f * 0.5 if near else pick(rng, FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = pick(rng, STRINGS)
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        at = int(rng.integers(len(attribute.ints)))
        attribute.ints[at] = attribute.ints[at] + int(rng.choice([-1, 1])) if near else pick(rng, INTEGERS)
    elif attribute.type == AttributeProto.INTS:
        attribute.ints.append(int(pick(rng, INTEGERS)))


@mutation
def drop_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, [n for n in model.graph.node if n.attribute])
    if node is not None:
        del node.attribute[int(rng.integers(len(node.attribute)))]


@mutation
def lengthen_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    """One element more or less than the rank wants."""
    lists = [a for n in model.graph.node for a in n.attribute if a.type == AttributeProto.INTS and a.ints]
    attribute = pick(rng, lists)
    if attribute is not None:
        if rng.random() < 0.5:
            attribute.ints.append(attribute.ints[-1])
        else:
            del attribute.ints[-1]


@mutation
def unknown_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    if node is not None:
        node.attribute.append(helper.make_attribute("strangeness", 1))


@mutation
def rewire(model: onnx.ModelProto, rng: Rng) -> None:
    """An input reads another tensor: of another shape, of another type, or computed later."""
    node = pick(rng, [n for n in model.graph.node if n.input])
    names = edges(model.graph)
    if node is not None and names:
        node.input[int(rng.integers(len(node.input)))] = pick(rng, names)


@mutation
def swap_inputs(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, [n for n in model.graph.node if len(n.input) > 1])
    if node is not None:
        i, j = (int(v) for v in rng.choice(len(node.input), 2, replace=False))
        node.input[i], node.input[j] = node.input[j], node.input[i]


@mutation
def drop_input(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, [n for n in model.graph.node if n.input])
    if node is not None:
        at = int(rng.integers(len(node.input)))
        if rng.random() < 0.5:
            node.input[at] = ""
        else:
            del node.input[at]


@mutation
def drop_output(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, [n for n in model.graph.node if n.output])
    if node is not None:
        del node.output[-1]


@mutation
def delete_node(model: onnx.ModelProto, rng: Rng) -> None:
    if model.graph.node:
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


@mutation
def bypass_node(model: onnx.ModelProto, rng: Rng) -> None:
    """The node goes, its readers read its input."""
    node = pick(rng, [n for n in model.graph.node if n.input and n.input[0] and n.output])
    if node is None:
        return
    source, gone = node.input[0], node.output[0]
    model.graph.node.remove(node)
    for other in model.graph.node:
        for i, name in enumerate(other.input):
            if name == gone:
                other.input[i] = source
    for value in model.graph.output:
        if value.name == gone:
            model.graph.node.append(helper.make_node("Identity", [source], [gone]))


@mutation
def repeat_node(model: onnx.ModelProto, rng: Rng) -> None:
    """Two nodes write the same tensor."""
    node = pick(rng, model.graph.node)
    if node is not None:
        model.graph.node.append(node)


@mutation
def shuffle_nodes(model: onnx.ModelProto, rng: Rng) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in rng.permutation(len(nodes)))


@mutation
def change_op(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    if node is not None:
        node.op_type = pick(rng, OPS)


@mutation
def change_domain(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    if node is not None:
        node.domain = str(pick(rng, ("com.microsoft", "ai.onnx", "ai.onnx.ml", "com.example")))


@mutation
def insert_unary(model: onnx.ModelProto, rng: Rng) -> None:
    """Between a tensor and one of its readers; most results are valid."""
    readers = [(n, i) for n in model.graph.node for i, name in enumerate(n.input) if name]
    if not readers:
        return
    node, at = pick(rng, readers)
    op, attributes = pick(rng, UNARY)
    name = f"between_{len(model.graph.node)}"
    index = list(model.graph.node).index(node)
    added = helper.make_node(op, [node.input[at]], [name], name=name, **attributes)
    node.input[at] = name
    model.graph.node.insert(index, added)


@mutation
def append_unary(model: onnx.ModelProto, rng: Rng) -> None:
    """After a tensor, as one more output of the model; most results are valid."""
    source = pick(rng, edges(model.graph))
    if source is None:
        return
    op, attributes = pick(rng, UNARY)
    name = f"after_{len(model.graph.node)}"
    model.graph.node.append(helper.make_node(op, [source], [name], name=name, **attributes))
    model.graph.output.append(onnx.ValueInfoProto(name=name))


@mutation
def join(model: onnx.ModelProto, rng: Rng) -> None:
    """A binary operator over two tensors, as one more output of the model."""
    names = edges(model.graph)
    if names:
        op = str(pick(rng, ("Add", "Mul", "Sub", "MatMul", "Max", "Concat", "Equal", "Gather", "Div")))
        name = f"join_{len(model.graph.node)}"
        attributes = {"axis": int(rng.integers(-2, 3))} if op in ("Concat", "Gather") else {}
        inputs = [pick(rng, names), pick(rng, names)]
        model.graph.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        model.graph.output.append(onnx.ValueInfoProto(name=name))


# --- weights ----------------------------------------------------------------------------------------------------------


@mutation
def change_values(model: onnx.ModelProto, rng: Rng) -> None:
    """Some or all elements become extremes."""
    tensor = pick(rng, model.graph.initializer)
    array = elements(tensor)
    if array is None:
        return
    if array.dtype.kind == "f":
        value: Any = pick(rng, FLOATS)
    elif array.dtype.kind in "iu":
        value = pick(rng, [v for v in INTEGERS if np.iinfo(array.dtype).min <= v <= np.iinfo(array.dtype).max])
    else:
        return
    where = rng.random(array.shape) < float(pick(rng, (0.1, 1.0)))
    array = np.where(where, np.asarray(value).astype(array.dtype), array)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), tensor.name))


@mutation
def prune(model: onnx.ModelProto, rng: Rng) -> None:
    """Most elements of a weight become zero, in blocks or anywhere: valid, and other kernels are chosen."""
    tensor = pick(rng, [t for t in model.graph.initializer if len(t.dims) >= 2])
    array = elements(tensor)
    if array is None:
        return
    array[rng.random(array.shape) < float(pick(rng, (0.5, 0.9, 1.0)))] = 0
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@mutation
def change_dims(model: onnx.ModelProto, rng: Rng) -> None:
    """The dims of a weight no longer fit its bytes, or its readers."""
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None and tensor.dims:
        if rng.random() < 0.5:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = int(pick(rng, INTEGERS))
        else:
            dims = [tensor.dims[i] for i in rng.permutation(len(tensor.dims))]
            del tensor.dims[:]
            tensor.dims.extend(dims)


@mutation
def change_weight_type(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None:
        tensor.data_type = int(pick(rng, TYPES))


@mutation
def cut_weight(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]


@mutation
def drop_weight(model: onnx.ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


@mutation
def outside_data(model: onnx.ModelProto, rng: Rng) -> None:
    """The weight claims to lie in a file: missing, a folder, outside of the model's folder."""
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    location = str(pick(rng, ("absent.bin", ".", "../outside", "/dev/null", "", "a" * 5000)))
    for key, value in (("location", location), ("offset", str(pick(rng, INTEGERS))), ("length", "x")):
        if key == "location" or rng.random() < 0.3:
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))


@mutation
def weight_as_input(model: onnx.ModelProto, rng: Rng) -> None:
    """A constant becomes an input: what had to be known at build time no longer is."""
    tensor = pick(rng, model.graph.initializer)
    if tensor is not None:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        model.graph.initializer.remove(tensor)


# --- the model's interface --------------------------------------------------------------------------------------------


@mutation
def change_input_shape(model: onnx.ModelProto, rng: Rng) -> None:
    value = pick(rng, [i for i in model.graph.input if i.type.tensor_type.shape.dim])
    if value is None:
        return
    dim = pick(rng, value.type.tensor_type.shape.dim)
    choice = rng.random()
    if choice < 0.5:
        dim.dim_value = max(dim.dim_value + int(rng.choice([-1, 1])), 0)
    elif choice < 0.8:
        dim.dim_param = str(pick(rng, ("n", "batch", "", "2*n", "?")))
    else:
        dim.dim_value = int(pick(rng, INTEGERS))


@mutation
def change_input_rank(model: onnx.ModelProto, rng: Rng) -> None:
    value = pick(rng, model.graph.input)
    if value is None:
        return
    shape = value.type.tensor_type.shape
    if shape.dim and rng.random() < 0.5:
        del shape.dim[0]
    elif rng.random() < 0.2:
        value.type.tensor_type.ClearField("shape")
    else:
        shape.dim.add().dim_value = 1


@mutation
def change_input_type(model: onnx.ModelProto, rng: Rng) -> None:
    value = pick(rng, model.graph.input)
    if value is not None:
        value.type.tensor_type.elem_type = int(pick(rng, TYPES))


@mutation
def change_outputs(model: onnx.ModelProto, rng: Rng) -> None:
    """None, one twice, one that nobody computes, or an inner tensor."""
    names = edges(model.graph)
    match int(rng.integers(4)):
        case 0:
            del model.graph.output[:]
        case 1 if model.graph.output:
            model.graph.output.append(model.graph.output[0])
        case 2:
            model.graph.output.append(onnx.ValueInfoProto(name="nobody"))
        case 3 if names:
            model.graph.output.append(onnx.ValueInfoProto(name=pick(rng, names)))


@mutation
def change_output_type(model: onnx.ModelProto, rng: Rng) -> None:
    """The declared type or shape of an output is another than the computed one."""
    value = pick(rng, model.graph.output)
    if value is not None:
        shape = [int(pick(rng, (1, 2, 5)))] * int(rng.integers(4))
        value.CopyFrom(helper.make_tensor_value_info(value.name, int(pick(rng, TYPES)), shape))


@mutation
def change_opset(model: onnx.ModelProto, rng: Rng) -> None:
    if model.opset_import:
        opset = pick(rng, model.opset_import)
        opset.version = int(pick(rng, (1, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 99, 0, -1)))


@mutation
def drop_opsets(model: onnx.ModelProto, rng: Rng) -> None:
    if rng.random() < 0.5:
        del model.opset_import[:]
    else:
        model.ir_version = int(pick(rng, (0, 1, 3, 99)))


@mutation
def rename(model: onnx.ModelProto, rng: Rng) -> None:
    """An input or output takes a name that no C identifier and no file name can be."""
    strange = str(pick(rng, ("", "a b", "x/y:0", "ü", "-1", "int", 'quote"', "new\nline", "%s%n", "x" * 400)))
    old = pick(rng, [v.name for v in (*model.graph.input, *model.graph.output)])
    if old is None:
        return
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if value.name == old:
            value.name = strange
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = strange


@mutation
def into_branch(model: onnx.ModelProto, rng: Rng) -> None:
    """The last node moves into both branches of an If."""
    if not model.graph.node:
        return
    node = model.graph.node[-1]
    if not node.output:
        return
    branches = {}
    for side in ("then_branch", "else_branch"):
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.output[0] = f"{side}_out"
        result = [onnx.ValueInfoProto(name=inner.output[0])]
        branches[side] = helper.make_graph([inner], side, [], result)
    chosen = helper.make_node("If", ["condition"], [node.output[0]], name="chosen", **branches)
    del model.graph.node[-1]
    model.graph.node.append(chosen)
    if rng.random() < 0.5:
        model.graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), "condition"))
    else:
        model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
