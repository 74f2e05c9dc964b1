"""Which values of the integer inputs make sense, read from how they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .graph import Graph, Node

_PASSED_ON = {
    *("Cast", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Expand", "Flatten", "Transpose", "Slice", "Concat"),
    *("Split", "Tile", "Max", "Min", "Clip"),
}


def find(graph: Graph) -> dict[str, tuple[int, int]]:
    """Input name -> (lowest, highest): indices of a table, values compared with constants, or masks of 0 and 1."""
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    found = {}
    for name in graph.inputs:
        if graph.types[name].dtype.startswith(("int", "uint")):
            bounds, mask = _follow(graph, users, name)
            if bounds:
                found[name] = (0, min(bounds))
            elif mask:
                found[name] = (0, 1)
    return found


def _follow(graph: Graph, users: dict[str, list[Node]], start: str) -> tuple[list[int], bool]:
    bounds: list[int] = []
    mask = False
    seen, queue = {start}, [start]
    while queue:
        name = queue.pop()
        for node in users.get(name, ()):
            if node.op_type.startswith("Gather") and node.input(1) == name:
                bounds += _table_end(graph, node)
            elif node.op_type in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
                other = graph.constants.get(node.inputs[1 - node.inputs.index(name)])
                highest = int(np.max(other)) if other is not None and other.size and other.dtype.kind in "iuf" else 0
                if highest > 1:
                    bounds.append(highest)
                mask = True
            elif node.op_type == "OneHot" and node.inputs[0] == name:
                depth = graph.constants.get(node.inputs[1])
                bounds += [int(depth.reshape(-1)[0]) - 1] if depth is not None else []
            elif node.op_type == "Where" or (node.op_type == "Cast" and graph.types[node.outputs[0]].dtype[0] in "fb"):
                mask = True
                queue += _unseen(seen, node) if graph.types[node.outputs[0]].dtype[0] != "b" else []
            elif node.op_type in _PASSED_ON:
                queue += _unseen(seen, node)
            elif node.op_type in ("Sub", "Mul", "Not", "And", "ReduceSum", "MatMul", "CumSum"):
                mask = True
    return bounds, mask


def _unseen(seen: set[str], node: Node) -> list[str]:
    fresh = [name for name in node.outputs if name and name not in seen]
    seen.update(fresh)
    return fresh


def _table_end(graph: Graph, node: Node) -> list[int]:
    table = graph.shape(node.inputs[0])
    axis = node.attrs.get("axis", 0) if node.op_type != "GatherND" else node.attrs.get("batch_dims", 0)
    extent = table[axis]
    return [extent - 1] if isinstance(extent, int) else []
