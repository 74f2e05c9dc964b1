"""Sequences and optionals are lists of tensors that are known at build time: their operators leave no node behind.

What a sequence holds, how many tensors and which, must not depend on the data; the tensors may. An optional is its
tensor or sequence, or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from .canonical import Rewriter
    from .control_flow import ControlFlow
    from .graph import Graph
    from .names import NameSupply


class Sequences:
    """Takes the operators on sequences apart; `of` holds the tensors of every sequence by name."""

    def __init__(self, graph: Graph, names: NameSupply, rewriter: Rewriter, control_flow: ControlFlow) -> None:
        self.of: dict[str, list[str]] = {}
        self._graph = graph
        self._names = names
        self._rewriter = rewriter
        self._control_flow = control_flow
        self._rules: dict[str, Callable[[Node], list[Node]]] = {
            "SequenceEmpty": self._made,
            "SequenceConstruct": self._made,
            "SequenceInsert": self._insert,
            "SequenceErase": self._erase,
            "SequenceAt": self._at,
            "SequenceLength": self._length,
            "SequenceMap": self._map,
            "SplitToSequence": self._split,
            "ConcatFromSequence": self._concat,
            "Optional": self._optional,
            "OptionalGetElement": self._optional,
            "OptionalHasElement": self._has_element,
            "Identity": self._same,
        }

    def expand(self, node: Node) -> list[Node] | None:
        """The nodes in place of one that makes or reads a sequence; None for any other.

        Raises:
            CannotConvert: what the sequence holds is known only at run time.
        """
        if node.domain or node.op_type not in self._rules:
            return None
        if node.op_type == "Identity" and node.inputs[0] not in self.of:
            return None
        return self._rules[node.op_type](node)

    def _sequence(self, name: str) -> list[str]:
        if name not in self.of:
            raise CannotConvert(f"the sequence '{name}' is known only at run time")
        return self.of[name]

    def _place(self, node: Node, index: int, length: int, default: int, behind: int = 0) -> int:
        """A constant position among `length` tensors, or `behind` them; counted from the end where negative."""
        if not node.input(index):
            return default
        value = self._graph.constants.get(node.inputs[index])
        if value is None:
            raise CannotConvert("the position in the sequence is known only at run time; fix it")
        place = int(value.reshape(-1)[0])
        at = place + (length if place < 0 else 0)
        if not 0 <= at < length + behind:
            raise CannotConvert(f"position {place} is outside of the sequence")
        return at

    def _made(self, node: Node) -> list[Node]:
        """SequenceEmpty-11, SequenceConstruct-11."""
        self.of[node.outputs[0]] = list(node.inputs)
        return []

    def _insert(self, node: Node) -> list[Node]:
        """SequenceInsert-11; without a position at the end."""
        tensors = list(self._sequence(node.inputs[0]))
        tensors.insert(self._place(node, 2, len(tensors), len(tensors), behind=1), node.inputs[1])
        self.of[node.outputs[0]] = tensors
        return []

    def _erase(self, node: Node) -> list[Node]:
        """SequenceErase-11; without a position the last."""
        tensors = list(self._sequence(node.inputs[0]))
        if not tensors:
            raise CannotConvert("the sequence is empty")
        del tensors[self._place(node, 1, len(tensors), len(tensors) - 1)]
        self.of[node.outputs[0]] = tensors
        return []

    def _at(self, node: Node) -> list[Node]:
        """SequenceAt-11."""
        tensors = self._sequence(node.inputs[0])
        return [_link(tensors[self._place(node, 1, len(tensors), 0)], node.outputs[0])]

    def _length(self, node: Node) -> list[Node]:
        """SequenceLength-11."""
        self._rewriter.define(node.outputs[0], np.array(len(self._sequence(node.inputs[0])), np.int64))
        return []

    def _map(self, node: Node) -> list[Node]:
        """SequenceMap-17: the body once for each element of the first sequence."""
        steps = len(self._sequence(node.inputs[0]))
        made: list[list[str]] = [[] for _ in node.outputs]
        nodes = []
        for step in range(steps):
            taken = [self._element(name, step, steps) for name in node.inputs]
            inner, results = self._control_flow.branch(node, "body", taken)
            nodes += inner
            for tensors, result in zip(made, results, strict=True):
                tensors.append(result)
        self.of.update(zip(node.outputs, made, strict=True))
        return nodes

    def _element(self, name: str, step: int, steps: int) -> str:
        tensors = self.of.get(name)
        if tensors is None:
            return name
        if len(tensors) != steps:
            raise CannotConvert(f"its sequences have {steps} and {len(tensors)} tensors")
        return tensors[step]

    def _split(self, node: Node) -> list[Node]:
        """SplitToSequence-24."""
        axis = node.attrs.get("axis", 0)
        shape = self._graph.shape(node.inputs[0])
        axis += len(shape) if axis < 0 else 0
        extent = shape[axis]
        if not isinstance(extent, int):
            raise CannotConvert("how many tensors it makes is known only at run time; bind the dimension (--dim)")
        is_squeezed = False
        if not node.input(1):
            lengths, is_squeezed = [1] * extent, not node.attrs.get("keepdims", 1)
        else:
            given = self._graph.constants.get(node.inputs[1])
            if given is None:
                raise CannotConvert("its lengths are known only at run time; fix them")
            length = int(given.reshape(-1)[0])
            if given.ndim == 0 and length <= 0:
                raise CannotConvert(f"its length is {length}")
            lengths = given.tolist() if given.ndim else [min(length, extent - k) for k in range(0, extent, length)]
        tensors = [self._names.fresh(f"{node.outputs[0]}/{k}") for k in range(len(lengths))]
        self.of[node.outputs[0]] = tensors
        if not tensors:
            return []
        sizes = self._rewriter.ints(lengths, f"{node.outputs[0]}/lengths")
        parts = [self._names.fresh(f"{name}/row") for name in tensors] if is_squeezed else tensors
        nodes = [Node("Split", [node.inputs[0], sizes], parts, {"axis": axis}, node.name, version=NEWEST)]
        if is_squeezed:
            at = self._rewriter.ints([axis], f"{node.outputs[0]}/axis")
            rows = zip(parts, tensors, strict=True)
            nodes += [Node("Squeeze", [part, at], [out], name=node.name, version=NEWEST) for part, out in rows]
        return nodes

    def _concat(self, node: Node) -> list[Node]:
        """ConcatFromSequence-11."""
        tensors, axis = self._sequence(node.inputs[0]), node.attrs["axis"]
        if not tensors:
            raise CannotConvert("the sequence is empty")
        nodes = []
        if node.attrs.get("new_axis", 0):
            at = self._rewriter.ints([axis], f"{node.outputs[0]}/axis")
            rows = [self._names.fresh(f"{node.outputs[0]}/row") for _ in tensors]
            pairs = zip(tensors, rows, strict=True)
            nodes = [Node("Unsqueeze", [x, at], [out], name=node.name, version=NEWEST) for x, out in pairs]
            tensors = rows
        return [*nodes, Node("Concat", tensors, node.outputs, {"axis": axis}, node.name, version=NEWEST)]

    def _optional(self, node: Node) -> list[Node]:
        """Optional-15, OptionalGetElement-18."""
        if not node.input(0):
            raise CannotConvert("an optional without a value is not supported")
        return self._same(node)

    def _same(self, node: Node) -> list[Node]:
        if node.inputs[0] not in self.of:
            return [_link(node.inputs[0], node.outputs[0])]
        self.of[node.outputs[0]] = self.of[node.inputs[0]]
        return []

    def _has_element(self, node: Node) -> list[Node]:
        """OptionalHasElement-18."""
        self._rewriter.define(node.outputs[0], np.array(bool(node.input(0))))
        return []


def _link(tensor: str, out: str) -> Node:
    return Node("Identity", [tensor], [out], version=NEWEST)
