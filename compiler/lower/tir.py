"""TIR functions, scheduled and written as C units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import tirx

from ...errors import InternalError
from ...schedules import UNSCHEDULED, schedule
from .c_source import CFunction, to_c
from .c_types import C_TYPES
from .program import KernelSource

_FUNCTIONS_PER_UNIT = 16
"""Units compile side by side, but each pays for starting the compiler."""


@dataclass(frozen=True)
class TirFunction:
    """A compiled function: its kernels in order, and the names of the rules that scheduled it."""

    code: CFunction
    rule: str


@dataclass(frozen=True)
class Compiled:
    """All functions by name, and the C units that define their kernels."""

    functions: Mapping[str, TirFunction]
    sources: tuple[KernelSource, ...]


def _compile(symbol: str, function: tirx.PrimFunc, target: tvm.target.Target) -> TirFunction:
    scheduled, rule = schedule(function)
    try:
        return TirFunction(to_c(symbol, scheduled, target), rule)
    except InternalError:
        # A schedule may ask for more local memory than a kernel has, or for an amount known only at run time.
        return TirFunction(to_c(symbol, function, target), UNSCHEDULED)


def compile_functions(functions: Mapping[str, tirx.PrimFunc]) -> Compiled:
    """Schedules and prints every function; kernels are named `sparsec_k_<name>`, `sparsec_k_<name>_1`, …"""
    # the C is the same for every machine, whichever is named here
    tvm_target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu"})
    done = {}
    for name, function in functions.items():
        done[name] = _compile(f"sparsec_k_{name}", function, tvm_target)
    texts = ["".join(kernel.text + "\n" for kernel in f.code.kernels) for f in done.values()]
    sources = []
    for start in range(0, len(texts), _FUNCTIONS_PER_UNIT):
        text = "".join(texts[start : start + _FUNCTIONS_PER_UNIT])
        head = f"#define SPARSEC_USES_BFLOAT16\n{_HEAD}" if C_TYPES["bfloat16"] in text else _HEAD
        sources.append(KernelSource(f"tir_{start // _FUNCTIONS_PER_UNIT:02d}", head + text))
    return Compiled(done, tuple(sources))


_HEAD = '#include "scalar_math.h"\n\n'
