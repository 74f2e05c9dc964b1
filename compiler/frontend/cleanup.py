"""After the forward pass: dead nodes out, batch normalization into the layer before it, tables looked up as stored."""

from __future__ import annotations

import numpy as np

from .graph import Graph, Node, TensorType

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
"""Axis of the weight that holds output channels (for Gemm with transB, else axis 1)."""


def run(graph: Graph) -> None:
    """Fold batch normalization, gather before dequantizing, then drop what no output needs."""
    fold_batch_norm(graph)
    gather_integers(graph)
    remove_dead(graph)


def remove_dead(graph: Graph) -> None:
    """Drop nodes and values that no model output depends on."""
    live = {name for _, name in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if any(name in live for name in node.outputs):
            kept.append(node)
            live.update(name for name in node.inputs if name)
            node.outputs = [name if name in live else "" for name in node.outputs]
            while len(node.outputs) > 1 and not node.outputs[-1]:
                node.outputs.pop()
    graph.nodes = kept[::-1]
    live.update(graph.inputs)
    for table in (graph.constants, graph.symbols, graph.types):
        for name in [name for name in table if name not in live]:
            del table[name]


def gather_integers(graph: Graph) -> None:
    """Gather(DequantizeLinear(table)) becomes DequantizeLinear(Gather(table)): a table of integers stays one.

    Only where one scale serves the whole table.
    """
    maker = {name: node for node in graph.nodes for name in node.outputs if name}
    nodes = []
    for node in graph.nodes:
        table = maker.get(node.inputs[0]) if node.op_type == "Gather" and not node.domain else None
        if table is None or not _dequantizes_constant(graph, table):
            nodes.append(node)
            continue
        out, integers = node.outputs[0], f"{node.outputs[0]}/integers"
        graph.types[integers] = TensorType(graph.types[table.inputs[0]].dtype, graph.types[out].shape)
        looked_up = Node("Gather", [table.inputs[0], node.inputs[1]], [integers], node.attrs, node.name)
        looked_up.version = node.version
        name = f"{node.name}/dequantized"
        nodes += [looked_up, Node("DequantizeLinear", [integers, *table.inputs[1:]], [out], {}, name, "", node.version)]
    graph.nodes = nodes


def _dequantizes_constant(graph: Graph, node: Node) -> bool:
    if node.op_type != "DequantizeLinear" or node.domain or node.attrs.get("block_size", 0):
        return False
    parameters = [graph.constants.get(name) for name in node.inputs[1:] if name]
    return node.inputs[0] in graph.constants and all(p is not None and p.size == 1 for p in parameters)


def fold_batch_norm(graph: Graph) -> None:
    """y = s·(conv(x, W) + b) + t becomes conv(x, s·W) + (s·b + t), computed in double precision."""
    maker = {name: node for node in graph.nodes for name in node.outputs if name}
    uses: dict[str, int] = {}
    for name in [n for node in graph.nodes for n in node.inputs] + [n for _, n in graph.outputs]:
        uses[name] = uses.get(name, 0) + 1
    removed: set[int] = set()
    for norm in graph.nodes:
        if norm.op_type != "BatchNormalization" or norm.domain:
            continue
        layer = maker.get(norm.inputs[0])
        if layer is None or layer.op_type not in _CHANNEL_AXIS or layer.domain or uses[norm.inputs[0]] != 1:
            continue
        if _fold_into(graph, layer, norm):
            maker[norm.outputs[0]] = layer
            removed.add(id(norm))
    graph.nodes = [node for node in graph.nodes if id(node) not in removed]


def _fold_into(graph: Graph, layer: Node, norm: Node) -> bool:
    values = [graph.constants.get(name) for name in norm.inputs[1:5]]
    weight = graph.constants.get(layer.inputs[1])
    old_bias = graph.constants.get(layer.input(2)) if layer.input(2) else np.zeros(1)
    if weight is None or old_bias is None or any(v is None for v in values) or weight.dtype.kind != "f":
        return False
    scale, shift, mean, variance = (np.asarray(v, np.float64) for v in values)
    factor = scale / np.sqrt(variance + norm.attrs.get("epsilon", 1e-5))
    groups = layer.attrs.get("group", 1)
    if layer.op_type == "Gemm" and layer.attrs.get("beta", 1.0) != 1.0:
        return False
    if layer.op_type == "ConvTranspose":  # [in, out / groups, …]: each group of inputs meets its own outputs
        per_group = factor.reshape(groups, 1, -1)
        spread = np.broadcast_to(per_group, (groups, weight.shape[0] // groups, weight.shape[1]))
        by = spread.reshape(weight.shape[:2] + (1,) * (weight.ndim - 2))
    elif layer.op_type == "Gemm" and not layer.attrs.get("transB", 0):
        by = factor.reshape(1, -1)
    else:
        by = factor.reshape((-1,) + (1,) * (weight.ndim - 1))
    if layer.op_type == "Gemm" and old_bias.ndim > 1 and old_bias.shape[0] != 1:
        return False
    bias = (old_bias.astype(np.float64).reshape(-1) - mean) * factor + shift
    out = norm.outputs[0]
    layer.inputs = [layer.inputs[0], f"{out}/weight", f"{out}/bias"]
    for name, value in ((f"{out}/weight", weight * by), (f"{out}/bias", bias)):
        graph.constants[name] = value.astype(weight.dtype)
        graph.types[name] = TensorType(str(weight.dtype.name), value.shape)
    layer.outputs = [out]
    return True
