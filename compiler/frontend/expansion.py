"""One operator said in terms of others: what the functions of `ops` that take operators apart work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import NEWEST, to_elem_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .canonical import Rewriter
    from .graph import Shape, Size


class Expansion:
    """The nodes that take the place of `node`; its last ones write its outputs."""

    def __init__(self, node: Node, rewriter: Rewriter) -> None:
        self.node = node
        self.nodes: list[Node] = []
        self._rewriter = rewriter

    # --- the operator -------------------------------------------------------------------------------------------------

    def input(self, index: int) -> str:
        """The name of an input, '' where absent."""
        return self.node.input(index)

    def attr(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.node.attrs.get(name, default)

    def shape(self, name: str) -> Shape:
        """A tensor's shape."""
        return self._rewriter.graph.shape(name)

    def count(self, name: str) -> Size:
        """A tensor's number of elements."""
        return self._rewriter.graph.algebra.product(self.shape(name))

    def dtype(self, name: str) -> str:
        """A tensor's dtype."""
        return self._rewriter.graph.type_of(name).dtype

    def float_type(self, name: str) -> int:
        """A tensor's type as ONNX numbers types, for Cast."""
        return to_elem_type(self.dtype(name))

    def value(self, name: str) -> np.ndarray | None:
        """A constant's elements, None for anything else."""
        return self._rewriter.graph.constants.get(name)

    def without_outputs(self, first: int, what: str) -> None:
        """Refuses a node whose outputs from `first` on are used."""
        if any(self.node.outputs[first:]):
            raise CannotConvert(f"its {what} is not supported")

    # --- the nodes ----------------------------------------------------------------------------------------------------

    def op(
        self,
        kind: str,
        inputs: Sequence[str],
        out: str = "",
        *,
        version: int = NEWEST,
        domain: str = "",
        what: str = "",
        **attrs: Any,
    ) -> str:
        """Adds a node with one output; the name of this output. `what` names it in messages, else it is its kind."""
        out = out or self._rewriter.tensor(f"{self.node.outputs[0] or self.node.name}/{kind}")
        name = f"{self.node.name or self.node.outputs[0]}/{what or kind}"
        self.nodes.append(Node(kind, list(inputs), [out], attrs, name, domain, 1 if domain else version))
        return out

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attrs: Any) -> list[str]:
        """Adds a node with several outputs; their names."""
        names = [self._rewriter.tensor(f"{self.node.outputs[0] or self.node.name}/{kind}") for _ in range(outputs)]
        self.nodes.append(self.like(kind, inputs, names, **attrs))
        return names

    def like(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> Node:
        """A node of the default domain with all attributes of this one, or with those given."""
        name = f"{self.node.name or self.node.outputs[0]}/{kind}"
        return Node(kind, list(inputs), list(outputs), attrs or dict(self.node.attrs), name, "", NEWEST)

    def constant(self, value: np.ndarray, wish: str) -> str:
        """A new constant's name."""
        return self._rewriter.constant(value, f"{self.node.outputs[0]}/{wish}")

    def scalar(self, value: float, like: str) -> str:
        """A 0-d constant of the type of a tensor."""
        return self.constant(np.array(value, self.dtype(like)), "scalar")

    def ints(self, values: Sequence[Size]) -> str:
        """An int64 vector, symbolic where a value is."""
        return self._rewriter.ints(list(values), f"{self.node.outputs[0]}/sizes")

    def range(self, start: Size, stop: Size) -> str:
        """The integers from `start` up to `stop`, an int64 vector."""
        if isinstance(start, int) and isinstance(stop, int):
            return self.constant(np.arange(start, stop, dtype=np.int64), "range")
        first, last = (self.op("Squeeze", [self.ints([size])]) for size in (start, stop))
        return self.op("Range", [first, last, self.constant(np.array(1, np.int64), "step")])

    def dequantize(self, x: str, scale: str, zero: str, axis: int = 0) -> str:
        """DequantizeLinear; parameters with several values lie along `axis`."""
        return self.op("DequantizeLinear", [x, scale, *([zero] if zero else [])], axis=axis)

    def quantize(self, y: str, scale: str, zero: str) -> str:
        """QuantizeLinear to the node's first output."""
        return self.op("QuantizeLinear", [y, scale, *([zero] if zero else [])], self.node.outputs[0])
