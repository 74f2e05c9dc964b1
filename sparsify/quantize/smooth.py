"""SmoothQuant: outlying channels of an activation are scaled down, and the weights that read them up.

Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models (ICML 2023). The
factors are folded into the layer normalization before, so that the network computes what it did before at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Feed
from ..layers import Layer
from ..network import Network
from ..norms import find_norms
from ..walk import session
from .equalize import scale_inputs

_LIMIT = 1e3


def smooth(networks: Sequence[Network], layers: Sequence[Layer], feeds: Sequence[Feed], strength: float) -> int:
    """Folds factors max|x|^a / max|w|^(1-a) in every one of `networks`; returns the number of normalizations.

    Only those whose output nothing but products with constant weights reads: of a residual stream it cannot be folded.
    """
    network = networks[0]
    readers = network.consumers()
    by_node = {node.name: layer for layer in layers for node in layer.nodes if layer.kind != "Conv"}
    found: list[tuple[Layer, list[Layer]]] = []
    for norm in find_norms(network):
        output = norm.nodes[0].output[0]
        after = readers.get(output, [])
        reading = [by_node[node.name] for node in after if node.name in by_node]
        apart = len(reading) == len(after) and all(set(layer.inputs) == {output} for layer in reading)
        if norm.kind == "LayerNormalization" and after and apart and output not in network.outputs:
            found.append((norm, list({la.weight: la for la in reading}.values())))
    if not found:
        return 0
    largest = _largest(network, [norm.nodes[0].output[0] for norm, _ in found], feeds)
    for (norm, reading), x in zip(found, largest, strict=True):
        w = np.max([np.abs(la.matrix(network.constants[la.weight])).max(0) for la in reading], axis=0)
        usable = (x > 0) & (w > 0)
        raw = np.divide(x**strength, w ** (1 - strength), out=np.ones_like(x), where=usable)
        factor = np.clip(raw, 1 / _LIMIT, _LIMIT).astype(np.float32)
        for each in networks:
            for name in norm.nodes[0].input[1:3]:
                each.constants[name] = each.constants[name] / factor
            for layer in reading:
                scale_inputs(each, layer, factor)
    return len(found)


def _largest(network: Network, names: list[str], feeds: Sequence[Feed]) -> list[np.ndarray]:
    """Per tensor max|x| of each of its last axis' channels."""
    inputs = {name: feeds[0][name] for name in network.inputs}
    run = session(network.piece(network.nodes, inputs, names).SerializeToString())
    largest = [np.zeros(1)] * len(names)
    for feed in feeds:
        for i, array in enumerate(run.run(names, dict(feed))):
            largest[i] = np.maximum(largest[i], np.abs(array).reshape(-1, array.shape[-1]).max(0))
    return largest
