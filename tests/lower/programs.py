"""From Relax operators to C to arrays: a build's stages from `legalize` to `lower`, and an interpreter of the steps."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from sparsec.compiler.emit.toolchain import kernel_flags
from sparsec.compiler.graph import Graph
from sparsec.compiler.lower.build_program import build_program
from sparsec.compiler.lower.program import Buffer, Constant, Dim, KernelSource, Program
from sparsec.compiler.lower.sizes import evaluate
from sparsec.compiler.passes.legalize import fuse_tir, legalize
from sparsec.compiler.target import Target, resolve

TARGET = resolve("native")
GUARD = 256
"""Bytes after every array that no kernel may write."""


class StepError(Exception):
    """A kernel returned a status other than 0."""


def lowered(
    build: Callable[..., Any],
    inputs: Mapping[str, tuple[tuple[Any, ...], str]],
    upper: int = 16,
    target: Target = TARGET,
) -> Program:
    """The program of `build(*inputs)`; a dimension given as a string is symbolic, between 1 and `upper`."""
    symbols: dict[str, tirx.Var] = {}

    def dim(size: Any) -> Any:
        return symbols.setdefault(size, tirx.Var(size, "int64")) if isinstance(size, str) else size

    builder = relax.BlockBuilder()
    params = [relax.Var(n, relax.TensorType([dim(s) for s in shape], dtype)) for n, (shape, dtype) in inputs.items()]
    with builder.function("main", params):
        with builder.dataflow():
            result = build(*params)
            if isinstance(result, tuple):
                result = relax.Tuple([builder.emit(r) for r in result])
            out = builder.emit_output(result)
        builder.emit_func_output(out)
    graph = fuse_tir(legalize(Graph(builder.get(), {p.name: p.name for p in params})))
    n_outputs = len(result.fields) if isinstance(result, relax.Tuple) else _width(out)
    dims = tuple(Dim(name, 1, upper) for name in symbols)
    return build_program(graph, dims, [f"out{i}" for i in range(n_outputs)], target)


def _width(out: relax.Var) -> int:
    return len(out.ty.fields) if isinstance(out.ty, relax.TupleType) else 1


def compiled(sources: list[KernelSource], folder: Path, target: Target = TARGET) -> ctypes.CDLL:
    """The units with the flags of a real build, warnings as errors, as one library."""
    folder.mkdir(parents=True, exist_ok=True)
    header = resources.files("sparsec.codegen_templates") / "scalar_math.h"
    (folder / "scalar_math.h").write_text(header.read_text())
    names = []
    for source in sources:
        names.append(f"{source.name}.c")
        (folder / names[-1]).write_text(source.text)
    flags = kernel_flags(target)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, *flags, "-fPIC", "-shared", "-Wall"]
    command += ["-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-function", "-fno-sanitize=undefined"]
    done = subprocess.run(
        [*command, *names, "-lm", "-o", "kernels.so"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "kernels.so"))


def run(
    program: Program, library: ctypes.CDLL, arrays: Mapping[str, np.ndarray], cuts: int = 1, poison: int = 0xA5
) -> list[np.ndarray]:
    """The outputs. Every range is cut into `cuts` pieces, last first; memory starts as `poison` and is guarded."""
    values: dict[str, int] = {}
    for buffer in program.inputs:
        for formal, actual in zip(buffer.shape, arrays[buffer.name].shape, strict=True):
            if isinstance(formal, tirx.Var):
                assert values.setdefault(str(formal.name), actual) == actual
    memory: dict[int, np.ndarray] = {}
    guarded: list[tuple[np.ndarray, int]] = []

    def raw(nbytes: int) -> np.ndarray:
        whole = np.full(nbytes + GUARD + 64, poison, np.uint8)
        start = -whole.ctypes.data % 64
        guarded.append((whole, start + nbytes))
        return whole[start : start + nbytes]

    def place(pointer: Buffer | Constant) -> np.ndarray:
        if isinstance(pointer, Constant):
            return np.ascontiguousarray(pointer.data)
        root = pointer.id
        while root in program.aliases:
            root = program.aliases[root]
        shape = [evaluate(s, values) for s in pointer.shape]
        if root not in memory:
            memory[root] = raw(int(np.prod(shape, dtype=np.int64)) * np.dtype(pointer.dtype).itemsize)
        return memory[root].view(pointer.dtype).reshape(shape)

    for buffer in program.inputs:
        place(buffer)[...] = arrays[buffer.name]
    for step in program.steps:
        held = [place(p) for p in step.pointers]
        before = [h.copy() for h in held[: len(held) - step.n_outputs]]
        extent = evaluate(step.extent, values)
        units = -(-extent // step.grain)
        edges = [min(units * i // cuts * step.grain, extent) for i in range(cuts + 1)]
        arguments = [ctypes.c_void_p(h.ctypes.data) for h in held]
        arguments += [ctypes.c_int64(evaluate(s, values)) for s in step.scalars]
        for begin, end in reversed(list(pairwise(edges))):
            if begin < end:
                status = library[step.symbol](*arguments, ctypes.c_int64(begin), ctypes.c_int64(end))
                if status:
                    raise StepError(f"{step.symbol} returned {status}")
        for array, copy in zip(held, before, strict=False):
            assert array.tobytes() == copy.tobytes(), f"{step.symbol} writes an operand that it declares as read"
    for whole, end in guarded:
        assert (whole[end:] == poison).all(), "bytes after an array were written"
    return [place(b).copy() for b in program.outputs]


def texts(program: Program) -> str:
    """All C of a program, for messages."""
    return "\n".join(source.text for source in program.sources)


def const(value: Any, dtype: str = "float32") -> tvm.ir.GenericConst:
    """A Relax constant."""
    return relax.const(np.array(value, dtype), dtype)
