"""If, Loop and Scan become plain nodes: there is no control flow after `prepare`.

What is known at build time decides: one branch of an If, the number of turns of a Loop. A condition that is known only
at run time computes both sides and selects, which needs results of equal shapes. A Loop whose turns only a run can
count takes as many as dimensions allow, or the caller: those that do not take place change nothing, and rows that they
scan are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from . import inline
from .diagnostics import CannotConvert
from .graph import Node
from .onnx_schema import NEWEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .canonical import Rewriter
    from .graph import Graph, Size
    from .inline import ReadTensor
    from .names import NameSupply

MOST_TURNS = 64
"""A Loop or Scan of more turns is not unrolled."""

SELECT = ("sparsec", "Select")
"""Select(condition, a, b): one condition for a whole tensor; a and b have one shape."""

_DONE, _PARTS, _OPEN, _FLAGS, _STATED = (f"sparsec_{name}" for name in ("done", "parts", "open", "flags", "stated"))
"""Attributes of a Loop that is being unrolled: turns done, pieces of its scanned outputs, whether a condition that is
known only at run time has been met, whether each turn takes place, whether the caller limits them."""


class ControlFlow:
    """Takes the nodes of subgraphs apart; `opsets` are the model's, `turns` the most of a Loop, by node or output."""

    def __init__(
        self,
        graph: Graph,
        names: NameSupply,
        rewriter: Rewriter,
        read: ReadTensor,
        opsets: dict[str, int],
        turns: Mapping[str, int],
    ) -> None:
        self._turns = turns
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
        if which not in node.attrs:
            raise CannotConvert(f"it has no {which}")
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
        trips, most = self._trips(node), self._most_turns(node)
        condition = self._known(node.inputs[1]) if node.input(1) else True
        if done in (trips, most) or (condition is False and not is_open):
            return self._loop_end(node, is_cut=is_open and most is not None and node.attrs.get(_STATED, False))
        if done >= MOST_TURNS:
            raise CannotConvert(f"it runs more than {MOST_TURNS} times; export the model with a shorter loop")
        is_counted = trips is None and node.input(0) != "" and not self._takes_place(node, done)
        if trips is None and most is None and (is_counted or condition is None):
            raise CannotConvert("how often it runs is known only at run time; state the most turns: --turns NAME=N")
        states = node.inputs[2:]
        flags = list(node.attrs.get(_FLAGS, []))
        before: list[Node] = []
        active = node.input(1) or self._rewriter.constant(np.array(True), f"{node.outputs[0]}/condition")
        if is_counted:
            active = self._counted(node, done, active, before)
        is_open = is_open or condition is None or is_counted
        turn = self._rewriter.constant(np.array(done, np.int64), f"{node.outputs[0]}/turn")
        if is_open and done and trips is None:  # a turn that does not take place must not look beyond what there is
            turn = self._guard(node, active, turn, self._rewriter.constant(np.array(0, np.int64), "first"), before)
        nodes, (again, *results) = self.branch(node, "body", [turn, active, *states])
        parts = [list(pieces) for pieces in node.attrs.get(_PARTS, [[]] * (len(results) - len(states)))]
        if is_open:
            results[: len(states)] = [
                self._guard(node, active, new, old, nodes)
                for new, old in zip(results[: len(states)], states, strict=True)
            ]
            both = self._names.fresh(f"{node.outputs[0]}/active")
            nodes.append(Node("And", [active, again], [both], version=NEWEST))
            again = both
        flags.append(active)
        for pieces, result in zip(parts, results[len(states) :], strict=True):
            pieces.append(result)
        is_asked = node.input(1) or is_open
        attrs = {**node.attrs, _DONE: done + 1, _PARTS: parts, _OPEN: is_open, _FLAGS: flags,
                 _STATED: trips is None and not self._is_counted_by_dims(node)}  # fmt: skip
        rest = Node("Loop", [node.inputs[0], again if is_asked else "", *results[: len(states)]], node.outputs, attrs,
                    node.name, "", node.version)  # fmt: skip
        return [*before, *nodes, rest]

    def _guard(self, node: Node, active: str, new: str, old: str, nodes: list[Node]) -> str:
        """`new` while the loop runs, else `old`."""
        out = self._names.fresh(f"{new}/kept")
        nodes.append(self._select(node, active, new, old, out))
        return out

    def _counted(self, node: Node, done: int, active: str, nodes: list[Node]) -> str:
        """Whether turn number `done` takes place, of as many as the first input says."""
        below, both = (self._names.fresh(f"{node.outputs[0]}/{what}") for what in ("counted", "active"))
        turn = self._rewriter.constant(np.array(done, np.int64), f"{node.outputs[0]}/number")
        nodes.append(Node("Less", [turn, node.inputs[0]], [below], version=NEWEST))
        nodes.append(Node("And", [active, below], [both], version=NEWEST))
        return both

    def _trips(self, node: Node) -> int | None:
        """The number of turns, None where it is unknown or unlimited."""
        value = self._graph.constants.get(node.input(0)) if node.input(0) else None
        return None if value is None else max(int(value.reshape(-1)[0]), 0)

    def _is_counted_by_dims(self, node: Node) -> bool:
        return node.input(0) in self._graph.symbols

    def _takes_place(self, node: Node, number: int) -> bool:
        """Whether the dimensions say so of a turn."""
        if not self._is_counted_by_dims(node):
            return False
        return self._graph.algebra.decide(self._graph.symbols[node.inputs[0]].reshape(-1)[0] > number) is True

    def _most_turns(self, node: Node) -> int | None:
        """How many turns there are at most where a run counts them: as dimensions say, or the caller."""
        if self._is_counted_by_dims(node):
            return max(self._graph.algebra.largest(self._graph.symbols[node.inputs[0]].reshape(-1)[0]), 0)
        return self._turns.get(node.name) or next((self._turns[o] for o in node.outputs if o in self._turns), None)

    def _loop_end(self, node: Node, is_cut: bool) -> list[Node]:
        """Links to the outputs; `is_cut`: the run fails if the loop would go on."""
        states, flags = node.inputs[2:], node.attrs.get(_FLAGS, [])
        scanned = node.outputs[len(states) :]
        nodes: list[Node] = []
        made = list(states)
        for out, pieces in zip(scanned, node.attrs.get(_PARTS, [[]] * len(scanned)), strict=False):
            if out and not pieces:
                raise CannotConvert("it never runs, and its scanned outputs would be empty")
            made.append(self._names.fresh(f"{out}/all") if out else "")
            if out:
                nodes += self._stacked(made[-1], pieces, 0)
            if out and node.attrs.get(_OPEN, False):
                whole, made[-1] = made[-1], self._names.fresh(f"{out}/taken")
                taken = self._names.fresh(f"{out}/turns")
                nodes += self._stacked(taken, flags, 0)
                nodes.append(Node("Compress", [whole, taken], [made[-1]], {"axis": 0}, node.name, version=NEWEST))
        if is_cut:
            going_on = node.inputs[1]
            if node.input(0) and self._trips(node) is None:
                going_on = self._counted(node, node.attrs[_DONE], going_on, nodes)
            made = [self._cut(node, going_on, name, nodes) if name else "" for name in made]
        return [*nodes, *_links(node.outputs, made)]

    def _cut(self, node: Node, going_on: str, made: str, nodes: list[Node]) -> str:
        """The same tensor, looked up at a place that is not there while the loop's condition holds."""
        row, at, out = (self._names.fresh(f"{made}/{what}") for what in ("row", "going_on", "checked"))
        axis = self._rewriter.constant(np.array([0]), f"{row}/axis")
        name = f"{node.name or node.outputs[0]}: more turns than --turns allows"
        nodes.append(Node("Unsqueeze", [made, axis], [row], version=NEWEST))
        nodes.append(Node("Cast", [going_on], [at], {"to": int(TensorProto.INT64)}, version=NEWEST))
        scalar = self._names.fresh(f"{at}/scalar")
        shape = self._rewriter.constant(np.zeros(0, np.int64), f"{at}/shape")
        nodes.append(Node("Reshape", [at, shape], [scalar], version=NEWEST))
        nodes.append(Node("Gather", [row, scalar], [out], {"axis": 0}, name, version=NEWEST))
        return out

    # ---- Scan --------------------------------------------------------------------------------------------------------

    def _scan(self, node: Node) -> list[Node]:
        """Scan-25: one copy of the body for each step that a dimension allows, of which a run takes its share."""
        count, extent = node.attrs["num_scan_inputs"], self._extent(node)
        steps = self._graph.algebra.largest(extent)
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
                nodes += self._slice(name, part, axis, self._place(extent, step, back))
            inner, results = self.branch(node, "body", [*states, *slices])
            nodes += inner
            if self._graph.algebra.decide(extent > step) is not True:
                self._keep_states(node, (extent, step), states, results, nodes)
            states = results[: len(states)]
            for pieces, result in zip(parts, results[len(states) :], strict=True):
                pieces.append(result)
        outputs = [*node.outputs, *[""] * (len(states) + made - len(node.outputs))]
        nodes += _links(outputs[: len(states)], states)
        for number, out in enumerate(outputs[len(states) :]):
            if out:
                back = bool(out_backwards[number])
                pieces = parts[number][::-1] if back else parts[number]
                nodes += self._taken(out, pieces, out_axes[number], extent, back)
        return nodes

    def _place(self, extent: Size, step: int, back: int) -> str:
        """Where a step reads; one that does not take place reads what another does."""
        algebra = self._graph.algebra
        at = algebra.size(extent - 1 - step) if back else algebra.minimum(step, algebra.size(extent - 1))
        return self._rewriter.ints([algebra.maximum(at, 0) if back else at], "index")

    def _slice(self, name: str, out: str, axis: int, at: str) -> list[Node]:
        rank = len(self._graph.shape(name))
        row = self._names.fresh(f"{out}/row")
        axes = self._rewriter.constant(np.array([axis % rank]), f"{out}/axis")
        return [
            Node("Gather", [name, at], [row], {"axis": axis}, version=NEWEST),
            Node("Squeeze", [row, axes], [out], version=NEWEST),
        ]

    def _keep_states(
        self, node: Node, turn: tuple[Size, int], states: Sequence[str], results: list[str], nodes: list[Node]
    ) -> None:
        """The states stay as they are in a step beyond the extent."""
        extent, step = turn
        active = self._names.fresh(f"{node.outputs[0] or node.name}/active")
        last = self._rewriter.ints([extent], f"{active}/extent")
        number = self._rewriter.constant(np.array([step], np.int64), f"{active}/step")
        nodes.append(Node("Less", [number, last], [active], version=NEWEST))
        for i, state in enumerate(states):
            results[i] = self._guard(node, active, results[i], state, nodes)

    def _taken(self, out: str, pieces: Sequence[str], axis: int, extent: Size, back: bool) -> list[Node]:
        """The pieces of the steps that took place, which are the first, or backwards the last."""
        if isinstance(extent, int):
            return self._stacked(out, pieces, axis)
        whole, size = self._names.fresh(f"{out}/all"), self._graph.algebra.size
        first, end = (size(len(pieces) - extent), len(pieces)) if back else (0, extent)
        bounds = [self._rewriter.ints([value], f"{out}/bound") for value in (first, end, axis)]
        return [*self._stacked(whole, pieces, axis), Node("Slice", [whole, *bounds], [out], version=NEWEST)]

    def _extent(self, node: Node) -> Size:
        count = node.attrs.get("num_scan_inputs", 0)
        axes = node.attrs.get("scan_input_axes", [0] * count)
        if node.version < 9:
            raise CannotConvert("Scan of opset 8 is not supported; export the model in opset 9 or newer")
        first, *others = (self._graph.shape(n)[a] for n, a in zip(node.inputs[-count:], axes, strict=True))
        if not all(self._graph.algebra.equal(first, other) for other in others):
            raise CannotConvert("its inputs have different numbers of steps")
        most = self._graph.algebra.largest(first)
        if not 0 < most <= MOST_TURNS:
            raise CannotConvert(f"it runs {most} times; 1 to {MOST_TURNS} can be unrolled")
        return first

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
