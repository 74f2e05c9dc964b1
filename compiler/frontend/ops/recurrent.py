"""RNN, GRU and LSTM: the product with the inputs is one of the usual, the recurrence is a loop over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


@dataclass(frozen=True)
class _Cell:
    """One direction of a layer; tensors that a loop reads are `operands`, by their names in `ins`."""

    kind: str
    hidden: int
    backwards: bool
    rectified: bool
    reset_after: bool
    operands: tuple[str, ...]

    @property
    def width(self) -> int:
        """Gate values of one step."""
        return _GATES[self.kind] * self.hidden


@converter("RNN", "GRU", "LSTM")
def recurrent(context: Context, node: Node) -> list[Any]:
    """RNN-22, GRU-22, LSTM-22: any length and batch, both directions, the default activations (and Relu for RNN)."""
    attrs, kind = context.attrs(node), node.op_type
    directions = 2 if attrs["direction"] == "bidirectional" else 1
    rectified = _activations(kind, attrs, directions)
    if attrs.get("clip"):
        raise CannotConvert("clipped gates are not supported")
    if attrs.get("input_forget"):
        raise CannotConvert("input_forget is not supported")
    dtype = context.dtype(node.inputs[0])
    if dtype not in ("float32", "float64"):
        raise CannotConvert(f"recurrent layers in {dtype} are not supported")
    _check_shapes(context, node, directions)
    x = context.expr(node.inputs[0])
    batch_first = bool(attrs["layout"])
    if batch_first:
        x = context.emit(relax.op.permute_dims(x, [1, 0, 2]))
    made = []
    for d in range(directions):
        backwards = attrs["direction"] == "reverse" or d == 1
        after = bool(attrs.get("linear_before_reset", 0))
        made.append(_direction(context, node, x, d, (backwards, rectified, after), batch_first))
    results = []
    for i in range(len(node.outputs)):
        parts = [context.emit(relax.op.expand_dims(m[i], 1 if i == 0 else 0)) for m in made]
        whole = context.emit(relax.op.concat(parts, 1 if i == 0 else 0)) if directions > 1 else parts[0]
        if batch_first:
            whole = context.emit(relax.op.permute_dims(whole, [2, 0, 1, 3] if i == 0 else [1, 0, 2]))
        results.append(whole)
    return results


def _check_shapes(context: Context, node: Node, directions: int) -> None:
    """onnx's inference looks at none of the weights."""
    gates = _GATES[node.op_type]
    hidden = context.shape(node.inputs[2])[-1]
    features = context.shape(node.inputs[0])[-1]
    wanted: dict[int, tuple[Any, ...]] = {
        1: (directions, gates * hidden, features),
        2: (directions, gates * hidden, hidden),
        3: (directions, 2 * gates * hidden),
        7: (directions, 3 * hidden),
    }
    for index, shape in wanted.items():
        name = node.input(index)
        if name and tuple(context.shape(name)) != shape:
            raise CannotConvert(
                f"its input {index} ('{name}') has shape {list(context.shape(name))}, not {list(shape)}"
            )


def _activations(kind: str, attrs: dict[str, Any], directions: int) -> bool:
    """Whether an RNN uses Relu; everything else must be the default."""
    given = [a.lower() for a in attrs.get("activations") or ()]
    if attrs.get("activation_alpha") or attrs.get("activation_beta"):
        raise CannotConvert("parameters of activations are not supported")
    if kind == "RNN" and len(set(given)) == 1 and given[0] in ("relu", "tanh"):
        return given[0] == "relu"
    if given and tuple(given) != _DEFAULTS[kind] * directions:
        raise CannotConvert(f"the activations {', '.join(attrs['activations'])} are not supported")
    return False


def _direction(
    context: Context, node: Node, x: Any, d: int, how: tuple[bool, bool, bool], batch_first: bool
) -> list[Any]:
    """[all hidden states, the last one, the last cell state] of one direction."""
    kind, dtype = node.op_type, context.dtype(node.inputs[0])
    seq, batch, features = x.ty.shape.values
    weight = _part(context, node.inputs[1], d, transposed=True)
    hidden = int(weight.ty.shape.values[1]) // _GATES[kind]
    width = _GATES[kind] * hidden
    flat = context.emit(relax.op.reshape(x, [seq * batch, features]))
    gates = context.emit(relax.op.matmul(flat, weight))
    ins = {"weight": _part(context, node.inputs[2], d, transposed=True)}
    if node.input(3):
        both = _part(context, node.inputs[3], d)
        bias, inner = (_piece(context, both, i * width, width) for i in range(2))
        if kind == "GRU" and how[2]:
            kept = np.concatenate([np.ones(2 * hidden), np.zeros(hidden)]).astype(dtype)
            ins["inner_bias"] = inner
            inner = context.emit(relax.op.multiply(inner, constant(kept)))
        gates = context.emit(relax.op.add(gates, context.emit(relax.op.add(bias, inner))))
    ins["gates"] = gates
    for name, index in (("state", 5), ("cell", 6)):
        if node.input(index) and (name == "state" or kind == "LSTM"):
            first = context.expr(node.inputs[index])
            if batch_first:
                first = context.emit(relax.op.permute_dims(first, [1, 0, 2]))
            ins[name] = _slice(context, first, d)
    if node.input(4):
        ins["lengths"] = context.expr(node.inputs[4])
    if kind == "LSTM" and node.input(7):
        ins["peepholes"] = _part(context, node.inputs[7], d)
    cell = _Cell(kind, hidden, *how, operands=tuple(ins))
    made = context.builder.emit_te(lambda *tensors: _loop(cell, tensors, (seq, batch), dtype), *ins.values())
    return [context.emit(relax.TupleGetItem(made, i)) for i in range(3 if kind == "LSTM" else 2)]


def _part(context: Context, name: str, d: int, transposed: bool = False) -> Any:
    """One direction of a weight; a constant stays one."""
    value = context.value(name)
    if value is not None and not context.abstract(value):
        return constant(np.ascontiguousarray(value[d].T if transposed else value[d]))
    part = _slice(context, context.expr(name), d)
    return context.emit(relax.op.permute_dims(part)) if transposed else part


def _slice(context: Context, x: Any, d: int) -> Any:
    part = relax.op.strided_slice(x, [0], sizes([d]), sizes([d + 1]), assume_inbound=True)
    return context.emit(relax.op.squeeze(context.emit(part), [0]))


def _piece(context: Context, x: Any, start: int, count: int) -> Any:
    return context.emit(relax.op.strided_slice(x, [0], sizes([start]), sizes([start + count]), assume_inbound=True))


def _loop(cell: _Cell, tensors: tuple[Any, ...], extents: tuple[Any, Any], dtype: str) -> Any:
    """The recurrence: batch rows side by side, the steps of each in order."""
    seq, batch = extents
    outputs = [(seq, batch, cell.hidden), (batch, cell.hidden)]
    outputs += [(batch, cell.hidden)] if cell.kind != "RNN" else []
    outputs += [(batch, cell.width)]

    def body(ins: list[Any], outs: list[Any]) -> Any:
        with IRBuilder() as builder:
            made = [script.buffer_proxy(out) for out in outs]
            step = _Step(cell, dict(zip(cell.operands, map(script.buffer_proxy, ins), strict=True)), made, dtype)
            with script.parallel(0, batch) as row:
                step.start(row)
                length = seq
                if "lengths" in cell.operands:
                    given = tirx.Cast("int64", step.ins["lengths"][row])
                    length = tirx.max(tirx.min(given, seq), tirx.const(0, "int64"))
                with script.serial(0, length) as t:
                    at = length - 1 - t if cell.backwards else t
                    step.run(row, at * batch + row)
                if "lengths" in cell.operands:
                    with script.serial(0, seq - length) as t, script.serial(0, cell.hidden) as j:
                        made[0][((length + t) * batch + row) * cell.hidden + j] = tirx.const(0, dtype)
            return builder.get()

    return te.extern(outputs, list(tensors), body, dtype=[dtype] * len(outputs), name=cell.kind.lower())


class _Step:
    """The text of one step; all buffers are flat."""

    def __init__(self, cell: _Cell, ins: dict[str, Any], made: list[Any], dtype: str) -> None:
        self.cell, self.ins, self.dtype = cell, ins, dtype
        self.y, self.h, self.c, self.s = made[0], made[1], made[-2], made[-1]

    def start(self, row: Any) -> None:
        """The state before the first step."""
        hidden = self.cell.hidden
        for into, name in ((self.h, "state"), *([(self.c, "cell")] if self.cell.kind == "LSTM" else [])):
            with script.serial(0, hidden) as j:
                known = name in self.ins
                into[row * hidden + j] = self.ins[name][row * hidden + j] if known else tirx.const(0, self.dtype)

    def run(self, row: Any, at: Any) -> None:
        """One step, whose inputs and output are row `at`."""
        cell, hidden, width = self.cell, self.cell.hidden, self.cell.width
        after = cell.kind == "GRU" and cell.reset_after
        with script.serial(0, width) as j:
            start = self.ins["gates"][at * width + j]
            self.s[row * width + j] = start
        if cell.kind == "GRU":
            self._multiply(row, self.h, 0, 2 * hidden)
            self._gru(row, after)
        else:
            self._multiply(row, self.h, 0, width)
            (self._lstm if cell.kind == "LSTM" else self._rnn)(row)
        with script.serial(0, hidden) as j:
            self.y[at * hidden + j] = self.h[row * hidden + j]

    def _multiply(self, row: Any, state: Any, first: int, count: int) -> None:
        """s[first:] += state · weight[:, first:]."""
        hidden, width = self.cell.hidden, self.cell.width
        with script.serial(0, hidden) as k, script.serial(0, count) as j:
            place = row * width + first + j
            self.s[place] = self.s[place] + state[row * hidden + k] * self.ins["weight"][k * width + first + j]

    def _gate(self, row: Any, number: int, j: Any) -> Any:
        return self.s[row * self.cell.width + number * self.cell.hidden + j]

    def _rnn(self, row: Any) -> None:
        with script.serial(0, self.cell.hidden) as j:
            value = self._gate(row, 0, j)
            zero = tirx.const(0, self.dtype)
            self.h[row * self.cell.hidden + j] = tirx.max(value, zero) if self.cell.rectified else tirx.tanh(value)

    def _lstm(self, row: Any) -> None:
        """Gates in ONNX's order: input, output, forget, cell."""
        hidden = self.cell.hidden

        def peep(number: int, j: Any) -> Any:
            if "peepholes" not in self.ins:
                return self._gate(row, number, j)
            return self._gate(row, number, j) + self.ins["peepholes"][number * hidden + j] * self.c[row * hidden + j]

        with script.serial(0, hidden) as j:
            place = row * hidden + j
            fresh = tirx.sigmoid(peep(0, j)) * tirx.tanh(self._gate(row, 3, j))
            self.c[place] = tirx.sigmoid(peep(2, j)) * self.c[place] + fresh
            self.h[place] = tirx.sigmoid(peep(1, j)) * tirx.tanh(self.c[place])

    def _gru(self, row: Any, after: bool) -> None:
        """Gates in ONNX's order: update, reset, hidden. `c` holds what the reset gate is applied to."""
        hidden = self.cell.hidden
        if after:
            with script.serial(0, hidden) as j:
                bias = self.ins["inner_bias"][2 * hidden + j] if "inner_bias" in self.ins else tirx.const(0, self.dtype)
                self.c[row * hidden + j] = bias
            with script.serial(0, hidden) as k, script.serial(0, hidden) as j:
                weight = self.ins["weight"][k * self.cell.width + 2 * hidden + j]
                place = row * hidden + j
                self.c[place] = self.c[place] + self.h[row * hidden + k] * weight
            with script.serial(0, hidden) as j:
                place = row * self.cell.width + 2 * hidden + j
                self.s[place] = self.s[place] + tirx.sigmoid(self._gate(row, 1, j)) * self.c[row * hidden + j]
        else:
            with script.serial(0, hidden) as j:
                reset = tirx.sigmoid(self._gate(row, 1, j))
                self.c[row * hidden + j] = reset * self.h[row * hidden + j]
            self._multiply(row, self.c, 2 * hidden, hidden)
        with script.serial(0, hidden) as j:
            place = row * hidden + j
            update = tirx.sigmoid(self._gate(row, 0, j))
            fresh = tirx.tanh(self._gate(row, 2, j))
            self.h[place] = (tirx.const(1, self.dtype) - update) * fresh + update * self.h[place]
