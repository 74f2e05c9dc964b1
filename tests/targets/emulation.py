"""Artifacts for other CPUs, run by qemu's user-mode emulation (Debian: qemu-user)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx

import sparsec
from sparsec.compiler.target import TARGETS
from sparsec.runtime_stub.artifact import read_manifest

_RUNNER = Path(__file__).with_name("raw_run.c")
_COUNTER = Path(__file__).with_name("count_instructions.c")


@dataclass(frozen=True)
class Machine:
    """How one target's programs are linked, without a system of its own, and run."""

    target: str
    triple: str
    emulator: tuple[str, ...]

    @property
    def id(self) -> str:
        """For the names of tests."""
        return "-".join((self.target, *self.emulator[1:]))

    def missing(self) -> str | None:
        """Why it cannot be run here."""
        return None if shutil.which(self.emulator[0]) else f"{self.emulator[0]} is not installed (Debian: qemu-user)"


MACHINES = (
    Machine("x86-64", "x86_64-linux-musl", ("qemu-x86_64", "-cpu", "Nehalem")),
    Machine("avx2", "x86_64-linux-musl", ("qemu-x86_64", "-cpu", "Haswell")),
    Machine("aarch64", "aarch64-linux-musl", ("qemu-aarch64", "-cpu", "cortex-a53")),
    Machine("aarch64-dotprod", "aarch64-linux-musl", ("qemu-aarch64", "-cpu", "cortex-a76")),
    Machine("aarch64-i8mm", "aarch64-linux-musl", ("qemu-aarch64", "-cpu", "max")),
    Machine("armv7", "arm-linux-musleabihf", ("qemu-arm", "-cpu", "cortex-a9")),
    Machine("riscv64", "riscv64-linux-musl", ("qemu-riscv64",)),
    Machine("generic", "riscv64-linux-musl", ("qemu-riscv64",)),
)


class Program:
    """A model linked statically with a small main, for one machine."""

    def __init__(
        self, model: onnx.ModelProto, machine: Machine, folder: Path, emit: str = "a", **options: object
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.machine = machine
        archive = sparsec.build(
            model, target=machine.target, triple=machine.triple, emit=emit, output=folder / f"model.{emit}", **options
        )
        self.manifest = read_manifest(archive)
        self.path = folder / "run"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", machine.triple, "-static", "-O1", f"-I{folder}"]
        command += [str(_RUNNER), str(archive), "-lm", "-lpthread", "-o", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)

    @classmethod
    def checked(cls, model: onnx.ModelProto, machine: Machine, folder: Path, **options: object) -> Program:
        """The same from its C sources, killed by the first undefined behaviour.

        Clang's traps need no run-time library; of the sanitizers it is the one that emulation has room for.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tree = sparsec.build(
            model, target=machine.target, triple=machine.triple, emit="c", output=folder / "c", **options
        )
        program = cls.__new__(cls)
        program.machine, program.path = machine, folder / "run"
        program.manifest = json.loads((tree / "manifest.json").read_bytes())
        target = TARGETS[machine.target]
        files = sorted(file.name for file in tree.iterdir() if file.suffix in (".c", ".S"))
        command = [sys.executable, "-m", "ziglang", "cc", "-target", machine.triple, "-static", "-O1", "-std=gnu11"]
        command += [f"-mcpu={target.cpu.replace('-', '_')}{target.features.replace(',', '')}", "-Wno-unknown-pragmas"]
        command += ["-ffp-contract=off", "-fsanitize=undefined", "-fsanitize-trap=undefined", "-I.", *files]
        command += [str(_RUNNER), "-lm", "-lpthread", "-o", str(program.path)]
        subprocess.run(command, cwd=tree, check=True, capture_output=True)
        return program

    def run(self, inputs: Mapping[str, np.ndarray], size: int = 1, threads: int = 1) -> bytes:
        """The outputs' bytes, one after the other."""
        return self._call(self._bytes(inputs), str(size), str(threads)).stdout

    def instructions(self, inputs: Mapping[str, np.ndarray]) -> int:
        """How many one run on one thread executes, as qemu counts them."""
        counts = []
        for runs in ("1", "2"):
            done = self._call(self._bytes(inputs), "1", "1", runs, options=("-plugin", str(_counter())))
            counts.append(int(done.stderr.split(b"instructions:")[1]))
        return counts[1] - counts[0]

    def _bytes(self, inputs: Mapping[str, np.ndarray]) -> bytes:
        return b"".join(np.ascontiguousarray(inputs[row["name"]]).tobytes() for row in self.manifest["inputs"])

    def target(self) -> str:
        """The target whose kernels that machine gets."""
        return str(json.loads(self._call(b"", "manifest").stdout)["target"]["name"])

    def _call(self, given: bytes, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
        command = [*self.machine.emulator, *options, str(self.path), *arguments]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.machine.id}: exit {done.returncode}: {done.stderr.decode()}")
        return done


@cache
def _counter() -> Path:
    """The plugin for qemu that counts instructions."""
    path = Path(tempfile.mkdtemp(prefix="sparsec-qemu-")) / "count.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", str(_COUNTER), "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def native_targets() -> list[str]:
    """Targets that this machine runs itself."""
    from sparsec.compiler.target import host_features
    from sparsec.runtime_stub.cpu import host_machine

    return [
        name
        for name, row in TARGETS.items()
        if row.machine == host_machine() and host_features().issuperset(row.requires)
    ]
