"""The C compiler, assembler and linker: clang and lld as `zig` packages them, the same on every host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ...errors import ToolchainError
from ..target import Target
from .object_cache import ObjectCache

_WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function")
# No unwind tables, debug data or stack probes in an artifact; the sanitizers that zig adds by default are for -O0 C.
_COMMON = (
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-sanitize=undefined",
    "-fno-stack-protector",
    "-g0",
)


@dataclass(frozen=True)
class Unit:
    """A file to be compiled or assembled inside the build folder."""

    source: str
    flags: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        """Name of the relocatable object it becomes."""
        return Path(self.source).stem + ".o"


class Toolchain:
    """Runs the tools inside one build folder.

    Raises:
        ToolchainError: a tool failed; the text holds the first lines that it printed.
    """

    def __init__(self, folder: Path, target: Target, jobs: int) -> None:
        self.folder = folder
        self.target = target
        self.jobs = jobs
        self.cache = ObjectCache.default()
        # A cache of its own: the shared one would keep a copy of every model's weights.
        self._env = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")}

    def run(self, *args: str) -> None:
        """`zig ARGS…`, quietly."""
        command = [sys.executable, "-m", "ziglang", *args]
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=self._env, capture_output=True, text=True, check=False
            )  # fmt: skip
        except OSError as error:
            raise ToolchainError(f"zig cannot be started: {error}") from error
        if done.returncode:
            head = "\n".join((done.stderr or done.stdout).strip().splitlines()[:12])
            raise ToolchainError(f"zig {args[0]} failed for {self.target.triple} (exit {done.returncode}):\n{head}")

    def compile(self, units: Sequence[Unit]) -> list[str]:
        """Objects of all units, `jobs` at a time, in the order given."""
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            list(pool.map(self._compile_one, units))
        return [unit.object for unit in units]

    def _compile_one(self, unit: Unit) -> None:
        is_c = unit.source.endswith(".c")
        flags = ("-target", self.target.triple, *_COMMON, *(_WARNINGS if is_c else ()), *unit.flags)
        key = self._key(unit, flags) if is_c else None
        if key is not None and self.cache.fetch(key, self.folder / unit.object):
            return
        self.run("cc", *flags, "-c", unit.source, "-o", unit.object)
        if key is not None:
            self.cache.store(key, self.folder / unit.object)

    def _key(self, unit: Unit, flags: tuple[str, ...]) -> str:
        headers = sorted(self.folder.glob("*.h"))
        texts = [path.read_bytes() for path in (self.folder / unit.source, *headers)]
        return self.cache.key([version("ziglang"), *flags, unit.source, *texts])

    def link_shared(self, objects: Sequence[str], output: str, prefix: str, name: str) -> None:
        """A shared library that exports `prefix*` alone and may be mapped read-only but for relocations.

        `name`: what the library is going to be called; a Mach-O library knows its own name.
        """
        (self.folder / "exports.map").write_text(exports_map(prefix))
        flags = [*library_flags(self.target), "-Wl,-dead_strip", f"-Wl,-install_name,@rpath/{name}"]
        if not self.target.is_macos:
            flags = [*library_flags(self.target), "-Wl,--no-undefined", "-Wl,--gc-sections"]
        self.run(
            "cc", "-target", self.target.triple, "-s", *flags, *objects, "-lm", "-lpthread", "-o", output,
        )  # fmt: skip

    def archive(self, objects: Sequence[str], output: str) -> None:
        """A static library, with no dates or owners in it."""
        self.run("ar", "rcsD", output, *objects)

    def link_relocatable(self, objects: Sequence[str], output: str) -> None:
        """One object out of many."""
        if self.target.is_macos:
            self.run("cc", "-target", self.target.triple, "-r", *objects, "-o", output)
        else:
            self.run("ld.lld", "-r", *objects, "-o", output)


def kernel_flags(target: Target) -> tuple[str, ...]:
    """For code that runs only after the CPU was checked."""
    mcpu = target.cpu.replace("-", "_") + target.features.replace(",", "")
    return (
        "-O3",
        "-std=gnu11",
        f"-mcpu={mcpu}",
        *target.tuning,
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
    )


def library_flags(target: Target) -> tuple[str, ...]:
    """For the linker of a shared library; what Mach-O exports is what the sources do not hide."""
    if target.is_macos:
        return ("-dynamiclib",)
    return (
        "-shared",
        "-Wl,--version-script=exports.map",
        "-Wl,-z,noexecstack",
        "-Wl,-z,relro",
        "-Wl,-z,now",
    )


def exports_map(prefix: str) -> str:
    """Version script: `prefix*` alone is exported."""
    return f"{{ global: {prefix}*; local: *; }};\n"
