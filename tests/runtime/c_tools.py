"""C compilers and processes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import sparsec
from sparsec import runtime_stub

ROOT = Path(sparsec.__path__[0])
HEADERS = Path(runtime_stub.__path__[0])
EXAMPLE = ROOT / "examples" / "c" / "run.c"
FUNCTIONS = {
    "abi_version", "model_open", "model_close", "manifest", "input_count", "output_count", "input_description",
    "output_description", "workspace_bytes", "context_create", "context_destroy", "prepare", "output_shape", "run",
    "message", "state_reset", "state_get", "state_set",
}  # fmt: skip
"""What an artifact exports, without the prefix."""
CPU_FEATURES = re.findall(r'X\((\w+), *"(.*)"\)', (HEADERS / "cpu.h").read_text())
"""(name in C, name in the manifest), in the order of their numbers."""
STRICT_C99 = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1")
STRICT_CPP = ("-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1")

ZIG = (sys.executable, "-m", "ziglang")
COMPILERS: dict[str, Sequence[str]] = {"zig": (*ZIG, "cc"), "gcc": ("gcc",)}
CPP_COMPILERS: dict[str, Sequence[str]] = {"zig": (*ZIG, "c++"), "g++": ("g++",)}


def compiler_parameters(compilers: Mapping[str, Sequence[str]]) -> list:
    """One pytest parameter per compiler; those that are not installed are skipped, saying so."""
    rows = []
    for name, command in compilers.items():
        marks = [] if shutil.which(command[0]) else [pytest.mark.skip(reason=f"{command[0]} is not installed")]
        rows.append(pytest.param(command, id=name, marks=marks))
    return rows


def run(command: Sequence[object], cwd: Path, environment: Mapping[str, str] | None = None, status: int = 0) -> str:
    """What a command prints that must end with `status`."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == status, f"{command} ended with {done.returncode}\n{done.stdout}"
    return done.stdout


def python(script: str, *args: object, cwd: Path) -> str:
    """What a Python script prints in a process of its own."""
    return run([sys.executable, "-c", script, *args], cwd)


def feature_numbers(*features: str) -> bytes:
    """An artifact's table of what a target needs of the CPU."""
    ids = [text for _, text in CPU_FEATURES]
    return struct.pack(f"<{len(features)}Q", *(ids.index(f) for f in features))
