"""TIR statements to C: the body of one kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tvm
from tvm import tirx

from ...errors import InternalError
from ...schedules.walk import children
from .c_expressions import ExpressionText, Names
from .c_types import C_TYPES
from .memory import itemsize
from .tir_loops import LANES, Choice, LaneReduction, Leaf, choice_of, guard_of, lane_reduction
from .tir_nodes import conjuncts, data_var, dtype_of, flatten, plain, ternary

_STACK_BYTES = 256 << 10
"""Local buffers of one kernel may take this much of a thread's stack."""

_SPLITS = 8
"""How often, at most, an innermost loop is written twice for a choice that it would make in every step."""


class KernelText(ExpressionText):
    """The body of one kernel, statement by statement."""

    def __init__(self, names: Names) -> None:
        super().__init__(names)
        self.lines: list[str] = []
        self.depth = 0
        self.written: list[Any] = []
        self.stack = 0
        self.splits = 0
        self.cuts = 0

    def emit(self, line: str) -> None:
        """One line at the present depth."""
        self.lines.append("    " * self.depth + line)

    def range_loop(self, loop: Any) -> None:
        """The outermost parallel loop, over the slice that the pool asks for."""
        self.local.add(loop.loop_var)
        self.natural.add(loop.loop_var)
        self._pieces(loop, "int64_t", "begin", "end")

    def statement(self, s: Any) -> None:
        """Any statement."""
        method = getattr(self, "_" + type(s).__name__.lower(), None)
        if method is None:
            raise InternalError(f"{self.names.name}: no C for TIR statement {type(s).__name__}")
        method(s)

    def _block(self, body: Any) -> None:
        self.depth += 1
        for s in flatten(body):
            self.statement(s)
        self.depth -= 1

    def _for(self, s: Any) -> None:
        reduction = lane_reduction(s)
        if reduction is not None:
            self._reduce_in_lanes(s, reduction)
            return
        self.local.add(s.loop_var)
        self.natural.add(s.loop_var)
        low, extent = self.expr(s.min), self.expr(s.extent)
        if s.kind == tirx.ForKind.UNROLLED:
            self.emit("#pragma unroll")
        elif s.kind == tirx.ForKind.VECTORIZED:
            self.emit("#pragma clang loop vectorize(assume_safety)")
        high = extent if low == "0" else f"({low} + {extent})"
        self._pieces(s, C_TYPES[dtype_of(s.loop_var.ty.dtype)], low, high)

    def _pieces(self, s: Any, ctype: str, low: str, high: str) -> None:
        """A loop; an innermost one makes choices outside of it that it would make alike in every step, or by counting.

        Concatenation and padding would not become copies otherwise: the C compiler leaves the choice in the loop.
        """
        body = flatten(s.body)
        # An extent that its tiles do not divide: the last one ends earlier.
        guards, body = guard_of(s.loop_var, body)
        for guard in guards:
            high = self._cut(low, high, guard.cut)
        leaf = Leaf.of(s.loop_var, body)
        if leaf is None:
            name = self.names.name_of(s.loop_var)
            self.emit(f"for ({ctype} {name} = {low}; {name} < {high}; ++{name}) {{")
            self.depth += 1
            for statement in body:
                self.statement(statement)
            self.depth -= 1
            self.emit("}")
            return
        for binding in leaf.fixed:
            self.statement(binding)
        self.splits = _SPLITS if s.kind in (tirx.ForKind.SERIAL, tirx.ForKind.PARALLEL) else 0
        self._piece(leaf, ctype, low, high)

    def _piece(self, leaf: Leaf, ctype: str, low: str, high: str) -> None:
        choice = self._choice(leaf) if self.splits else None
        if choice is None:
            name = self.names.name_of(leaf.var)
            self.emit(f"for ({ctype} {name} = {low}; {name} < {high}; ++{name}) {{")
            self._leaf_body(leaf)
            self.emit("}")
            return
        self.splits -= 1
        if choice.cut is None:
            self.emit(f"if {self._in_parentheses(choice.condition)} {{")
            self._under(choice.condition, True, leaf, ctype, low, high)
            self.emit("} else {")
            self._under(choice.condition, False, leaf, ctype, low, high)
            self.emit("}")
            return
        cut = self._cut(low, high, choice.cut)
        for first, last, value in ((low, cut, choice.below), (cut, high, not choice.below)):
            if first != last:
                self.depth -= 1
                self._under(choice.condition, value, leaf, ctype, first, last)
                self.depth += 1

    def _cut(self, low: str, high: str, at: Any) -> str:
        """Where a condition flips, as a number or a new constant between `low` and `high`."""
        at = tvm.sym.Analyzer().simplify(at)
        if low.isdecimal() and high.isdecimal() and isinstance(at, tirx.IntImm):
            return str(min(int(high), max(int(low), int(at))))
        name = f"cut_{self.cuts}"
        self.cuts += 1
        self.emit(f"const int64_t {name} = sparsec_min_int64({high}, sparsec_max_int64({low}, {self.expr(at)}));")
        return name

    def _under(self, condition: Any, value: bool, leaf: Leaf, ctype: str, low: str, high: str) -> None:
        """A piece in which a condition is known."""
        self.facts.append((condition, value))
        self.depth += 1
        self._piece(leaf, ctype, low, high)
        self.depth -= 1
        self.facts.pop()

    def _leaf_body(self, leaf: Leaf) -> None:
        """Only the bindings that this piece needs."""
        self.depth += 1
        outer, self.lines = self.lines, []
        self.touched.clear()
        for binding in leaf.moving:
            self.local.add(binding.var)
            self._classify(binding.var, binding.value)
        self.statement(leaf.store)
        for binding in reversed(leaf.moving):
            if binding.var in self.touched:
                after, self.lines = self.lines, []
                self.statement(binding)
                self.lines += after
        self.lines = outer + self.lines
        self.depth -= 1

    def _choice(self, leaf: Leaf) -> Choice | None:
        """A condition of a leaf that is the same in all its steps; else one that flips once."""
        varying = [leaf.var, *(b.var for b in leaf.moving)]
        found = None
        for value in (*(b.value for b in leaf.moving), leaf.store.value):
            for condition in self._open_conditions(value):
                choice = choice_of(condition, varying, leaf.moving)
                if choice is not None and choice.cut is None:
                    return choice
                found = found or choice
        return found

    def _open_conditions(self, e: Any) -> Iterator[Any]:
        """Conditions of choices that are not made yet, without those in branches that are dead."""
        choice = ternary(e)
        if choice is None:
            for child in children(e):
                yield from self._open_conditions(child)
            return
        condition, yes, no = choice
        known = self._known(condition)
        if known is None:
            yield from (part for part in conjuncts(condition) if self._known(part) is None)
        if known is not False:
            yield from self._open_conditions(yes)
        if known is not True:
            yield from self._open_conditions(no)

    def _reduce_in_lanes(self, loop: Any, reduction: LaneReduction) -> None:
        """x[i] = op(x[i], f(k)) over k: `LANES` partial results, so that the loop is a vector loop on every ISA."""
        self.local.add(loop.loop_var)
        self.natural.add(loop.loop_var)
        name = self.names.name_of(loop.loop_var)
        itype, extent = C_TYPES[dtype_of(loop.loop_var.ty.dtype)], self.expr(loop.extent)
        rows = []
        for number, part in enumerate(reduction.parts):
            self._touch(part.store.buffer)
            self.written.append(part.store.buffer)
            rows.append((f"lanes_{number}", part, self._element(part.store.buffer, part.store.indices)))

        self.emit("{")
        self.depth += 1
        self.emit(f"enum {{ LANES = {LANES} }};")
        for lanes, part, _ in rows:
            self.emit(f"_Alignas(64) {C_TYPES[part.dtype]} {lanes}[LANES];")
        self.emit(f"{itype} at = 0;")
        for lanes, part, _ in rows:
            start = {"Add": "0", "Max": "-__builtin_inf()", "Min": "__builtin_inf()"}[part.kind]
            self.emit(f"for (int lane = 0; lane < LANES; ++lane) {lanes}[lane] = ({C_TYPES[part.dtype]}){start};")
        for head, lane in (
            (f"for (; at + LANES <= {extent}; at += LANES) for (int lane = 0; lane < LANES; ++lane) {{", "at + lane"),
            (f"for (int lane = 0; at < {extent}; ++at, ++lane) {{", "at"),
        ):
            self.emit(head)
            self.depth += 1
            self.emit(f"const {itype} {name} = {lane};")
            for binding in reduction.bindings:
                self.statement(binding)
            for lanes, part, _ in rows:
                self.emit(part.update(f"{lanes}[lane]", self.expr(part.operand)))
            self.depth -= 1
            self.emit("}")
        self.emit("for (int half = LANES / 2; half > 0; half /= 2)")
        self.emit("    for (int lane = 0; lane < half; ++lane) {")
        for lanes, part, _ in rows:
            self.emit(f"        {part.update(f'{lanes}[lane]', f'{lanes}[lane + half]')}")
        self.emit("    }")
        for lanes, part, target in rows:
            self.emit(part.update(target, f"{lanes}[0]"))
        self.depth -= 1
        self.emit("}")

    def _while(self, s: Any) -> None:
        self.emit(f"while {self._in_parentheses(s.condition)} {{")
        self._block(s.body)
        self.emit("}")

    def _ifthenelse(self, s: Any) -> None:
        self.emit(f"if {self._in_parentheses(s.condition)} {{")
        self._block(s.then_case)
        if s.else_case is not None:
            self.emit("} else {")
            self._block(s.else_case)
        self.emit("}")

    def _bind(self, s: Any) -> None:
        value = self.expr(s.value)
        self.local.add(s.var)
        self._classify(s.var, s.value)
        self.emit(f"const {C_TYPES[dtype_of(s.var.ty.dtype)]} {self.names.name_of(s.var)} = {value};")

    _letstmt = _bind

    def _allocbuffer(self, s: Any) -> None:
        self.local.add(s.buffer)
        dtype = dtype_of(s.buffer.ty.dtype)
        size = math.prod(plain(d) for d in s.buffer.ty.shape)
        if not isinstance(size, int):
            raise InternalError(f"{self.names.name}: a local buffer of dynamic size")
        self.stack += size * itemsize(dtype)
        if self.stack > _STACK_BYTES:
            raise InternalError(f"{self.names.name}: local buffers of more than {_STACK_BYTES} bytes")
        self.emit(f"_Alignas(64) {C_TYPES[dtype]} {self.names.name_of(s.buffer)}[{max(size, 1)}];")

    def _declbuffer(self, s: Any) -> None:
        self.local.add(s.buffer)
        root = data_var(s.data)
        self._touch(root)
        ctype, name = C_TYPES[dtype_of(s.buffer.ty.dtype)], self.names.name_of(s.buffer)
        self.emit(f"{ctype} *{name} = (void *){self.names.name_of(root)};")

    def _bufferstore(self, s: Any) -> None:
        self._touch(s.buffer)
        self.written.append(s.buffer)
        value = self.names.identity(s) or self.expr(s.value)
        self.emit(f"{self._element(s.buffer, s.indices)} = {value};")

    def _attrstmt(self, s: Any) -> None:
        for inner in flatten(s.body):
            self.statement(inner)

    def _evaluate(self, s: Any) -> None:
        if not isinstance(s.value, tirx.IntImm):
            self.emit(f"(void){self.expr(s.value)};")

    def _assertstmt(self, s: Any) -> None:
        """Shapes were checked before the kernel runs."""
