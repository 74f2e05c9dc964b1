"""If, Loop and Scan become plain nodes: there is no control flow after `prepare`.

What is known at build time decides: one branch of an If, the number of turns of a Loop. A condition that is known only
at run time computes both sides and selects, which needs results of equal shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import inline
from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import NEWEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .canonical import Rewriter
    from .graph import Graph
    from .inline import ReadTensor
    from .names import NameSupply

MOST_TURNS = 64
"""A Loop or Scan of more turns is not unrolled."""

SELECT = ("sparsec", "Select")
"""Select(condition, a, b): one condition for a whole tensor; a and b have one shape."""

_DONE, _PARTS, _OPEN = "sparsec_done", "sparsec_parts", "sparsec_open"
"""Attributes of a Loop that is being unrolled: turns done, pieces of its scanned outputs, whether a condition that is
known only at run time has been met."""


class ControlFlow:
    """Takes the nodes of subgraphs apart; `opsets` are the model's."""

    def __init__(
        self, graph: Graph, names: NameSupply, rewriter: Rewriter, read: ReadTensor, opsets: dict[str, int]
    ) -> None:
        self._graph = graph
        self._names = names
        self._rewriter = rewriter
        self._read = read
        self._opsets = opsets

    def expand(self, node: Node) -> list[Node] | None:
        """The nodes in place of an If, a Loop (one turn and the rest) or a Scan; None for any other.

        Raises:
            CannotConvert: the number of turns is not known at build time, or is too large.
        """
        if node.domain:
            return None
        rule = {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        return rule(node) if rule else None

    # ---- If ----------------------------------------------------------------------------------------------------------

    def _if(self, node: Node) -> list[Node]:
        """If-25."""
        condition = self._known(node.inputs[0])
        if condition is not None:
            nodes, results = self.branch(node, "then_branch" if condition else "else_branch")
            return [*nodes, *_links(node.outputs, results)]
        then, then_results = self.branch(node, "then_branch")
        other, other_results = self.branch(node, "else_branch")
        rows = zip(node.outputs, then_results, other_results, strict=True)
        chosen = [self._select(node, node.inputs[0], a, b, out) for out, a, b in rows if out]
        return [*then, *other, *chosen]

    def branch(self, node: Node, which: str, inputs: Sequence[str] = ()) -> tuple[list[Node], list[str]]:
        """The nodes and results of a subgraph; its initializers become constants of the graph."""
        opsets = self._opsets | {"": node.version}
        nodes, initializers, results = inline.branch_nodes(node.attrs[which], opsets, self._names, self._read, inputs)
        for name, value in initializers.items():
            self._rewriter.define(name, value)
        return nodes, results

    def _known(self, condition: str) -> bool | None:
        value = self._graph.constants.get(condition)
        return None if value is None else bool(value.reshape(-1)[0])

    @staticmethod
    def _select(node: Node, condition: str, a: str, b: str, out: str) -> Node:
        domain, op_type = SELECT
        return Node(op_type, [condition, a, b], [out], name=node.name or node.outputs[0], domain=domain, version=1)

    # ---- Loop --------------------------------------------------------------------------------------------------------

    def _loop(self, node: Node) -> list[Node]:
        """Loop-25, a turn at a time: what the turn finds out about the condition is known before the next."""
        done, is_open = node.attrs.get(_DONE, 0), node.attrs.get(_OPEN, False)
        trips = self._trips(node)
        condition = self._known(node.inputs[1]) if node.input(1) else True
        if done == trips or (condition is False and not is_open):
            return self._loop_end(node)
        if done >= MOST_TURNS:
            raise CannotConvert(f"it runs more than {MOST_TURNS} times; export the model with a shorter loop")
        if condition is None and trips is None:
            raise CannotConvert("how often it runs is known only at run time; export the model with a fixed number")
        states = node.inputs[2:]
        turn = self._rewriter.constant(np.array(done, np.int64), f"{node.outputs[0]}/turn")
        active = node.input(1) or self._rewriter.constant(np.array(True), f"{node.outputs[0]}/condition")
        nodes, (again, *results) = self.branch(node, "body", [turn, active, *states])
        parts = [list(pieces) for pieces in node.attrs.get(_PARTS, [[]] * (len(results) - len(states)))]
        is_open = is_open or condition is None
        if is_open:
            if parts:
                raise CannotConvert("the length of its scanned outputs is known only at run time")
            nodes += self._guarded(node, active, states, results)
            both = self._names.fresh(f"{node.outputs[0]}/active")
            nodes.append(Node("And", [active, again], [both], version=NEWEST))
            again = both
        for pieces, result in zip(parts, results[len(states) :], strict=True):
            pieces.append(result)
        rest = Node("Loop", [node.inputs[0], again if node.input(1) else "", *results[: len(states)]], node.outputs,
                    {**node.attrs, _DONE: done + 1, _PARTS: parts, _OPEN: is_open}, node.name, "",
                    node.version)  # fmt: skip
        return [*nodes, rest]

    def _guarded(self, node: Node, active: str, states: list[str], results: list[str]) -> list[Node]:
        """Keeps the old states once the loop is over; `results` are replaced by the guarded ones."""
        chosen = []
        for i, state in enumerate(states):
            out = self._names.fresh(f"{results[i]}/kept")
            chosen.append(self._select(node, active, results[i], state, out))
            results[i] = out
        return chosen

    def _trips(self, node: Node) -> int | None:
        if not node.input(0):
            return None
        value = self._graph.constants.get(node.inputs[0])
        if value is None:
            raise CannotConvert("how often it runs is known only at run time; bind more dimensions or fix the number")
        return max(int(value.reshape(-1)[0]), 0)

    def _loop_end(self, node: Node) -> list[Node]:
        states = node.inputs[2:]
        nodes = _links(node.outputs[: len(states)], states)
        scanned = node.outputs[len(states) :]
        for out, pieces in zip(scanned, node.attrs.get(_PARTS, [[]] * len(scanned)), strict=False):
            if out and not pieces:
                raise CannotConvert("it never runs, and its scanned outputs would be empty")
            if out:
                nodes += self._stacked(out, pieces, 0)
        return nodes

    # ---- Scan --------------------------------------------------------------------------------------------------------

    def _scan(self, node: Node) -> list[Node]:
        """Scan-25: one copy of the body for each step."""
        count, steps = node.attrs["num_scan_inputs"], self._steps(node)
        states, scanned = node.inputs[:-count], node.inputs[-count:]
        made = len(node.attrs["body"].output) - len(states)
        axes = node.attrs.get("scan_input_axes", [0] * count)
        backwards = node.attrs.get("scan_input_directions", [0] * count)
        out_axes = node.attrs.get("scan_output_axes", [0] * made)
        out_backwards = node.attrs.get("scan_output_directions", [0] * made)
        nodes: list[Node] = []
        parts: list[list[str]] = [[] for _ in range(made)]
        for step in range(steps):
            slices = [self._names.fresh(f"{name}/{step}") for name in scanned]
            for name, part, axis, back in zip(scanned, slices, axes, backwards, strict=True):
                at = self._rewriter.constant(np.array(steps - 1 - step if back else step), f"{part}/index")
                nodes.append(Node("Gather", [name, at], [part], {"axis": axis}, version=NEWEST))
            inner, results = self.branch(node, "body", [*states, *slices])
            nodes += inner
            states = results[: len(states)]
            for pieces, result in zip(parts, results[len(states) :], strict=True):
                pieces.append(result)
        outputs = [*node.outputs, *[""] * (len(states) + made - len(node.outputs))]
        nodes += _links(outputs[: len(states)], states)
        for number, out in enumerate(outputs[len(states) :]):
            if out:
                pieces = parts[number][::-1] if out_backwards[number] else parts[number]
                nodes += self._stacked(out, pieces, out_axes[number])
        return nodes

    def _steps(self, node: Node) -> int:
        count = node.attrs.get("num_scan_inputs", 0)
        axes = node.attrs.get("scan_input_axes", [0] * count)
        if node.version < 9:
            raise CannotConvert("Scan of opset 8 is not supported; export the model in opset 9 or newer")
        extents = {self._graph.shape(name)[axis] for name, axis in zip(node.inputs[-count:], axes, strict=True)}
        extent = extents.pop()
        if extents or not isinstance(extent, int):
            raise CannotConvert("how often it runs is known only at run time; bind the dimension (--dim, --shape)")
        if not 0 < extent <= MOST_TURNS:
            raise CannotConvert(f"it runs {extent} times; 1 to {MOST_TURNS} can be unrolled")
        return extent

    def _stacked(self, out: str, pieces: Sequence[str], axis: int) -> list[Node]:
        """`pieces` joined along a new axis."""
        nodes, rows = [], []
        for piece in pieces:
            rows.append(self._names.fresh(f"{out}/part"))
            at = self._rewriter.constant(np.array([axis]), f"{rows[-1]}/axis")
            nodes.append(Node("Unsqueeze", [piece, at], [rows[-1]], version=NEWEST))
        return [*nodes, Node("Concat", rows, [out], {"axis": axis}, version=NEWEST)]


def _links(outputs: Sequence[str], results: Sequence[str]) -> list[Node]:
    """The results under the names of the outputs that are wanted."""
    wanted = zip(outputs, results, strict=False)
    return [Node("Identity", [made], [out], version=NEWEST) for out, made in wanted if out]
