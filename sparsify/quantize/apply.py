"""Quantizes one layer during a walk: range of its input, integer weights, bias, and the nodes around it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto

from ..data import Feed
from ..layers import Layer
from ..methods.problem import Problem, quadratic
from ..moments import Moments
from ..network import Network
from ..walk import Walk, session
from .qdq import Writer
from .ranges import RANGES, Bounds, Range
from .weights import ROUNDINGS, nearest, scales

if TYPE_CHECKING:
    from ..oneshot import LayerOutcome
    from ..recipe import Quantization

_DAMPING = 0.01


def quantize_layer(layer: Layer, walk: Walk, writer: Writer, how: Quantization, seed: int, row: LayerOutcome) -> None:
    """Writes the layer in int8, or leaves it and says why in `row.float_reason`.

    The weights are rounded so that on the quantized input the layer gives what it gave on the float one; the bias takes
    over the difference of the means.
    """
    network = walk.now.network
    ranges = {name: activation_range(walk, name, how) for name in dict.fromkeys(layer.inputs)}
    pairs = ((ranges[name].round_trip(now), now) for name in ranges for now, _ in walk.now.pairs(walk.dense, name))
    groups = Moments.of(layer, pairs, walk.now.batches, seed, noisy=True)
    W = layer.matrix(network.constants[layer.weight]).astype(np.float64)
    given = network.scales.get(layer.weight)
    known = [None] * len(groups) if given is None else np.split(given, len(groups))
    parts = [_round(*each, how) for each in zip(np.split(W, len(groups)), groups, known, strict=True)]
    integers, scale, shift, wrong, total = (np.concatenate(p) for p in zip(*parts, strict=True))
    row.quantization_error = float(wrong.sum() / total.sum()) if total.sum() > 0 else 0.0
    if row.quantization_error > how.tolerance:
        row.float_reason = f"int8 would change its output by {row.quantization_error:.1%} of its energy"
        return
    if layer.bias is not None:
        network.constants[layer.bias] = (network.constants[layer.bias] + shift).astype(np.float32)
    _write(layer, walk, writer, ranges, integers, scale)
    row.quantized = True
    row.sparsity = float(np.mean(integers == 0)) if row.sparsity else 0.0


def activation_range(walk: Walk, name: str, how: Quantization) -> Range:
    """Of a live tensor of the network as it is now."""
    bounds = Bounds()
    for i in range(walk.now.batches):
        bounds.add(walk.now.array(name, i))
    histogram = bounds.histogram()
    for i in range(walk.now.batches):
        histogram = histogram.plus(walk.now.array(name, i))
    return RANGES[how.activations](histogram)


def _round(W: np.ndarray, moments: Moments, known: np.ndarray | None, how: Quantization) -> tuple[np.ndarray, ...]:
    """(integers [M, K], scale [M], shift of the bias [M], squared error [1], squared output [1]) of one group.

    With a `known` scale the weights lie on its grid already, and stay there.
    """
    if known is not None:
        scale, integers = known, nearest(W, known)
    else:
        scale = scales(W, np.diag(moments.hessian))
        problem = Problem(W, moments.hessian, 0, damping=_DAMPING)
        integers = ROUNDINGS[how.rounding](W, scale, problem.damped())
    V = integers * scale[:, None]
    # E|V x - W r|² with W r = W x + W (r - x)
    wrong = (
        quadratic(V - W, moments.hessian)
        - 2 * float(np.sum((W @ moments.drift) * (V - W)))
        + quadratic(W, moments.noise)
    )
    shift = W @ moments.dense_mean - V @ moments.mean
    return integers, scale, shift, np.array([max(wrong, 0.0)]), np.array([quadratic(W, moments.hessian)])


def _write(
    layer: Layer, walk: Walk, writer: Writer, ranges: dict[str, Range], integers: np.ndarray, scale: np.ndarray
) -> None:
    weight = writer.weight(layer, integers, scale)
    bias = None
    if layer.bias is not None and layer.kind != "MatMul" and len(ranges) == 1:
        bias = writer.bias(layer, np.float64(next(iter(ranges.values())).scale) * scale)
    for node, data in zip(layer.nodes, layer.inputs, strict=True):
        # nodes that share a weight may lie in different levels, of which only the last is still to run
        before, node.input[0] = writer.activation(data, ranges[data], share=len(layer.nodes) == 1)
        for at, constant, axis in ((1, weight, layer.channel_axis), (2, bias, 0)):
            if constant is not None:
                dequantize, node.input[at] = writer.dequantized(constant, axis)
                before.append(dequantize)
        walk.now.groups[node.name] = [*before, node]


def quantize_products(network: Network, feeds: Sequence[Feed], writer: Writer, how: Quantization) -> list[str]:
    """Quantizes both operands of every product of two float activations, as in attention; returns the nodes' names.

    Ranges are those of the network as it is, all weights being quantized.
    """
    made_by = {name: node for node in network.nodes for name in node.output}
    products = [
        node
        for node in network.nodes
        if node.op_type == "MatMul"
        and not any(fnmatchcase(node.name, pattern) for pattern in how.ignore)
        and all(n in made_by and made_by[n].op_type != "DequantizeLinear" for n in node.input)
    ]
    names = list(dict.fromkeys(name for node in products for name in node.input))
    if not names:
        return []
    inputs = {name: feeds[0][name] for name in network.inputs}
    run = session(network.piece(network.nodes, inputs, names).SerializeToString())
    bounds = [Bounds() for _ in names]
    for feed in feeds:
        for bound, array in zip(bounds, run.run(names, dict(feed)), strict=True):
            bound.add(array)
    histograms = [bound.histogram() for bound in bounds]
    for feed in feeds:
        arrays = run.run(names, dict(feed))
        histograms = [histogram.plus(array) for histogram, array in zip(histograms, arrays, strict=True)]
    ranges = {
        name: RANGES[how.activations](histogram)
        for name, histogram, array in zip(names, histograms, arrays, strict=True)
        if array.dtype == np.float32
    }
    products = [node for node in products if all(name in ranges for name in node.input)]
    nodes: list[NodeProto] = []
    for node in network.nodes:
        if any(node is product for product in products):
            for at, name in enumerate(list(node.input)):
                before, node.input[at] = writer.activation(name, ranges[name])
                nodes += before
        nodes.append(node)
    network.nodes = nodes
    return [node.name for node in products]
