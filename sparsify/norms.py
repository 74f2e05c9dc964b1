"""Scale and shift of normalizations, fitted to what the dense network gave: output-error correction after pruning.

Per channel the least-squares line from the output now to the dense output is folded into scale and shift, as
Finkelstein et al. (Fighting Quantization Bias With Bias, 2019) do for means alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto

from .layers import Layer
from .network import Network, attribute

KINDS = ("LayerNormalization", "BatchNormalization")
_SLOPE = (0.5, 2.0)
"""A slope outside says that the outputs have little to do with each other."""


def find_norms(network: Network) -> list[Layer]:
    """Normalizations whose scale and shift are constants of their own."""
    readers = network.consumers()
    found = []
    for node in network.nodes:
        if node.op_type not in KINDS or len(node.input) < 3 or len([o for o in node.output if o]) != 1:
            continue
        constants = [network.constants.get(n) for n in node.input[1:3]]
        alone = all(len(readers[n]) == 1 for n in node.input[1:3])
        if alone and all(c is not None and c.ndim == 1 and c.dtype == np.float32 for c in constants):
            found.append(
                Layer(node.name, node.input[1], node.op_type, [node], constants[0].shape, False,  # type: ignore[union-attr]
                      inputs=[node.input[0]])
            )  # fmt: skip
    return found


def correct_norm(norm: Layer, network: Network, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Folds the fitted line of each channel into the node's scale and shift; `pairs` are inputs (now, dense)."""
    node = norm.nodes[0]
    sums = np.zeros((5, norm.size))
    for now, dense in pairs:
        y, d = (_channels(_normalized(node, network, x)) for x in (now, dense))
        sums += np.stack([np.full(norm.size, len(y)), y.sum(0), d.sum(0), (y * y).sum(0), (y * d).sum(0)])
    n, y, d, yy, yd = sums
    variance, covariance = yy / n - (y / n) ** 2, yd / n - y * d / n**2
    slope = np.where(variance > 1e-12, covariance / np.maximum(variance, 1e-12), 1.0)
    slope = np.where((slope >= _SLOPE[0]) & (slope <= _SLOPE[1]), slope, 1.0)
    scale, shift = (network.constants[name] for name in node.input[1:3])
    network.constants[node.input[1]] = (scale * slope).astype(np.float32)
    network.constants[node.input[2]] = (shift * slope + (d - slope * y) / n).astype(np.float32)


def _channels(x: np.ndarray) -> np.ndarray:
    """[n, channels] of an array whose last axis is that of the channels."""
    return x.reshape(-1, x.shape[-1]).astype(np.float64)


def _normalized(node: NodeProto, network: Network, x: np.ndarray) -> np.ndarray:
    """The node's output, channels last."""
    scale, shift = (network.constants[name] for name in node.input[1:3])
    if node.op_type == "LayerNormalization":
        centred = x - x.mean(-1, keepdims=True)
        epsilon = attribute(node, "epsilon", 1e-5)
        return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon) * scale + shift
    mean, variance = (network.constants[name] for name in node.input[3:5])
    x = np.moveaxis(x, 1, -1)
    return (x - mean) / np.sqrt(variance + attribute(node, "epsilon", 1e-5)) * scale + shift
