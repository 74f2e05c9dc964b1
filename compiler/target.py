"""The targets: ONE row each. Importable with the runtime's dependencies alone (`sparsec targets` needs no compiler)."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TargetError
from ..runtime_stub.cpu import host_features

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
    llvm_triple: str
    cpu: str
    features: str
    isa: str
    """Which rows of the kernel catalogue apply."""
    vector_bits: int
    requires: tuple[str, ...]
    c_flags: str
    """What gcc and clang call `cpu` and `features`."""
    machine: str
    """`platform.machine()` of hosts that can run it."""
    tuning: tuple[str, ...] = ()
    """Further flags of `zig cc` for kernels."""


_X86: dict[str, Any] = {"triple": "x86_64-linux-gnu.2.17", "llvm_triple": "x86_64-linux-gnu", "machine": "x86_64"}
_RISCV: dict[str, Any] = {
    "triple": "riscv64-linux-gnu.2.27",
    "llvm_triple": "riscv64-linux-gnu",
    "machine": "riscv64",
}
_ARM32: dict[str, Any] = {
    "triple": "arm-linux-gnueabihf.2.17",
    "llvm_triple": "arm-linux-gnueabihf",
    "machine": "armv7l",
}
_ARM: dict[str, Any] = {"triple": "aarch64-linux-gnu.2.17", "llvm_triple": "aarch64-linux-gnu", "machine": "aarch64"}

TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
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
    )
}


def resolve(name: str, triple: str | None = None) -> Target:
    """The row called `name`; `native` is the first row of this machine's architecture that its CPU satisfies.

    `triple` replaces the row's own, for another C library: `aarch64-linux-musl`, `x86_64-linux-gnu.2.28`.

    Raises:
        TargetError: no such row, `native` on a machine that no row describes, or a triple of another architecture.
    """
    row = _row(name)
    if triple is None:
        return row
    architecture = row.triple.partition("-")[0]
    if triple.split("-")[:2] != [architecture, "linux"]:
        raise TargetError(f"target {row.name} runs on {architecture}-linux, not on {triple}")
    return replace(row, triple=triple)


def resolve_all(names: str, triple: str | None = None) -> tuple[Target, ...]:
    """The rows of a list as `avx512,avx2,x86-64`, best first: a CPU gets the first that it satisfies.

    Raises:
        TargetError: as `resolve`; or rows of several architectures, or one that no CPU would ever get.
    """
    rows = {row.name: row for row in (resolve(name.strip(), triple) for name in names.split(","))}
    order = list(TARGETS)
    best_first = sorted(rows.values(), key=lambda row: order.index(row.name))
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
        machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        have = host_features()
        for row in TARGETS.values():
            if row.machine == machine and have.issuperset(row.requires):
                return row
        raise TargetError(f"no target describes this machine ({machine}); name one of: {', '.join(TARGETS)}")
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}; known: native, {', '.join(TARGETS)}")
    return TARGETS[name]
