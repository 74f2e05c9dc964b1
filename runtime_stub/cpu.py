"""Features of this machine's CPU, by the names that targets use."""

from __future__ import annotations

import platform
from pathlib import Path

_RENAMED = {
    "avx512_vnni": "avx512vnni",
    "avx512_vbmi2": "avx512vbmi2",
    "avx_vnni": "avxvnni",
    "amx_tile": "amxtile",
    "amx_int8": "amxint8",
    "sse4_2": "sse4.2",
    "asimddp": "dotprod",
    "pni": "sse3",
}
"""Linux's names that differ from ours."""


def host_features() -> frozenset[str]:
    """What the operating system reports; empty where it reports nothing (then only baseline targets apply)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(_RENAMED.get(flag, flag) for flag in value.split())
    return frozenset()


def host_machine() -> str:
    """`x86_64`, `aarch64`, …"""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
