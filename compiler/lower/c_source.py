"""Scheduled TIR to C, as plain kernels.

After scheduling, a TIR function is a few loop nests over flat buffers. Each top-level nest becomes one C function
`int32_t name(pointers…, int64_t sizes…, int64_t begin, int64_t end)`: a nest whose outermost loop is marked parallel
computes the slice [begin, end) of that loop, any other nest runs whole. Buffers that several nests share are
parameters, so that nothing is allocated. The nests' bodies are written by c_statements.py and c_expressions.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.ir.transform import Sequential

from ...schedules.walk import walk
from .c_statements import KernelText
from .c_types import C_TYPES, float_literal, int_literal
from .program import Size
from .sizes import substitute
from .tir_loops import accumulators
from .tir_nodes import among, data_var, dtype_of, flatten, is_buffer, plain


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
            if is_buffer(param) and isinstance(param.ty.elem_offset, tirx.Var):
                self.bindings.append((param.ty.elem_offset, tirx.IntImm("int64", 0)))

        self.accumulators = accumulators(self.body)

    def identity(self, store: Any) -> str | None:
        """What a reduction starts from. TVM takes the smallest finite number and the index -1: wrong for -inf."""
        if not among(store.buffer, self.accumulators):
            return None
        dtype, value = dtype_of(store.buffer.ty.dtype), store.value
        if isinstance(value, tirx.FloatImm) and abs(float(value)) == float(ml_dtypes.finfo(dtype).max):
            return float_literal(math.copysign(math.inf, float(value)), dtype)
        if isinstance(value, tirx.IntImm) and int(value) == -1:
            return int_literal(int(np.iinfo(dtype).max), dtype)
        return None

    def run(self) -> CFunction:
        nests = self._split(self.body)
        temporaries = tuple(
            Temporary(self.name_of(b), dtype_of(b.ty.dtype), tuple(self._size(s) for s in b.ty.shape))
            for b in self.shared
        )
        kernels = []
        for number, nest in enumerate(nests):
            symbol = self.name if number == 0 else f"{self.name}_{number}"
            kernels.append(self._kernel(symbol, nest))
        return CFunction(tuple(kernels), temporaries)

    def _split(self, body: Any) -> list[_Nest]:
        """Top-level loops; declarations before them are kept for all."""
        nests: list[_Nest] = []
        for statement in flatten(body):
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
        text = KernelText(self)
        loop = nest.statements[0]
        if nest.parallel:
            text.range_loop(loop)
        else:
            for statement in nest.statements:
                text.statement(statement)
        pointers, parameters, aliases, n_outputs = self._pointers(text)
        scalars = sorted((v for v in text.free if not is_buffer(v)), key=lambda v: v.name)
        scalars = [v for v in scalars if not any(v.same_as(b) for b, _ in self.bindings)]
        extent = self._size(loop.extent) if nest.parallel else 1
        arguments = [*parameters, *(f"int64_t {self.name_of(v)}" for v in scalars), "int64_t begin", "int64_t end"]
        head = f"int32_t {symbol}({', '.join(arguments)}) {{\n"
        body = "".join(f"    {line}\n" for line in [*aliases, *text.bound, *text.lines])
        grain = _grain(loop) if nest.parallel else 1
        body = head + body + "    return 0;\n}\n"
        return CKernel(symbol, tuple(pointers), n_outputs, tuple(scalars), extent, grain, body)

    def _pointers(self, text: KernelText) -> tuple[list[tuple[str, int]], list[str], list[str], int]:
        """The parameters that a kernel needs, read ones first, its aliases of them, and how many it writes."""
        roots: list[Any] = []
        written = list(text.written)
        aliases = []
        wanted = [v for v in text.free if is_buffer(v)]
        for alias, data in reversed(self.aliases):
            if among(alias, wanted):
                root = data_var(data)
                wanted.append(root)
                if among(alias, written):
                    written.append(root)
                ctype = C_TYPES[dtype_of(alias.ty.dtype)]
                aliases.append(f"{ctype} *{self.name_of(alias)} = (void *){self.name_of(root)};")
        for var in wanted:
            if not among(var, [a for a, _ in self.aliases]) and not among(var, roots):
                roots.append(var)
        found = []
        for kind, pool in (("param", self.params), ("temp", self.shared)):
            for index, var in enumerate(pool):
                if among(var, roots):
                    ctype = C_TYPES[dtype_of(var.ty.dtype)]
                    found.append((among(var, written), (kind, index), f"{ctype} *restrict {self.name_of(var)}"))
        found.sort(key=lambda row: row[0])
        pointers, parameters = [row[1] for row in found], [row[2] for row in found]
        return pointers, parameters, aliases[::-1], sum(row[0] for row in found)

    def _size(self, size: Any) -> Size:
        """A size over the function's own dimensions: common subexpressions are named before the nests."""
        for var, value in reversed(self.bindings):
            if not isinstance(size, int) and any(var.same_as(node) for node in walk(size)):
                size = substitute(size, {var: value})
        return plain(size)

    def name_of(self, var: Any) -> str:
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


def _grain(loop: Any) -> int:
    """From the schedule's annotation; 1 where a loop step is a row or a tile."""
    annotation = loop.annotations.get("sparsec.grain")
    return 1 if annotation is None else int(annotation)
