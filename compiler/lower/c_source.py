"""Scheduled TIR to C, as plain kernels.

After scheduling, a TIR function is a few loop nests over flat buffers. Each top-level nest becomes one C function
`int32_t name(pointers…, int64_t sizes…, int64_t begin, int64_t end)`: a nest whose outermost loop is marked parallel
computes the slice [begin, end) of that loop, any other nest runs whole. Buffers that several nests share are
parameters, so that nothing is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir.transform import Sequential

from ...errors import InternalError
from ...schedules.walk import children, walk
from .memory import itemsize
from .program import Size
from .sizes import substitute

_STACK_BYTES = 256 << 10
"""Local buffers of one kernel may take this much of a thread's stack."""

_C_TYPES = {
    "float32": "float", "float64": "double", "float16": "_Float16", "bfloat16": "__bf16", "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip

_LANES = 32
"""Partial results of a reduction, on every ISA: the result is the same on all."""

_SPLITS = 8
"""How often, at most, an innermost loop is written twice for a choice that it would make in every step."""

_INFIX = {
    "Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%", "EQ": "==", "NE": "!=", "LT": "<", "LE": "<=",
    "GT": ">", "GE": ">=", "And": "&&", "Or": "||", "BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^",
    "LShift": "<<", "RShift": ">>",
}  # fmt: skip

_WRAPPING = ("+", "-", "*", "<<", ">>")

_INFIX_CALLS = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^", "shift_left": "<<", "shift_right": ">>"}


@dataclass(frozen=True)
class Temporary:
    """A buffer that several nests of one function share."""

    name: str
    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class CKernel:
    """One C function. `pointers` are ("param", index of the TIR function's parameter) or ("temp", index)."""

    symbol: str
    pointers: tuple[tuple[str, int], ...]
    n_outputs: int
    """The last so many pointers are written."""
    scalars: tuple[Any, ...]
    extent: Size
    grain: int
    text: str


@dataclass(frozen=True)
class CFunction:
    """A whole TIR function: its kernels in order, and what they share."""

    kernels: tuple[CKernel, ...]
    temporaries: tuple[Temporary, ...]


def lower_to_loops(function: tirx.PrimFunc, target: tvm.target.Target) -> tirx.PrimFunc:
    """Blocks to loops over flat buffers."""
    passes = [
        tirx.transform.BindTarget(target),
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        tirx.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        tirx.transform.CommonSubexprElim(),
    ]
    with target, tvm.ir.transform.PassContext(opt_level=3):
        module = Sequential(passes)(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    return module["main"]


def to_c(name: str, function: tirx.PrimFunc, target: tvm.target.Target) -> CFunction:
    """C text of a scheduled function; its kernels are called `name`, `name_1`, …"""
    return _Writer(name, lower_to_loops(function, target)).run()


@dataclass
class _Nest:
    """Top-level statements that run one after the other in one kernel."""

    statements: list[Any] = field(default_factory=list)
    parallel: bool = False


class _Writer:
    def __init__(self, name: str, function: tirx.PrimFunc) -> None:
        self.name = name
        self.params = list(function.params)
        self.body = function.body
        self.names: dict[Any, str] = {}
        self.used: set[str] = set()
        self.shared: list[Any] = []
        self.aliases: list[tuple[Any, Any]] = []
        self.bindings: list[tuple[Any, Any]] = []
        for param in self.params:
            if _is_buffer(param) and isinstance(param.ty.elem_offset, tirx.Var):
                self.bindings.append((param.ty.elem_offset, tirx.IntImm("int64", 0)))

        self.accumulators = _accumulators(self.body)

    def identity(self, store: Any) -> str | None:
        """What a reduction starts from. TVM takes the smallest finite number and the index -1: wrong for -inf."""
        if not _among(store.buffer, self.accumulators):
            return None
        dtype, value = _dtype(store.buffer.ty.dtype), store.value
        if isinstance(value, tirx.FloatImm) and abs(float(value)) == float(np.finfo(dtype).max):
            return _float_literal(math.copysign(math.inf, float(value)), dtype)
        if isinstance(value, tirx.IntImm) and int(value) == -1:
            return _int_literal(int(np.iinfo(dtype).max), dtype)
        return None

    def run(self) -> CFunction:
        nests = self._split(self.body)
        temporaries = tuple(
            Temporary(self._name(b), _dtype(b.ty.dtype), tuple(self._size(s) for s in b.ty.shape)) for b in self.shared
        )
        kernels = []
        for number, nest in enumerate(nests):
            symbol = self.name if number == 0 else f"{self.name}_{number}"
            kernels.append(self._kernel(symbol, nest))
        return CFunction(tuple(kernels), temporaries)

    def _split(self, body: Any) -> list[_Nest]:
        """Top-level loops; declarations before them are kept for all."""
        nests: list[_Nest] = []
        for statement in _flatten(body):
            kind = type(statement).__name__
            if kind == "AllocBuffer":
                self.shared.append(statement.buffer)
            elif kind == "DeclBuffer":
                self.aliases.append((statement.buffer, statement.data))
            elif kind in ("Bind", "LetStmt"):
                self.bindings.append((statement.var, statement.value))
            else:
                parallel = kind == "For" and statement.kind == tirx.ForKind.PARALLEL
                if parallel or not nests or nests[-1].parallel:
                    nests.append(_Nest(parallel=parallel))
                nests[-1].statements.append(statement)
        return nests

    def _kernel(self, symbol: str, nest: _Nest) -> CKernel:
        text = _Text(self)
        loop = nest.statements[0]
        if nest.parallel:
            text.range_loop(loop)
        else:
            for statement in nest.statements:
                text.statement(statement)
        pointers, parameters, aliases, n_outputs = self._pointers(text)
        scalars = sorted((v for v in text.free if not _is_buffer(v)), key=lambda v: v.name)
        scalars = [v for v in scalars if not any(v.same_as(b) for b, _ in self.bindings)]
        extent = self._size(loop.extent) if nest.parallel else 1
        arguments = [*parameters, *(f"int64_t {self._name(v)}" for v in scalars), "int64_t begin", "int64_t end"]
        head = f"int32_t {symbol}({', '.join(arguments)}) {{\n"
        body = "".join(f"    {line}\n" for line in [*aliases, *text.bound, *text.lines])
        grain = _grain(loop) if nest.parallel else 1
        body = head + body + "    return 0;\n}\n"
        return CKernel(symbol, tuple(pointers), n_outputs, tuple(scalars), extent, grain, body)

    def _pointers(self, text: _Text) -> tuple[list[tuple[str, int]], list[str], list[str], int]:
        """The parameters that a kernel needs, read ones first, its aliases of them, and how many it writes."""
        roots: list[Any] = []
        written = list(text.written)
        aliases = []
        wanted = [v for v in text.free if _is_buffer(v)]
        for alias, data in reversed(self.aliases):
            if _among(alias, wanted):
                root = _data_var(data)
                wanted.append(root)
                if _among(alias, written):
                    written.append(root)
                ctype = _C_TYPES[_dtype(alias.ty.dtype)]
                aliases.append(f"{ctype} *{self._name(alias)} = (void *){self._name(root)};")
        for var in wanted:
            if not _among(var, [a for a, _ in self.aliases]) and not _among(var, roots):
                roots.append(var)
        found = []
        for kind, pool in (("param", self.params), ("temp", self.shared)):
            for index, var in enumerate(pool):
                if _among(var, roots):
                    ctype = _C_TYPES[_dtype(var.ty.dtype)]
                    found.append((_among(var, written), (kind, index), f"{ctype} *restrict {self._name(var)}"))
        found.sort(key=lambda row: row[0])
        pointers, parameters = [row[1] for row in found], [row[2] for row in found]
        return pointers, parameters, aliases[::-1], sum(row[0] for row in found)

    def _size(self, size: Any) -> Size:
        """A size over the function's own dimensions: common subexpressions are named before the nests."""
        for var, value in reversed(self.bindings):
            if not isinstance(size, int) and any(var.same_as(node) for node in walk(size)):
                size = substitute(size, {var: value})
        return _plain(size)

    def _name(self, var: Any) -> str:
        """A unique C identifier."""
        if var not in self.names:
            base = "".join(c if c.isalnum() and c.isascii() else "_" for c in var.name)[-40:].strip("_") or "v"
            base = f"v{base}" if base[0].isdigit() else base
            name, count = f"{base}_", 0
            while name in self.used:
                count += 1
                name = f"{base}_{count}"
            self.used.add(name)
            self.names[var] = name
        return self.names[var]


class _Text:
    """The body of one kernel."""

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer
        self.lines: list[str] = []
        self.bound: list[str] = []
        self.depth = 0
        self.free: list[Any] = []
        self.local: set[Any] = set()
        self.natural: set[Any] = set()
        self.data: set[Any] = set()
        self.written: list[Any] = []
        self.touched: set[Any] = set()
        self.facts: list[tuple[Any, bool]] = []
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
            raise InternalError(f"{self.writer.name}: no C for TIR statement {type(s).__name__}")
        method(s)

    def _block(self, body: Any) -> None:
        self.depth += 1
        for s in _flatten(body):
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
        self._pieces(s, _C_TYPES[_dtype(s.loop_var.ty.dtype)], low, high)

    def _pieces(self, s: Any, ctype: str, low: str, high: str) -> None:
        """A loop; an innermost one makes choices outside of it that it would make alike in every step, or by counting.

        Concatenation and padding would not become copies otherwise: the C compiler leaves the choice in the loop.
        """
        body = _flatten(s.body)
        # An extent that its tiles do not divide: the last one ends earlier.
        guards, body = _guard(s.loop_var, body)
        for guard in guards:
            high = self._cut(low, high, guard.cut)
        leaf = _Leaf.of(s.loop_var, body)
        if leaf is None:
            name = self.writer._name(s.loop_var)
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

    def _piece(self, leaf: _Leaf, ctype: str, low: str, high: str) -> None:
        choice = self._choice(leaf) if self.splits else None
        if choice is None:
            name = self.writer._name(leaf.var)
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

    def _under(self, condition: Any, value: bool, leaf: _Leaf, ctype: str, low: str, high: str) -> None:
        """A piece in which a condition is known."""
        self.facts.append((condition, value))
        self.depth += 1
        self._piece(leaf, ctype, low, high)
        self.depth -= 1
        self.facts.pop()

    def _leaf_body(self, leaf: _Leaf) -> None:
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

    def _choice(self, leaf: _Leaf) -> _Choice | None:
        """A condition of a leaf that is the same in all its steps; else one that flips once."""
        varying = [leaf.var, *(b.var for b in leaf.moving)]
        found = None
        for value in (*(b.value for b in leaf.moving), leaf.store.value):
            for condition in self._open_conditions(value):
                choice = _choose(condition, varying, leaf.moving)
                if choice is not None and choice.cut is None:
                    return choice
                found = found or choice
        return found

    def _open_conditions(self, e: Any) -> Iterator[Any]:
        """Conditions of choices that are not made yet, without those in branches that are dead."""
        ternary = _ternary(e)
        if ternary is None:
            for child in children(e):
                yield from self._open_conditions(child)
            return
        condition, yes, no = ternary
        known = self._known(condition)
        if known is None:
            yield from (part for part in _conjuncts(condition) if self._known(part) is None)
        if known is not False:
            yield from self._open_conditions(yes)
        if known is not True:
            yield from self._open_conditions(no)

    def _known(self, condition: Any) -> bool | None:
        """What a condition is known to be in this piece of a loop."""
        for fact, value in self.facts:
            if tvm_ffi.structural_equal(fact, condition):
                return value
        parts = _conjuncts(condition)
        if len(parts) > 1:
            known = [self._known(part) for part in parts]
            return False if False in known else None if None in known else True
        return None

    def _reduce_in_lanes(self, loop: Any, reduction: LaneReduction) -> None:
        """x[i] = op(x[i], f(k)) over k: `_LANES` partial results, so that the loop is a vector loop on every ISA."""
        self.local.add(loop.loop_var)
        self.natural.add(loop.loop_var)
        name = self.writer._name(loop.loop_var)
        itype, extent = _C_TYPES[_dtype(loop.loop_var.ty.dtype)], self.expr(loop.extent)
        rows = []
        for number, part in enumerate(reduction.parts):
            self._touch(part.store.buffer)
            self.written.append(part.store.buffer)
            rows.append((f"lanes_{number}", part, self._element(part.store.buffer, part.store.indices)))

        self.emit("{")
        self.depth += 1
        self.emit(f"enum {{ LANES = {_LANES} }};")
        for lanes, part, _ in rows:
            self.emit(f"_Alignas(64) {_C_TYPES[part.dtype]} {lanes}[LANES];")
        self.emit(f"{itype} at = 0;")
        for lanes, part, _ in rows:
            start = {"Add": "0", "Max": "-__builtin_inf()", "Min": "__builtin_inf()"}[part.kind]
            self.emit(f"for (int lane = 0; lane < LANES; ++lane) {lanes}[lane] = ({_C_TYPES[part.dtype]}){start};")
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
        self.emit(f"const {_C_TYPES[_dtype(s.var.ty.dtype)]} {self.writer._name(s.var)} = {value};")

    _letstmt = _bind

    def _allocbuffer(self, s: Any) -> None:
        self.local.add(s.buffer)
        dtype = _dtype(s.buffer.ty.dtype)
        size = math.prod(_plain(d) for d in s.buffer.ty.shape)
        if not isinstance(size, int):
            raise InternalError(f"{self.writer.name}: a local buffer of dynamic size")
        self.stack += size * itemsize(dtype)
        if self.stack > _STACK_BYTES:
            raise InternalError(f"{self.writer.name}: local buffers of more than {_STACK_BYTES} bytes")
        self.emit(f"_Alignas(64) {_C_TYPES[dtype]} {self.writer._name(s.buffer)}[{max(size, 1)}];")

    def _declbuffer(self, s: Any) -> None:
        self.local.add(s.buffer)
        root = _data_var(s.data)
        self._touch(root)
        self.emit(
            f"{_C_TYPES[_dtype(s.buffer.ty.dtype)]} *{self.writer._name(s.buffer)} = (void *){self.writer._name(root)};"
        )

    def _bufferstore(self, s: Any) -> None:
        self._touch(s.buffer)
        self.written.append(s.buffer)
        value = self.writer.identity(s) or self.expr(s.value)
        self.emit(f"{self._element(s.buffer, s.indices)} = {value};")

    def _attrstmt(self, s: Any) -> None:
        for inner in _flatten(s.body):
            self.statement(inner)

    def _evaluate(self, s: Any) -> None:
        if not isinstance(s.value, tirx.IntImm):
            self.emit(f"(void){self.expr(s.value)};")

    def _assertstmt(self, s: Any) -> None:
        """Shapes were checked before the kernel runs."""

    # --- expressions --------------------------------------------------------------------------------------------------

    def _touch(self, var: Any) -> None:
        self.touched.add(var)
        if var not in self.local and not any(var.same_as(v) for v in self.free):
            for bound, value in self.writer.bindings:
                if bound.same_as(var):
                    self._bind_outer(var, value)
                    return
            self.free.append(var)

    def _bind_outer(self, var: Any, value: Any) -> None:
        """A binding made before the nests: repeated in every kernel that reads it."""
        text = self.expr(value)
        self.local.add(var)
        self._classify(var, value)
        self.bound.append(f"const {_C_TYPES[_dtype(var.ty.dtype)]} {self.writer._name(var)} = {text};")

    def _is_natural(self, e: Any) -> bool:
        """Whether an integer expression is surely not negative: then C's division is floor division."""
        kind = type(e).__name__
        if kind == "IntImm":
            return int(e) >= 0
        if isinstance(e, tirx.Var):
            return e in self.natural or (not _is_buffer(e) and e not in self.local)
        if kind in ("Add", "Mul", "Min"):
            return self._is_natural(e.a) and self._is_natural(e.b)
        if kind == "FloorMod":
            return self._is_natural(e.b)
        if kind in ("FloorDiv", "Div", "Mod"):
            return self._is_natural(e.a) and self._is_natural(e.b)
        if kind == "Max":
            return self._is_natural(e.a) or self._is_natural(e.b)
        if kind == "Cast":
            return self._is_natural(e.value)
        return False

    def expr(self, e: Any) -> str:
        """Any expression, fully parenthesised."""
        kind = type(e).__name__
        if kind == "IntImm":
            return _int_literal(int(e), _dtype(e.ty.dtype))
        if kind == "FloatImm":
            return _float_literal(float(e), _dtype(e.ty.dtype))
        if isinstance(e, tirx.Var):
            self._touch(e)
            return self.writer._name(e)
        if kind == "TensorLoad":
            self._touch(e.source)
            return self._element(e.source, e.indices)
        if kind in _INFIX:
            return self._infix(kind, e)
        if kind in ("FloorDiv", "FloorMod"):
            return self._floor(kind, e)
        if kind in ("Min", "Max"):
            return f"sparsec_{kind.lower()}_{_dtype(e.ty.dtype)}({self.expr(e.a)}, {self.expr(e.b)})"
        if kind == "Not":
            return f"(!{self.expr(e.a)})"
        if kind == "BitwiseNot":
            return self._inverted(e.a)
        if kind == "Select":
            return self._choose(e.condition, e.true_value, e.false_value)
        if kind == "Cast":
            return self._cast(e)
        if kind == "Let":
            return self._let(e)
        if kind == "Call":
            return self._call(e)
        raise InternalError(f"{self.writer.name}: no C for TIR expression {kind}")

    def _element(self, buffer: Any, indices: Any) -> str:
        """One element; an index that was computed from data is checked, for it may come from a model's input."""
        (index,) = indices
        text = self.expr(index)
        if self._is_data(index):
            text = f"SPARSEC_INDEX({text}, {self.expr(buffer.ty.shape[0])})"
        return f"{self.writer._name(buffer)}[{text}]"

    def _classify(self, var: Any, value: Any) -> None:
        """What is known of a variable, from the value it is bound to."""
        if self._is_natural(value):
            self.natural.add(var)
        if self._is_data(value):
            self.data.add(var)

    def _is_data(self, e: Any) -> bool:
        """Whether a value depends on elements of tensors, not on sizes and loop variables alone."""
        return any(type(node).__name__ == "TensorLoad" or node in self.data for node in walk(e))

    def _infix(self, kind: str, e: Any) -> str:
        if kind == "Mod" and _dtype(e.ty.dtype).startswith("float"):
            return f"sparsec_fmod_{_dtype(e.ty.dtype)}({self.expr(e.a)}, {self.expr(e.b)})"
        return self._arithmetic(_INFIX[kind], e.a, e.b)

    def _arithmetic(self, sign: str, a: Any, b: Any) -> str:
        """An operator of C on operands of one type: integers stay in their type and wrap around."""
        dtype = _dtype(a.ty.dtype)
        left, right = self.expr(a), self.expr(b)
        if "int" not in dtype or sign not in _WRAPPING:
            return f"({left} {sign} {right})"
        ctype = _C_TYPES[dtype]
        if (
            sign in ("<<", "+", "-", "*")
            and _is_signed(dtype)
            and (sign == "<<" or self._is_data(a) or self._is_data(b))
        ):
            # Signed overflow would be undefined; indices cannot overflow, and the compiler may use that.
            unsigned = _C_TYPES["u" + _wide(dtype)]
            return f"(({ctype})(({unsigned}){left} {sign} ({unsigned}){right}))"
        return f"({left} {sign} {right})" if dtype == _wide(dtype) else f"(({ctype})({left} {sign} {right}))"

    def _inverted(self, e: Any) -> str:
        dtype = _dtype(e.ty.dtype)
        return f"(!{self.expr(e)})" if dtype == "bool" else f"(({_C_TYPES[dtype]})~{self.expr(e)})"

    def _in_parentheses(self, e: Any) -> str:
        """A condition with one pair around it: compilers take two for a doubt about an assignment."""
        text = self.expr(e)
        return text if _is_enclosed(text) else f"({text})"

    def _floor(self, kind: str, e: Any) -> str:
        if self._is_natural(e.a) and self._is_natural(e.b):
            return f"({self.expr(e.a)} {'/' if kind == 'FloorDiv' else '%'} {self.expr(e.b)})"
        return f"sparsec_{kind.lower()}({self.expr(e.a)}, {self.expr(e.b)})"

    def _choose(self, condition: Any, yes: Any, no: Any) -> str:
        known = self._known(condition)
        if known is not None:
            return self.expr(yes if known else no)
        open_parts = [self.expr(part) for part in _conjuncts(condition) if self._known(part) is None]
        return f"({' && '.join(open_parts)} ? {self.expr(yes)} : {self.expr(no)})"

    def _cast(self, e: Any) -> str:
        to, value = _dtype(e.ty.dtype), self.expr(e.value)
        if to == "bool":
            return f"((uint8_t)({value} != 0))"
        return f"(({_C_TYPES[to]}){value})"

    def _let(self, e: Any) -> str:
        value = self.expr(e.value)
        self.local.add(e.var)
        name = self.writer._name(e.var)
        return f"({{ const {_C_TYPES[_dtype(e.var.ty.dtype)]} {name} = {value}; {self.expr(e.body)}; }})"

    def _call(self, e: Any) -> str:
        name = str(e.op.name).rpartition(".")[2]
        args = list(e.args)
        if name in ("call_pure_extern", "call_extern"):
            name, args = str(args[0].value), args[1:]
        if name == "if_then_else":
            return self._choose(*args)
        if name in ("likely", "assume", "ignore_loop_partition"):
            return self.expr(args[0])
        if name in _INFIX_CALLS:
            return self._arithmetic(_INFIX_CALLS[name], *args)
        if name == "bitwise_not":
            return self._inverted(args[0])
        if name == "reinterpret":
            return f"sparsec_bits_{_dtype(args[0].ty.dtype)}_{_dtype(e.ty.dtype)}({self.expr(args[0])})"
        dtype = _dtype(args[0].ty.dtype) if args else _dtype(e.ty.dtype)
        return f"sparsec_{name}_{dtype}({', '.join(self.expr(a) for a in args)})"


def _flatten(body: Any) -> list[Any]:
    """Statements in order, sequences opened."""
    if type(body).__name__ == "SeqStmt":
        return [s for part in body.seq for s in _flatten(part)]
    if type(body).__name__ == "AttrStmt":
        return _flatten(body.body)
    return [body]


@dataclass(frozen=True)
class _Choice:
    """A condition, and for one on the loop variable where it flips and what it is below."""

    condition: Any
    cut: Any = None
    below: bool = False


@dataclass(frozen=True)
class _Leaf:
    """An innermost loop that computes one element in every step."""

    var: Any
    fixed: list[Any]
    """Bindings that are the same in all steps."""
    moving: list[Any]
    store: Any

    @staticmethod
    def of(var: Any, body: list[Any]) -> _Leaf | None:
        """The loop over `var` as a leaf, if it is one."""
        *bindings, store = body
        if type(store).__name__ != "BufferStore" or any(type(b).__name__ != "Bind" for b in bindings):
            return None
        if any(type(node).__name__ == "Let" for s in (*bindings, store) for node in walk(s.value)):
            return None
        varying, fixed, moving = [var], [], []
        for binding in bindings:
            if _is_pure(binding.value) and not _mentions(binding.value, varying):
                fixed.append(binding)
            else:
                moving.append(binding)
                varying.append(binding.var)
        return _Leaf(var, fixed, moving, store)


def _guard(var: Any, body: list[Any]) -> tuple[list[_Choice], list[Any]]:
    """Conditions under which a loop body does anything and that hold up to some step; the body without them."""
    *bindings, last = body
    if type(last).__name__ != "IfThenElse" or last.else_case is not None:
        return [], body
    if any(type(b).__name__ != "Bind" or not _is_pure(b.value) for b in bindings):
        return [], body
    found, rest = [], []
    for part in _conjuncts(last.condition):
        choice = _choose(part, [var, *(b.var for b in bindings)], bindings)
        if choice is not None and choice.cut is not None and choice.below:
            found.append(choice)
        else:
            rest.append(part)
    if not found:
        return [], body
    inner = _flatten(last.then_case)
    if rest:
        inner = [tirx.IfThenElse(tirx.all(*rest), last.then_case, None)]
    return found, [*bindings, *inner]


def _is_pure(e: Any) -> bool:
    """Whether an expression may be evaluated where it would not have been."""
    return not any(type(node).__name__ in ("TensorLoad", "Call") for node in walk(e))


def _ternary(e: Any) -> tuple[Any, Any, Any] | None:
    """(condition, then, else) of a choice between values."""
    if type(e).__name__ == "Select":
        return e.condition, e.true_value, e.false_value
    if type(e).__name__ == "Call" and str(e.op.name).endswith(".if_then_else"):
        return tuple(e.args)
    return None


def _conjuncts(condition: Any) -> list[Any]:
    """The conditions that all have to hold."""
    if type(condition).__name__ == "And":
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    if type(condition).__name__ == "Call" and str(condition.op.name).endswith(".likely"):
        return _conjuncts(condition.args[0])
    return [condition]


def _choose(condition: Any, varying: list[Any], bindings: list[Any]) -> _Choice | None:
    """How to take a condition out of a loop over `varying[0]`, whose steps bind the other varying variables."""
    if not _is_pure(condition):
        return None
    if not _mentions(condition, varying):
        return _Choice(condition)
    kind = type(condition).__name__
    if kind not in ("LT", "LE", "GT", "GE"):
        return None
    below = kind in ("LT", "LE")
    left, right = condition.a, condition.b
    if not _mentions(left, varying):
        left, right, below = right, left, not below
    left = next((b.value for b in bindings if b.var.same_as(left)), left)
    shift: Any = 0
    if type(left).__name__ == "Sub" and not _mentions(left.b, varying):
        left, shift = left.a, -left.b
    elif type(left).__name__ == "Add":
        left, shift = (left.b, left.a) if _mentions(left.b, varying) else (left.a, left.b)
    if not isinstance(left, tirx.Var) or not left.same_as(varying[0]) or _mentions(right, varying):
        return None
    if not isinstance(shift, int) and _mentions(shift, varying):
        return None
    # below: v < cut or v <= cut - 1; above: v >= cut or v > cut - 1
    strict = kind in ("LT", "GT")
    return _Choice(condition, right - shift + (0 if strict == below else 1), below)


def _grain(loop: Any) -> int:
    """From the schedule's annotation; 1 where a loop step is a row or a tile."""
    annotation = loop.annotations.get("sparsec.grain")
    return 1 if annotation is None else int(annotation)


def _among(var: Any, pool: list[Any]) -> bool:
    return any(var.same_as(other) for other in pool)


@dataclass(frozen=True)
class _Part:
    """One value that a loop reduces: its operation, the store to it and what the loop adds."""

    kind: str
    store: Any
    operand: Any

    @property
    def dtype(self) -> str:
        """Of the accumulator."""
        return _dtype(self.store.buffer.ty.dtype)

    def update(self, into: str, value: str) -> str:
        """C statement."""
        if self.kind == "Add":
            return f"{into} = {into} + {value};"
        return f"{into} = sparsec_{self.kind.lower()}_{self.dtype}({into}, {value});"


@dataclass(frozen=True)
class LaneReduction:
    """A loop that does nothing but reduce float values, each into one place."""

    bindings: list[Any]
    parts: list[_Part]


def lane_reduction(loop: Any) -> LaneReduction | None:
    """What a loop reduces, if it does nothing else."""
    if loop.kind != tirx.ForKind.SERIAL or not isinstance(loop.min, tirx.IntImm) or int(loop.min) != 0:
        return None
    if isinstance(loop.extent, tirx.IntImm) and int(loop.extent) < _LANES:
        return None
    statements = _flatten(loop.body)
    bindings = [s for s in statements if type(s).__name__ == "Bind"]
    stores = statements[len(bindings) :]
    if not stores or any(type(s).__name__ != "BufferStore" for s in stores):
        return None
    results = [b for b in bindings if any(b.var.same_as(s.value) for s in stores)]
    bindings = [b for b in bindings if b not in results]
    moving = [loop.loop_var, *(b.var for b in bindings)]
    buffers = [s.buffer for s in stores]
    parts = []
    for store in stores:
        value = next((b.value for b in results if b.var.same_as(store.value)), store.value)
        kind, dtype = type(value).__name__, _dtype(store.buffer.ty.dtype)
        if kind not in ("Add", "Max", "Min") or dtype not in ("float32", "float64"):
            return None
        if _mentions(store.indices[0], [*moving, *buffers]) or not _is_load(value.a, store):
            return None
        if _mentions(value.b, [*buffers, *(b.var for b in results)]):
            return None
        parts.append(_Part(kind, store, value.b))
    if any(_mentions(b.value, buffers) for b in bindings):
        return None
    return LaneReduction(bindings, parts)


def _accumulators(body: Any) -> list[Any]:
    """Buffers whose elements become the larger or smaller of what they were and something else."""
    values = {node.var: node.value for node in walk(body) if type(node).__name__ == "Bind"}
    found = []
    for node in walk(body):
        if type(node).__name__ == "BufferStore":
            value = values.get(node.value, node.value) if isinstance(node.value, tirx.Var) else node.value
            kind = type(value).__name__
            if (kind in ("Max", "Min") and _is_load(value.a, node)) or (
                kind == "Select" and _is_load(value.true_value, node)
            ):
                found.append(node.buffer)
    return found


def _is_load(e: Any, store: Any) -> bool:
    """Whether an expression is what stands where a store writes."""
    return (
        type(e).__name__ == "TensorLoad"
        and e.source.same_as(store.buffer)
        and tvm_ffi.structural_equal(e.indices[0], store.indices[0])
    )


def _mentions(expr: Any, variables: list[Any]) -> bool:
    for node in walk(expr):
        if isinstance(node, tirx.Var) and _among(node, variables):
            return True
        if type(node).__name__ == "TensorLoad" and _among(node.source, variables):
            return True
    return False


def _plain(size: Any) -> Size:
    return int(size) if isinstance(size, int | tirx.IntImm) else size


def _dtype(ty: Any) -> str:
    return str(ty)


def _is_buffer(var: Any) -> bool:
    return type(var.ty).__name__ == "BufferType"


def _data_var(data: Any) -> Any:
    """The buffer whose memory an expression like `x.data` names."""
    if isinstance(data, tirx.Var):
        return data
    return _data_var(data.args[0])


def _is_enclosed(text: str) -> bool:
    """Whether the first parenthesis is closed by the last."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return place == len(text) - 1
    return False


def _is_signed(dtype: str) -> bool:
    return dtype.startswith("int")


def _wide(dtype: str) -> str:
    """The type in which C computes: at least 32 bits."""
    return dtype if dtype.endswith(("32", "64")) else f"{dtype.rstrip('0123456789')}32"


def _int_literal(value: int, dtype: str) -> str:
    if dtype == "bool":
        return str(int(value))
    bits = int(dtype.lstrip("uint"))
    if not _is_signed(dtype):
        return f"UINT64_C({value})" if bits == 64 else f"{value}u" if bits == 32 else str(value)
    if bits >= 32 and value == -(1 << bits - 1):
        return f"INT{bits}_MIN"
    text = f"INT64_C({value})" if bits == 64 and abs(value) >= 1 << 31 else str(value)
    return f"({text})" if value < 0 else text


def _float_literal(value: float, dtype: str) -> str:
    suffix = "" if dtype == "float64" else "f"
    if math.isnan(value):
        text = f'__builtin_nan{suffix}("")'
    elif math.isinf(value):
        text = f"({'-' if value < 0 else ''}__builtin_inf{suffix}())"
    else:
        text = f"{value.hex() if dtype == 'float64' else float(np.float32(value)).hex()}{suffix}"
    if dtype in ("float16", "bfloat16"):
        return f"(({_C_TYPES[dtype]}){text})"
    return f"({text})" if value < 0 else text
