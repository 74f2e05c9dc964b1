"""The targets: ONE row each. Importable with the runtime's dependencies alone (`sparsec targets` needs no compiler)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import TargetError
from ..runtime_stub.cpu import host_features, host_machine

__all__ = ["TARGETS", "Target", "host_features", "resolve", "resolve_all"]


@dataclass(frozen=True)
class Target:
    """What kernels may use and what the artifact demands of the CPU that loads it.

    `requires` are feature names as `sparsec targets` prints them; the runtime checks them before any kernel runs. The
    driver and the runtime are compiled for the triple's baseline, only kernels use `cpu` and `features`.
    """

    name: str
    summary: str
    triple: str
    """For `zig cc`; the glibc version is the ceiling for symbols."""
    cpu: str
    features: str
    isa: str
    """Which rows of the kernel catalogue apply: its own, and those of the part before a hyphen."""
    vector_bits: int
    requires: tuple[str, ...]
    c_flags: str
    """What gcc and clang call `cpu` and `features`."""
    machine: str
    """`platform.machine()` of hosts that can run it."""
    tuning: tuple[str, ...] = ()
    """Further flags of `zig cc` for kernels."""

    @property
    def is_macos(self) -> bool:
        """Whether it is for macOS: then objects are Mach-O files; all others are ELF."""
        return self.triple.split("-")[1].startswith("macos")

    @property
    def has_tiles(self) -> bool:
        """Whether kernels of 16 columns are there, with the sparse ones among them, and the layouts that they read."""
        return self.isa.partition("-")[0] in ("avx512", "avx2", "neon")

    @property
    def has_byte_tiles(self) -> bool:
        """The same of bytes."""
        return self.has_tiles and self.isa != "neon"

    @property
    def library_suffix(self) -> str:
        """Of shared libraries."""
        return ".dylib" if self.is_macos else ".so"


_X86: dict[str, Any] = {"triple": "x86_64-linux-gnu.2.17", "machine": "x86_64"}
_RISCV: dict[str, Any] = {
    "triple": "riscv64-linux-gnu.2.27",
    "machine": "riscv64",
}
_ARM32: dict[str, Any] = {
    "triple": "arm-linux-gnueabihf.2.17",
    "machine": "armv7l",
}
_ARM: dict[str, Any] = {"triple": "aarch64-linux-gnu.2.17", "machine": "aarch64"}

GENERIC = "generic"
_MACHINES = {
    "x86_64": "x86_64",
    "aarch64": "aarch64",
    "arm": "armv7l",
    "riscv64": "riscv64",
}
"""Architecture of a triple -> `platform.machine()` there."""
_SYSTEMS = ("linux", "macos")

TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target(
            "avx512-amx",
            "x86-64 with AMX tiles of int8 (Sapphire Rapids and later); not yet run on one",
            cpu="x86-64-v4",
            features="+avx512vnni,+avx512vbmi,+avx512vbmi2,+amx_tile,+amx_int8",
            isa="avx512-amx",
            c_flags="-march=x86-64-v4 -mavx512vnni -mavx512vbmi -mavx512vbmi2 -mamx-tile -mamx-int8 "
            "-mprefer-vector-width=512",
            tuning=("-mprefer-vector-width=512",),
            vector_bits=512,
            requires=(
                "avx2",
                "fma",
                "avx512f",
                "avx512bw",
                "avx512cd",
                "avx512dq",
                "avx512vl",
                "avx512vnni",
                "avx512vbmi",
                "avx512vbmi2",
                "amxtile",
                "amxint8",
            ),
            **_X86,
        ),
        Target(
            "avx512",
            "x86-64 with AVX-512 VNNI and VBMI2 (Ice Lake, Zen 4 and later)",
            cpu="x86-64-v4",
            features="+avx512vnni,+avx512vbmi,+avx512vbmi2",
            isa="avx512",
            c_flags="-march=x86-64-v4 -mavx512vnni -mavx512vbmi -mavx512vbmi2 -mprefer-vector-width=512",
            tuning=("-mprefer-vector-width=512",),
            vector_bits=512,
            requires=(
                "avx2",
                "fma",
                "avx512f",
                "avx512bw",
                "avx512cd",
                "avx512dq",
                "avx512vl",
                "avx512vnni",
                "avx512vbmi",
                "avx512vbmi2",
            ),
            **_X86,
        ),
        Target(
            "avx512-novnni",
            "x86-64 with AVX-512 but without VNNI (Skylake-X and -SP)",
            cpu="x86-64-v4",
            features="",
            isa="avx512-novnni",
            c_flags="-march=x86-64-v4 -mprefer-vector-width=512",
            tuning=("-mprefer-vector-width=512",),
            vector_bits=512,
            requires=("avx2", "fma", "bmi2", "f16c", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
            **_X86,
        ),
        Target(
            "avx2-vnni",
            "x86-64 with AVX2 and AVX-VNNI (Alder Lake and later)",
            cpu="x86-64-v3",
            features="+avxvnni",
            isa="avx2-vnni",
            c_flags="-march=x86-64-v3 -mavxvnni",
            vector_bits=256,
            requires=("avx2", "fma", "bmi2", "f16c", "avxvnni"),
            **_X86,
        ),
        Target(
            "avx2",
            "x86-64 with AVX2 and FMA (Haswell, Zen and later)",
            cpu="x86-64-v3",
            features="",
            isa="avx2",
            c_flags="-march=x86-64-v3",
            vector_bits=256,
            requires=("avx2", "fma", "bmi2", "f16c"),
            **_X86,
        ),
        Target(
            "x86-64",
            "any 64-bit x86 (SSE2)",
            cpu="x86-64",
            features="",
            isa="generic",
            c_flags="-march=x86-64",
            vector_bits=128,
            requires=(),
            **_X86,
        ),
        Target(
            "aarch64-i8mm",
            "64-bit ARM with int8 matrix products (Cortex-A510 and -X2, Neoverse V1 and N2, Apple M2 and later)",
            cpu="generic",
            features="+neon,+dotprod,+i8mm",
            isa="neon-i8mm",
            c_flags="-march=armv8.2-a+dotprod+i8mm",
            vector_bits=128,
            requires=("dotprod", "i8mm"),
            **_ARM,
        ),
        Target(
            "aarch64-dotprod",
            "64-bit ARM with dot products of bytes (Cortex-A55 and -A76, Neoverse N1, Apple M1 and later)",
            cpu="generic",
            features="+neon,+dotprod",
            isa="neon-dotprod",
            c_flags="-march=armv8.2-a+dotprod",
            vector_bits=128,
            requires=("dotprod",),
            **_ARM,
        ),
        Target(
            "aarch64",
            "64-bit ARM with NEON",
            cpu="generic",
            features="+neon",
            isa="neon",
            c_flags="-march=armv8-a",
            vector_bits=128,
            requires=(),
            **_ARM,
        ),
        Target(
            "armv7",
            "32-bit ARM with VFPv3",
            # no NEON: it flushes subnormal numbers, which the other targets keep
            cpu="generic",
            features="+v7a,+vfp3,-neon",
            isa="generic",
            c_flags="-march=armv7-a+vfpv3 -mfloat-abi=hard",
            vector_bits=128,
            requires=(),
            **_ARM32,
        ),
        Target(
            "riscv64",
            "64-bit RISC-V (RV64GC)",
            cpu="generic-rv64",
            features="+m,+a,+f,+d,+c",
            isa="generic",
            c_flags="-march=rv64gc",
            vector_bits=128,
            requires=(),
            **_RISCV,
        ),
        Target(
            GENERIC,
            "portable C for the baseline of any --triple; without one for this machine's architecture",
            triple="",
            cpu="baseline",
            features="",
            isa="generic",
            c_flags="",
            vector_bits=128,
            requires=(),
            machine="",
        ),
    )
}


def resolve(name: str, triple: str | None = None) -> Target:
    """The row called `name`; `native` is the first row of this machine's architecture that its CPU satisfies.

    `triple` replaces the row's own, for another C library or system: `aarch64-linux-musl`, `x86_64-linux-gnu.2.28`,
    `aarch64-macos`. `generic` takes any triple, and without one that of this machine's architecture.

    Raises:
        TargetError: no such row, `native` on a machine that no row describes, or a triple of another architecture.
    """
    row = _row(name)
    if row.name == GENERIC:
        return _generic(row, triple or _host_triple())
    if triple is None:
        return row
    architecture = row.triple.partition("-")[0]
    if triple.partition("-")[0] != architecture or _system(triple) not in _SYSTEMS:
        raise TargetError(f"target {row.name} runs on {architecture}-linux and {architecture}-macos, not on {triple}")
    return replace(row, triple=triple)


def _generic(row: Target, triple: str) -> Target:
    machine = _MACHINES.get(triple.partition("-")[0])
    if machine is None or _system(triple) not in _SYSTEMS:
        raise TargetError(
            f"no code can be made for {triple}: --triple takes ARCHITECTURE-linux-LIBC or ARCHITECTURE-macos, with one "
            f"of the architectures {', '.join(_MACHINES)}"
        )
    same = next((r for r in TARGETS.values() if (r.isa, r.machine) == (row.isa, machine)), row)
    return replace(row, triple=triple, machine=machine, cpu=same.cpu, features=same.features, c_flags=same.c_flags)


def _system(triple: str) -> str:
    """`linux`, `macos`, …, without a version."""
    return [*triple.split("-"), ""][1].partition(".")[0]


def _host_triple() -> str:
    machine = host_machine()
    for row in TARGETS.values():
        if row.machine == machine:
            return row.triple
    for architecture, name in _MACHINES.items():
        if name == machine:
            return f"{architecture}-linux-gnu"
    raise TargetError(f"no code can be made for this machine ({machine}): name another one by --triple")


def resolve_all(names: str, triple: str | None = None) -> tuple[Target, ...]:
    """The rows of a list as `avx512,avx2,generic`, best first: a CPU gets the first that it satisfies.

    Raises:
        TargetError: as `resolve`; or rows of several architectures, or one that no CPU would ever get.
    """
    asked = dict.fromkeys(name.strip() for name in names.split(","))
    rows = [resolve(name, triple) for name in asked if name != GENERIC]
    if GENERIC in asked:
        rows.append(resolve(GENERIC, triple or (rows[0].triple if rows else None)))
    order = list(TARGETS)
    best_first = sorted({row.name: row for row in rows}.values(), key=lambda row: order.index(row.name))
    for i, row in enumerate(best_first):
        if row.triple != best_first[0].triple:
            raise TargetError(
                f"one file holds targets of one architecture: {best_first[0].name} runs on "
                f"{best_first[0].triple}, {row.name} on {row.triple}"
            )
        for better in best_first[:i]:
            if set(better.requires) <= set(row.requires):
                raise TargetError(f"no CPU would take {row.name}: {better.name} comes first and needs no more than it")
    return tuple(best_first)


def _row(name: str) -> Target:
    if name == "native":
        machine, have = host_machine(), host_features()
        for row in TARGETS.values():
            if row.machine == machine and have.issuperset(row.requires):
                return row
        return TARGETS[GENERIC]
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}; known: native, {', '.join(TARGETS)}")
    return TARGETS[name]
