"""Cross-layer equalization: channels between two layers get equal ranges, so that one scale per tensor fits them all.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019). The network computes
what it did before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..layers import Layer
from ..network import Network

_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
"""f(s x) = s f(x) for s > 0, channel by channel."""
_ROUNDS = 3
_LIMIT = 1e4
"""Of a factor: a channel that is almost zero is left so."""


def pairs(network: Network, layers: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """(first, second) where nothing but homogeneous operators lies between and nothing else reads what lies there."""
    readers = network.consumers()
    by_node = {layer.nodes[0].name: layer for layer in layers if len(layer.nodes) == 1}
    found = []
    for first in layers:
        if len(first.nodes) > 1 or first.kind == "MatMul" or (first.bias is None and len(first.nodes[0].input) > 2):
            continue
        tensor = first.nodes[0].output[0]
        while tensor not in network.outputs and len(after := readers.get(tensor, [])) == 1:
            node = after[0]
            if node.input[0] != tensor:
                break
            second = by_node.get(node.name)
            if second is not None:
                if first.kind == second.kind and second.groups in (1, first.rows):
                    found.append((first, second))
                break
            if node.op_type not in _HOMOGENEOUS:
                break
            tensor = node.output[0]
    return found


def equalize(networks: Sequence[Network], layers: Sequence[Layer]) -> int:
    """Rescales the layers in every one of `networks` alike, by factors of the first; returns the number of pairs."""
    found = pairs(networks[0], layers)
    for _ in range(_ROUNDS):
        for first, second in found:
            constants = networks[0].constants
            before = _range(constants[first.weight], first.channel_axis)
            after = _range(constants[second.weight], _input_axis(second))
            usable = (before > 0) & (after > 0)
            ratio = np.divide(before, after, out=np.ones_like(before), where=usable)
            factor = np.clip(np.sqrt(ratio), 1 / _LIMIT, _LIMIT).astype(np.float32)
            for network in networks:
                _divide(network, first, factor)
                scale_inputs(network, second, factor)
    return len(found)


def _range(weight: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis)).astype(np.float64)


def _input_axis(layer: Layer) -> int:
    """Axis of the stored weight along which the inputs lie; a depthwise layer's outputs are its inputs."""
    return 0 if layer.groups > 1 else 1 - layer.channel_axis


def _along(weight: np.ndarray, axis: int, factor: np.ndarray) -> np.ndarray:
    return factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


def _divide(network: Network, layer: Layer, factor: np.ndarray) -> None:
    weight = network.constants[layer.weight]
    network.constants[layer.weight] = weight / _along(weight, layer.channel_axis, factor)
    if layer.bias is not None:
        network.constants[layer.bias] = network.constants[layer.bias] / factor


def scale_inputs(network: Network, layer: Layer, factor: np.ndarray) -> None:
    """Multiplies the layer's weights by one factor per input channel."""
    weight = network.constants[layer.weight]
    network.constants[layer.weight] = weight * _along(weight, _input_axis(layer), factor)
