"""Writes quantization into a network: QuantizeLinear and DequantizeLinear around what is to be computed in int8."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from ..layers import Layer
from ..network import Network
from .ranges import Range

_BIAS_LIMIT = 2**30


class Writer:
    """Adds nodes to a network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.done: dict[tuple[str, Range], str] = {}

    def activation(self, tensor: str, r: Range, share: bool = True) -> tuple[list[NodeProto], str]:
        """(nodes to put before the reader, name of the tensor after the round trip through u8).

        With `share` a tensor that several nodes read is quantized once, before the first of them.
        """
        if share and (tensor, r) in self.done:
            return [], self.done[tensor, r]
        scale = self.network.add_constant(f"{tensor}_scale", np.array(r.scale, np.float32))
        zero = self.network.add_constant(f"{tensor}_zero_point", np.array(r.zero_point, np.uint8))
        q, back = self.network.fresh(f"{tensor}_quantized"), self.network.fresh(f"{tensor}_dequantized")
        if share:
            self.done[tensor, r] = back
        return [
            self._node("QuantizeLinear", [tensor, scale, zero], q),
            self._node("DequantizeLinear", [q, scale, zero], back),
        ], back

    def weight(self, layer: Layer, integers: np.ndarray, scale: np.ndarray) -> list[str]:
        """Inputs of a DequantizeLinear that gives the weight: `integers`[M, K] with `scale`[M]."""
        stored = layer.stored(integers).astype(np.int8)
        q = self.network.add_constant(f"{layer.weight}_quantized", stored)
        scales = self.network.add_constant(f"{layer.weight}_scale", scale.astype(np.float32))
        zeros = self.network.add_constant(f"{layer.weight}_zero_point", np.zeros(len(scale), np.int8))
        return [q, scales, zeros]

    def bias(self, layer: Layer, scale: np.ndarray) -> list[str] | None:
        """Inputs of a DequantizeLinear that gives the bias, in int32 in units of the accumulator `scale`[M].

        None where a value does not fit: then the bias stays float.
        """
        assert layer.bias is not None
        integers = np.rint(self.network.constants[layer.bias].astype(np.float64) / scale)
        if np.abs(integers).max(initial=0) > _BIAS_LIMIT:
            return None
        q = self.network.add_constant(f"{layer.bias}_quantized", integers.astype(np.int32))
        scales = self.network.add_constant(f"{layer.bias}_scale", scale.astype(np.float32))
        zeros = self.network.add_constant(f"{layer.bias}_zero_point", np.zeros(len(scale), np.int32))
        return [q, scales, zeros]

    def dequantized(self, inputs: list[str], axis: int) -> tuple[NodeProto, str]:
        """(DequantizeLinear, its output) of a constant."""
        back = self.network.fresh(inputs[0].removesuffix("_quantized") + "_dequantized")
        return self._node("DequantizeLinear", inputs, back, axis=axis), back

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: int) -> NodeProto:
        node = helper.make_node(kind, inputs, [output], name=self.network.fresh(f"{output}_node"))
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        return node
