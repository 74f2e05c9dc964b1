"""Compiles kernel calls as an artifact would and runs them on numpy arrays, cut into uneven slices."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from emulated import run_emulated

from sparsec.codegen_templates.catalogue import has
from sparsec.codegen_templates.pattern import PatternCode
from sparsec.codegen_templates.use import AnyCode, Code, KernelUse, Operand, Packed, Temp
from sparsec.compiler.emit.code.x86 import encode
from sparsec.compiler.emit.toolchain import kernel_flags
from sparsec.compiler.target import TARGETS, Target, host_features
from sparsec.runtime_stub.cpu import host_machine

_FOLDER = Path(tempfile.mkdtemp(prefix="sparsec-kernels-"))
_GUARD = 64
"""Bytes around every array that a kernel must not touch."""


def host_targets() -> list:
    """One pytest parameter per target; those that this CPU cannot run are skipped, saying so."""
    rows = []
    for target in TARGETS.values():
        fits = target.machine == host_machine() and _runs(target)
        marks = [] if fits else [pytest.mark.skip(reason=f"this CPU does not have {target.name}")]
        rows.append(pytest.param(target, id=target.name, marks=marks))
    return rows


def tile_targets(family: str = "panels") -> list:
    """Those with kernels of 16 columns, a family of them."""
    return [p for p in host_targets() if p.values[0].has_tiles and has(family, p.values[0].isa)]


def _runs(target: Target) -> bool:
    return _in_evex(target) or host_features().issuperset(target.requires)


def _in_evex(target: Target) -> bool:
    """Whether what this CPU lacks of a target is AVX-VNNI alone: its instructions have a form with AVX-512's prefix."""
    missing = set(target.requires) - host_features()
    return missing == {"avxvnni"} and host_features() >= {"avx512vnni", "avx512vl"}


@cache
def _library(target_name: str, texts: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    target = TARGETS[target_name]
    digest = hashlib.sha256(repr((target_name, texts)).encode()).hexdigest()[:16]
    folder = _FOLDER / digest
    folder.mkdir(exist_ok=True)
    for file in resources.files("sparsec.codegen_templates").iterdir():
        if file.name.endswith(".h"):
            (folder / file.name).write_text(file.read_text())
    names = []
    for name, text in texts:
        (folder / f"{name}.c").write_text(text)
        names.append(f"{name}.c")
    flags = list(kernel_flags(target))
    if {"amxtile", "amxint8"} & (set(target.requires) - host_features()):
        flags.append(f'-DSPARSEC_TILES_IN_C="{Path(__file__).with_name("tiles_in_c.h")}"')
    if _in_evex(target):
        names, flags = _evex_forms(folder, target, flags, names), ["-mcpu=x86_64_v4+avx512vnni"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, *flags, "-fPIC", "-shared", "-Wall"]
    command += ["-Werror", "-Wno-unused-function", "-fno-sanitize=undefined", *names, "-lm", "-o", "kernels.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "kernels.so"))


def _evex_forms(folder: Path, target: Target, flags: list[str], names: list[str]) -> list[str]:
    """Assembler texts of C units, with the products of AVX-VNNI as AVX-512 has them."""
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple]
    for name in names:
        command = [*zig, *flags, "-fPIC", "-fno-sanitize=undefined", "-S", name, "-o", f"{name}.s"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        text = (folder / f"{name}.s").read_bytes()  # strings of constants are no UTF-8
        (folder / f"{name}.s").write_bytes(text.replace(b"{vex}", b"{evex}"))
    return [f"{name}.s" for name in names]


class Executable:
    """Pattern code in memory that may be executed."""

    def __init__(self, code: bytes) -> None:
        self.memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(code)
        self.array = np.frombuffer(self.memory, np.uint8)


class Guarded:
    """An array with bytes of a known value on both sides."""

    def __init__(self, shape: tuple[int, ...], dtype: str, value: np.ndarray | None = None) -> None:
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        raw = np.full(count + 3 * _GUARD, 0xA5, np.uint8)
        start = -raw.ctypes.data % 64 + _GUARD
        self._before, self._after = raw[:start], raw[start + count :]
        self.array = raw[start : start + count].view(dtype).reshape(shape)
        if value is not None:
            self.array[...] = value

    def check(self) -> None:
        """Fails when a byte around the array was written."""
        assert (self._before == 0xA5).all(), "bytes before the array were written"
        assert (self._after == 0xA5).all(), "bytes after the array were written"


def run_uses(
    target,
    uses: list[KernelUse],
    operands: list[np.ndarray],
    shape: tuple[int, ...],
    dtype: str = "float32",
    cuts: int = 3,
) -> tuple[np.ndarray, int]:
    """(output, status) of the calls, each range cut into `cuts` slices run last to first."""
    (out,), status = run_outputs(target, uses, operands, [(shape, dtype)], cuts)
    return out, status


def run_outputs(
    target,
    uses: list[KernelUse],
    operands: list[np.ndarray],
    outputs: list[tuple[tuple[int, ...], str]],
    cuts: int = 3,
) -> tuple[list[np.ndarray], int]:
    """As `run_uses`, for calls with any number of outputs: their shapes and types are given."""
    if target.machine != host_machine():
        found, status, _ = run_emulated(target, uses, operands, outputs, cuts)
        return found, status
    bound = Bound(target, uses, operands, outputs)
    status = 0
    for use, call in zip(uses, bound.calls, strict=True):
        units = -(-int(use.extent) // use.grain)
        edges = [min(units * i // cuts * use.grain, int(use.extent)) for i in range(cuts + 1)]
        for begin, end in reversed(list(pairwise(edges))):
            if begin < end:
                status |= call(begin, end)
    bound.check()
    return [out.array for out in bound.outputs], status


class Bound:
    """Kernel calls with the memory they work on: `calls` has for each a function of the range to compute."""

    def __init__(
        self,
        target,
        uses: list[KernelUse],
        operands: list[np.ndarray],
        outputs: list[tuple[tuple[int, ...], str]],
    ) -> None:
        self._isa = f"{target.isa}-evex" if _in_evex(target) else target.isa
        texts = {unit.name: unit.text for use in uses for unit in use.sources}
        self._library = _library(target.name, tuple(sorted(texts.items())))
        self._operands = [Guarded(o.shape, str(o.dtype), o) for o in operands]
        self.outputs = [Guarded(shape, dtype) for shape, dtype in outputs]
        self._temps: dict[str, Guarded] = {}
        self._packed: dict[int, Guarded] = {}
        self._codes: dict[int, Executable] = {}
        self.calls = [self._call(use) for use in uses]

    def _call(self, use: KernelUse) -> Callable[[int, int], int]:
        function = self._library[use.symbol]
        pointers = [ctypes.c_void_p(self._place(p).array.ctypes.data) for p in use.pointers]
        arguments = [*pointers, *(ctypes.c_int64(int(s)) for s in use.scalars)]
        return lambda begin, end: function(*arguments, ctypes.c_int64(begin), ctypes.c_int64(end))

    def _place(self, pointer) -> Guarded | Executable:
        if isinstance(pointer, Code):
            if id(pointer.pattern) not in self._codes:
                self._codes[id(pointer.pattern)] = Executable(encode(self._form(pointer.pattern)))
            return self._codes[id(pointer.pattern)]
        if isinstance(pointer, Operand):
            return self._operands[pointer.index]
        if isinstance(pointer, Packed):
            array = pointer.array
            return self._packed.setdefault(id(array), Guarded(array.shape, str(array.dtype), array))
        if isinstance(pointer, Temp):
            return self._temps.setdefault(pointer.key, Guarded(tuple(map(int, pointer.shape)), pointer.dtype))
        return self.outputs[pointer.index]

    def _form(self, code: AnyCode) -> AnyCode:
        return replace(code, isa=self._isa) if isinstance(code, PatternCode) else code

    def check(self) -> None:
        """Fails when a byte around an array was written."""
        for guarded in (*self._operands, *self._temps.values(), *self._packed.values(), *self.outputs):
            guarded.check()
