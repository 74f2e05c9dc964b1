"""Old operator forms rewritten to the newest one, a rule per operator.

A rule sees the node with the types of its inputs and returns the nodes to put in its place. After it, the importer and
onnx's inference deal with one form only, that of onnx's newest opset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from .diagnostics import CannotConvert
from .graph import Graph, Node, Size, TensorType
from .older_forms import FIRST_PLAIN, modernize
from .onnx_schema import NEWEST, to_numpy
from .symbolic import is_symbolic, object_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .names import NameSupply


class Rewriter:
    """What rules use to make constants and intermediate tensors."""

    def __init__(self, graph: Graph, names: NameSupply) -> None:
        self.graph = graph
        self._names = names

    def constant(self, value: np.ndarray, wish: str) -> str:
        """A new constant's name."""
        name = self._names.fresh(wish)
        self.define(name, value)
        return name

    def define(self, name: str, value: np.ndarray) -> None:
        """A constant under a name that is known to be new."""
        self.graph.constants[name] = value
        self.graph.types[name] = TensorType(str(value.dtype.name), value.shape)

    def ints(self, values: Sequence[Size], wish: str) -> str:
        """A new int64 vector, symbolic where a value is."""
        array = object_array(list(values))
        if not is_symbolic(array):
            return self.constant(array.astype(np.int64), wish)
        name = self._names.fresh(wish)
        self.graph.symbols[name] = array
        self.graph.types[name] = TensorType("int64", (len(values),))
        return name

    def tensor(self, wish: str) -> str:
        """A name for an intermediate tensor."""
        return self._names.fresh(wish)


Rule = "Callable[[Node, Rewriter], list[Node] | None]"
_RULES: dict[str, tuple[int, Callable[[Node, Rewriter], list[Node] | None]]] = {}


def _rule(
    *ops: str, before: int
) -> Callable[[Callable[[Node, Rewriter], list[Node] | None]], Callable[[Node, Rewriter], list[Node] | None]]:
    def register(
        function: Callable[[Node, Rewriter], list[Node] | None],
    ) -> Callable[[Node, Rewriter], list[Node] | None]:
        for op in ops:
            _RULES[op] = (before, function)
        return function

    return register


def canonical(node: Node, rewriter: Rewriter) -> list[Node] | None:
    """The nodes to put in place of `node`, or None where it is in its newest form (its `version` is then NEWEST).

    Rules may also change the node in place.

    Raises:
        CannotConvert: the old form says something that the newest cannot.
    """
    if node.domain or node.version == NEWEST:
        return None
    if node.version < FIRST_PLAIN:
        first = modernize(node, rewriter)
        node.version = FIRST_PLAIN
        if first:
            return [*first, node]
    before, function = _RULES.get(node.op_type, (0, None))
    if function is not None and node.version < before:
        replaced = function(node, rewriter)
        if replaced is not None:
            return replaced
    node.version = NEWEST
    return None


def _move_to_input(node: Node, rewriter: Rewriter, attr: str, index: int) -> None:
    """Turn an int list attribute into the input `index`."""
    values = node.attrs.pop(attr, None)
    if values is not None:
        _set_input(node, index, rewriter.ints(list(values), f"{node.outputs[0]}/{attr}"))


def _set_input(node: Node, index: int, name: str) -> None:
    node.inputs += [""] * (index + 1 - len(node.inputs))
    node.inputs[index] = name


def _scalar(rewriter: Rewriter, node: Node, value: Any, like: str, wish: str) -> str:
    dtype = rewriter.graph.type_of(like).dtype
    return rewriter.constant(np.array(value, to_numpy(dtype)), f"{node.outputs[0]}/{wish}")


@_rule("Squeeze", "Unsqueeze", "ReduceSum", before=13)
@_rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSumSquare"),
    before=18,
)
def _axes(node: Node, rewriter: Rewriter) -> None:
    _move_to_input(node, rewriter, "axes", 1)


@_rule("Slice", before=10)
def _slice(node: Node, rewriter: Rewriter) -> None:
    for index, attr in enumerate(("starts", "ends", "axes"), 1):
        _move_to_input(node, rewriter, attr, index)


@_rule("Pad", before=11)
def _pad(node: Node, rewriter: Rewriter) -> None:
    _move_to_input(node, rewriter, "pads", 1)
    value = node.attrs.pop("value", 0.0)
    _set_input(node, 2, _scalar(rewriter, node, value, node.inputs[0], "value"))


@_rule("Clip", before=11)
def _clip(node: Node, rewriter: Rewriter) -> None:
    for index, attr in enumerate(("min", "max"), 1):
        value = node.attrs.pop(attr, None)
        if value is not None:
            _set_input(node, index, _scalar(rewriter, node, value, node.inputs[0], attr))


@_rule("TopK", before=10)
def _topk(node: Node, rewriter: Rewriter) -> None:
    _set_input(node, 1, rewriter.ints([node.attrs.pop("k")], f"{node.outputs[0]}/k"))


@_rule("Upsample", before=10)
def _upsample(node: Node, rewriter: Rewriter) -> list[Node]:
    attrs = {"mode": node.attrs.get("mode", "nearest")} | _RESIZE_10
    scales = node.input(1)
    if "scales" in node.attrs:
        scales = rewriter.constant(np.array(node.attrs["scales"], np.float32), f"{node.outputs[0]}/scales")
    return [Node("Resize", [node.inputs[0], "", scales], node.outputs, attrs, node.name, version=NEWEST)]


@_rule("Resize", before=11)
def _resize(node: Node, rewriter: Rewriter) -> None:
    node.inputs = [node.inputs[0], "", node.inputs[1]]
    node.attrs |= _RESIZE_10


_RESIZE_10 = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@_rule("Softmax", "LogSoftmax", "Hardmax", before=13)
def _softmax(node: Node, rewriter: Rewriter) -> list[Node] | None:
    """Until opset 12 the input is seen as a matrix: the axes from `axis` on are one row."""
    shape = rewriter.graph.shape(node.inputs[0])
    axis = node.attrs.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    algebra = rewriter.graph.algebra
    if axis < len(shape) and all(algebra.equal(d, 1) for i, d in enumerate(shape) if i > axis):
        node.attrs["axis"] = axis
        return None
    rows, columns = algebra.product(shape[:axis]), algebra.product(shape[axis:])
    out = node.outputs[0]
    flat, result = rewriter.tensor(f"{out}/rows"), rewriter.tensor(f"{out}/of_rows")
    matrix, back = rewriter.ints([rows, columns], f"{out}/matrix"), rewriter.ints(shape, f"{out}/shape")
    return [
        Node("Reshape", [node.inputs[0], matrix], [flat], version=NEWEST),
        Node(node.op_type, [flat], [result], {"axis": -1}, node.name, version=NEWEST),
        Node("Reshape", [result, back], [out], version=NEWEST),
    ]


@_rule("Dropout", before=12)
def _dropout(node: Node, rewriter: Rewriter) -> None:
    node.attrs.clear()


@_rule("BatchNormalization", before=14)
def _batch_norm(node: Node, rewriter: Rewriter) -> None:
    if node.attrs.pop("spatial", 1) == 0:
        raise CannotConvert("batch normalization per activation (spatial=0) is not supported; re-export the model")
    node.attrs.pop("momentum", None)
    node.outputs = node.outputs[:1]


@_rule("Split", before=18)
def _split(node: Node, rewriter: Rewriter) -> None:
    if "split" in node.attrs:
        _move_to_input(node, rewriter, "split", 1)
    elif not node.input(1):
        node.attrs["num_outputs"] = len(node.outputs)


@_rule("Scatter", before=NEWEST)
def _scatter(node: Node, rewriter: Rewriter) -> list[Node]:
    return [Node("ScatterElements", node.inputs, node.outputs, node.attrs, node.name, version=NEWEST)]


@_rule("GroupNormalization", before=21)
def _group_norm(node: Node, rewriter: Rewriter) -> None:
    """Until opset 20 scale and bias are per group, then per channel."""
    channels = rewriter.graph.shape(node.inputs[0])[1]
    for index, wish in ((1, "scale"), (2, "bias")):
        value = rewriter.graph.constants.get(node.inputs[index])
        if value is None or not isinstance(channels, int):
            raise CannotConvert("scale and bias of GroupNormalization-18 must be constant")
        node.inputs[index] = rewriter.constant(np.repeat(value, channels // value.size), f"{node.outputs[0]}/{wish}")


@_rule("DequantizeLinear", "QuantizeLinear", before=13)
def _quantize(node: Node, rewriter: Rewriter) -> None:
    node.attrs.pop("axis", None)


@_rule("RoiAlign", before=16)
def _roi_align(node: Node, rewriter: Rewriter) -> None:
    node.attrs.setdefault("coordinate_transformation_mode", "output_half_pixel")


@_rule("DFT", before=20)
def _dft(node: Node, rewriter: Rewriter) -> None:
    axis = node.attrs.pop("axis", 1)
    _set_input(node, 2, rewriter.constant(np.array(axis, np.int64), f"{node.outputs[0]}/axis"))


@_rule("RNN", "GRU", "LSTM", before=NEWEST)
def _recurrent(node: Node, rewriter: Rewriter) -> list[Node] | None:
    """In float16 the recurrence is computed in float32."""
    if rewriter.graph.type_of(node.inputs[0]).dtype != "float16":
        return None
    nodes = []
    inputs = list(node.inputs)
    for i, name in enumerate(inputs):
        if name and rewriter.graph.type_of(name).dtype == "float16":
            inputs[i] = rewriter.tensor(f"{name}/float32")
            nodes.append(Node("Cast", [name], [inputs[i]], {"to": int(TensorProto.FLOAT)}, version=NEWEST))
    made = [rewriter.tensor(f"{name}/float32") if name else "" for name in node.outputs]
    nodes.append(Node(node.op_type, inputs, made, node.attrs, node.name, version=NEWEST))
    for name, wide in zip(node.outputs, made, strict=True):
        if name:
            nodes.append(Node("Cast", [wide], [name], {"to": int(TensorProto.FLOAT16)}, version=NEWEST))
    return nodes


@_rule("STFT", before=NEWEST)
def _stft(node: Node, rewriter: Rewriter) -> None:
    node.attrs.setdefault("onesided", 1)  # onnx's inference takes 0 where the attribute is absent
