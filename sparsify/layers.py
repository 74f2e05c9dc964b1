"""The layers that can become sparse: products and convolutions with constant weights, each as a matrix [M, K]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from onnx import NodeProto

from .network import Network, attribute


@dataclass
class Layer:
    """One constant weight and the nodes that multiply by it.

    As a matrix the weight has M rows (outputs) and K columns (inputs). A convolution's columns are ordered as taps by
    channels, so that neighbours in a row are neighbouring input channels of one tap, which is what a 1x4 block means.
    """

    name: str
    """Of the first node."""
    weight: str
    kind: str
    """MatMul, Gemm or Conv."""
    nodes: list[NodeProto]
    shape: tuple[int, ...]
    """Of the weight as it is stored."""
    transposed: bool
    """Stored as [K, M]."""
    bias: str | None = None
    """Constant [M] that is added to the product, if every node adds the same."""
    fixed: str = ""
    """Why it may not be pruned; empty when it may."""
    float_reason: str = ""
    """Why it may not be quantized; empty when it may."""
    groups: int = 1
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    inputs: list[str] = field(default_factory=list)
    """The activation that each node reads."""

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))

    @property
    def rows(self) -> int:
        """M."""
        return self.shape[1] if self.kind != "Conv" and self.transposed else self.shape[0]

    @property
    def channels(self) -> int:
        """Length of the runs of k that are neighbours in memory: blocks do not cross them."""
        return self.shape[1] if self.kind == "Conv" else self.size // self.rows

    @property
    def channel_axis(self) -> int:
        """Axis of the stored weight along which the outputs lie."""
        return 1 if self.kind != "Conv" and self.transposed else 0

    def matrix(self, stored: np.ndarray) -> np.ndarray:
        """The weight as [M, K]."""
        if self.kind == "Conv":
            return np.moveaxis(stored, 1, -1).reshape(len(stored), -1)
        return np.ascontiguousarray(stored.T) if self.transposed else stored

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """[M, K] as it is stored in the model."""
        if self.kind == "Conv":
            taps = (self.shape[0], *self.shape[2:], self.shape[1])
            return np.ascontiguousarray(np.moveaxis(matrix.reshape(taps), -1, 1))
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix


def find_layers(network: Network, exclude: Sequence[str] = ()) -> list[Layer]:
    """Every layer in the order of execution; `exclude` holds names of nodes or weights, `*` matches anything."""
    found: dict[str, Layer] = {}
    consumers = network.consumers()
    for node in network.nodes:
        layer = _layer(node, network)
        if layer is None:
            continue
        if layer.weight in found:
            first = found[layer.weight]
            first.nodes.append(node)
            first.inputs += layer.inputs
            if (layer.kind, layer.transposed) != (first.kind, first.transposed):
                first.fixed = first.float_reason = "its weight is shared by nodes of different form"
            continue
        found[layer.weight] = layer
    for layer in found.values():
        layer.bias = _bias(layer, network, consumers)
        if len(consumers[layer.weight]) != len(layer.nodes):
            layer.fixed = layer.float_reason = "its weight is read by other nodes too"
        if named(layer, exclude):
            layer.fixed = layer.float_reason = "excluded"
    return list(found.values())


def named(layer: Layer, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns fits the layer's node or weight."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (layer.name, layer.weight))


def _layer(node: NodeProto, network: Network) -> Layer | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    data, weight = node.input[:2]
    array = network.constants.get(weight)
    if array is None or array.dtype != np.float32 or data in network.constants:
        return None
    layer = Layer(node.name, weight, node.op_type, [node], array.shape, False, inputs=[data])
    if node.op_type == "Conv":
        layer.strides, layer.dilations, layer.pads = _window(node, array.ndim - 2)
        layer.groups = attribute(node, "group", 1)
        if layer.groups != 1:
            layer.fixed = "grouped convolution"
        elif attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            layer.fixed = layer.float_reason = "padding depends on the input's size (auto_pad)"
        return layer
    layer.transposed = node.op_type == "MatMul" or not attribute(node, "transB", 0)
    if array.ndim != 2 or array.size == 0:
        return None
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1):
        layer.fixed = layer.float_reason = "Gemm with transA or alpha"
    return layer


def _window(node: NodeProto, dims: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return (
        tuple(attribute(node, "strides", [1] * dims)),
        tuple(attribute(node, "dilations", [1] * dims)),
        tuple(attribute(node, "pads", [0] * 2 * dims)),
    )


def _bias(layer: Layer, network: Network, consumers: dict[str, list[NodeProto]]) -> str | None:
    """The bias, where it is a constant [M] that belongs to this layer alone."""
    names = {_bias_of(node, layer, network, consumers) for node in layer.nodes}
    name = names.pop() if len(names) == 1 else None
    if name is None or network.constants[name].shape != (layer.rows,) or len(consumers[name]) != len(layer.nodes):
        return None
    return name


def _bias_of(node: NodeProto, layer: Layer, network: Network, consumers: dict[str, list[NodeProto]]) -> str | None:
    if layer.kind != "MatMul":
        name = node.input[2] if len(node.input) > 2 else ""
        return name if name in network.constants and attribute(node, "beta", 1.0) == 1 else None
    readers = consumers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in network.outputs:
        return None
    other = [n for n in readers[0].input if n != node.output[0]]
    return other[0] if other and other[0] in network.constants else None
