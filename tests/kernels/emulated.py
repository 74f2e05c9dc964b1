"""Kernel calls for AArch64, compiled as an artifact would have them and run by qemu on numpy arrays."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen_templates.use import Code, KernelUse, Operand, Packed, Temp
from sparsec.compiler.emit.code.aarch64 import encode
from sparsec.compiler.emit.toolchain import kernel_flags
from sparsec.compiler.target import TARGETS

CPUS = {"aarch64": "cortex-a53", "aarch64-dotprod": "cortex-a76", "aarch64-i8mm": "max"}
"""Target -> the least CPU of qemu's that has what it requires."""
_FOLDER = Path(tempfile.mkdtemp(prefix="sparsec-emulated-"))
_EMULATOR = "qemu-aarch64"
_MAIN = Path(__file__).with_name("run_calls.c")
Array = np.ndarray


def emulated_targets(fits: Callable[[str], bool] = lambda isa: True) -> list:
    """One pytest parameter per AArch64 target whose ISA fits, skipped where qemu is not installed."""
    missing = [] if shutil.which(_EMULATOR) else [pytest.mark.skip(reason=f"{_EMULATOR} is not installed")]
    return [pytest.param(TARGETS[name], id=name, marks=missing) for name in CPUS if fits(TARGETS[name].isa)]


@cache
def _program(target_name: str, texts: tuple[tuple[str, str], ...], symbols: tuple[str, ...]) -> Path:
    """A static program that reads arrays and calls and writes what the arrays are then."""
    target = TARGETS[target_name]
    folder = _FOLDER / hashlib.sha256(repr((target_name, texts, symbols)).encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    for file in resources.files("sparsec.codegen_templates").iterdir():
        if file.name.endswith(".h"):
            (folder / file.name).write_text(file.read_text())
    for name, text in texts:
        (folder / f"{name}.c").write_text(text)
    table = [f"extern int32_t {symbol}(SLOTS);" for symbol in symbols]
    table.append(f"static const function FUNCTIONS[] = {{{', '.join(symbols)}}};")
    (folder / "functions.h").write_text("\n".join(table) + "\n")
    shutil.copy(_MAIN, folder / "main.c")
    flags = kernel_flags(target)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-fno-sanitize=undefined"]
    objects = [f"{name}.o" for name, _ in texts]
    for name, _ in texts:  # apart from the program: these flags would make a C library of their own
        _run([*zig, *flags, "-Wall", "-Werror", "-Wno-unused-function", "-c", f"{name}.c", "-o", f"{name}.o"], folder)
    _run([*zig, "-static", "-O1", "main.c", *objects, "-lm", "-o", "run"], folder)
    return folder / "run"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_emulated(
    target,
    uses: list[KernelUse],
    operands: list[Array],
    outputs: Sequence[tuple[tuple[int, ...], str]],
    cuts: int = 3,
    emulator: Sequence[str] = (),
) -> tuple[list[Array], int, str]:
    """(outputs, status, what the emulator prints) of the calls, each range cut into `cuts` slices run last to first."""
    calls = []
    for number, use in enumerate(uses):
        units = -(-int(use.extent) // use.grain)
        edges = [min(units * i // cuts * use.grain, int(use.extent)) for i in range(cuts + 1)]
        calls += [(number, begin, end) for begin, end in reversed(list(pairwise(edges))) if begin < end]
    texts = {unit.name: unit.text for use in uses for unit in use.sources}
    symbols = tuple(dict.fromkeys(use.symbol for use in uses))
    program = _program(target.name, tuple(sorted(texts.items())), symbols)
    arrays: list[Array] = []
    codes: list[int] = []
    placed: dict[object, int] = {}

    def place(pointer) -> int:
        if isinstance(pointer, Code):
            key, make = ("code", id(pointer.pattern)), lambda: np.frombuffer(encode(pointer.pattern), np.uint8)
        elif isinstance(pointer, Operand):
            key, make = ("operand", pointer.index), lambda: operands[pointer.index]
        elif isinstance(pointer, Packed):
            key, make = ("packed", id(pointer.array)), lambda: pointer.array
        elif isinstance(pointer, Temp):
            key, make = ("temp", pointer.key), lambda: np.full(tuple(map(int, pointer.shape)), 77, pointer.dtype)
        else:
            shape, dtype = outputs[pointer.index]
            key, make = ("output", pointer.index), lambda: np.full(shape, 77, dtype)
        if key not in placed:
            placed[key] = len(arrays)
            arrays.append(np.ascontiguousarray(make()))
            codes.append(int(key[0] == "code"))
        return placed[key]

    words: list[int] = []
    for number, begin, end in calls:
        use = uses[number]
        arguments = [value for p in use.pointers for value in (0, place(p))]
        arguments += [value for s in (*use.scalars, begin, end) for value in (1, int(s))]
        words += [symbols.index(use.symbol), len(arguments) // 2, *arguments]
    head = [len(arrays), *(v for a, code in zip(arrays, codes, strict=True) for v in (a.nbytes, code))]
    head += [len(calls), len(words), *words]
    given = np.asarray([len(head), *head], np.int64).tobytes() + b"".join(a.tobytes() for a in arrays)
    command = [_EMULATOR, "-cpu", CPUS[target.name], *emulator, str(program)]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr.decode()}"
    status = int(np.frombuffer(done.stdout[:8], np.int64)[0])
    found, at = [], 8
    for array in arrays:
        found.append(np.frombuffer(done.stdout[at : at + array.nbytes], array.dtype).reshape(array.shape))
        at += array.nbytes
    return [found[placed["output", i]] for i in range(len(outputs))], status, done.stderr.decode()
