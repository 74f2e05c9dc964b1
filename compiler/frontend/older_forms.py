"""Operators as opsets 1 to 6 wrote them, changed in place to the form of opset 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import NEWEST

if TYPE_CHECKING:
    from .canonical import Rewriter

FIRST_PLAIN = 7
"""The first opset that has none of these forms."""

_BROADCASTING = frozenset(
    ["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"],
)
_GONE = ("consumed_inputs", "is_test", "output_sequence")
"""Hints to the engine, and whether a model is trained: it never is here."""


def modernize(node: Node, rewriter: Rewriter) -> list[Node]:
    """Change `node`; nodes that must come before it are returned.

    Raises:
        CannotConvert: the form says something that no later one can.
    """
    for name in _GONE:
        node.attrs.pop(name, None)
    before: list[Node] = []
    if node.op_type in _BROADCASTING:
        before = _broadcast(node, rewriter)
    elif node.op_type == "PRelu":
        before = _prelu(node, rewriter)
    elif node.op_type == "Gemm":
        node.attrs.pop("broadcast", None)
    elif node.op_type == "Cast" and isinstance(node.attrs.get("to"), str):
        node.attrs["to"] = TensorProto.DataType.Value(node.attrs["to"].upper())
    elif node.op_type == "Pad" and "paddings" in node.attrs:
        node.attrs["pads"] = node.attrs.pop("paddings")
    elif node.op_type == "Concat":
        node.attrs.setdefault("axis", 1)
    elif node.op_type == "Split":
        node.attrs.setdefault("axis", 0)
    elif node.op_type == "Reshape" and "shape" in node.attrs:
        node.inputs = [node.inputs[0], rewriter.ints(node.attrs.pop("shape"), f"{node.outputs[0]}/shape")]
    elif node.op_type == "Selu":
        node.attrs = {"alpha": 1.6732, "gamma": 1.0507} | node.attrs
    elif node.op_type in ("LpPool", "GlobalLpPool") and "p" in node.attrs:
        node.attrs["p"] = int(node.attrs["p"])
    elif node.op_type == "Upsample" and "height_scale" in node.attrs:
        node.attrs["scales"] = [1.0, 1.0, node.attrs.pop("height_scale"), node.attrs.pop("width_scale")]
    elif node.op_type == "Tile" and len(node.inputs) == 3:
        _tile(node, rewriter)
    return before


def _broadcast(node: Node, rewriter: Rewriter) -> list[Node]:
    """`broadcast=1`: the axes of B are those of A from `axis` on, by default the last ones."""
    broadcast, axis = node.attrs.pop("broadcast", 0), node.attrs.pop("axis", None)
    if not broadcast or axis is None:
        return []
    rank, own = (len(rewriter.graph.shape(name)) for name in node.inputs)
    axis += rank if axis < 0 else 0
    return _with_axes_behind(node, rewriter, rank - axis - own)


def _prelu(node: Node, rewriter: Rewriter) -> list[Node]:
    """A slope per channel."""
    rank = len(rewriter.graph.shape(node.inputs[0]))
    slope = rewriter.graph.shape(node.inputs[1])
    if len(slope) != 1 or slope[0] == 1:
        return []
    return _with_axes_behind(node, rewriter, rank - 2)


def _with_axes_behind(node: Node, rewriter: Rewriter, count: int) -> list[Node]:
    """The second input with `count` axes of one element behind its own."""
    if count <= 0:
        return []
    own = len(rewriter.graph.shape(node.inputs[1]))
    axes = rewriter.ints(list(range(own, own + count)), f"{node.outputs[0]}/axes")
    out = rewriter.tensor(f"{node.inputs[1]}/broadcast")
    made = Node("Unsqueeze", [node.inputs[1], axes], [out], name=node.name, version=NEWEST)
    node.inputs[1] = out
    return [made]


def _tile(node: Node, rewriter: Rewriter) -> None:
    tiles, axis = (rewriter.graph.constants.get(name) for name in node.inputs[1:])
    if tiles is None or axis is None:
        raise CannotConvert("the number of tiles and their axis must be constant in an opset before 6")
    repeats = np.ones(len(rewriter.graph.shape(node.inputs[0])), np.int64)
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    node.inputs = [node.inputs[0], rewriter.constant(repeats, f"{node.outputs[0]}/repeats")]
