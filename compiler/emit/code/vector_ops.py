"""Instructions of AVX2 (VEX) and AVX-512 (EVEX) as bytes, for one register or for arrays of them, and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_OPCODES = {
    "vbroadcastss": (2, 1, 0x18),
    "vmovups": (1, 0, 0x10),
    "vmovups_store": (1, 0, 0x11),
    "vfmadd231ps": (2, 1, 0xB8),
    "vpdpbusd": (2, 1, 0x50),
    "vpdpbusd_evex": (2, 1, 0x50),
    "vpmaddubsw": (2, 1, 0x04),
    "vpmaddwd": (1, 1, 0xF5),
    "vpaddd": (1, 1, 0xFE),
    "vpxor": (1, 1, 0xEF),
    "vpxord": (1, 1, 0xEF),
    "vpcmpeqw": (1, 1, 0x75),
    "vpternlogd": (3, 1, 0x25),
    "vpsllw": (1, 1, 0x71),
    "vpsrlw": (1, 1, 0x71),
}
"""Mnemonic -> opcode map (1: 0F, 2: 0F38, 3: 0F3A), prefix (1: 66), opcode."""
_EXTENSIONS = {"vpsllw": 6, "vpsrlw": 2}
"""Shifts by an immediate: the encoding names their source last, and has an extension of the opcode for a register."""


@dataclass(frozen=True)
class Operation:
    """`to` = op(`first`, `second`), registers; or one with memory, of which one place is given.

    `to`, `first` and the places are numbers or arrays of them.
    """

    name: str
    to: Any
    first: Any = 0
    second: Any = 0
    immediate: int | None = None
    activations: Any = None
    """Byte offset from rdi, 32 bits."""
    stream: Any = None
    """Four bytes so many places from rsi, 8 bits."""
    sums: int | None = None
    """Byte offset from rdx, 32 bits."""
    wide: bool = False
    """zmm registers instead of ymm."""


def encode_operation(o: Operation) -> np.ndarray:
    """uint8 [count, bytes of one instruction]."""
    if o.name == "prefetcht0":
        return _row(0x0F, 0x18, 0x8F, *_displacement(o.activations, 4))
    map_, prefix, opcode = _OPCODES[o.name]
    first, second, to = o.first, o.second, o.to
    if o.name in _EXTENSIONS:
        first, second, to = o.to, o.first, _EXTENSIONS[o.name]
    tail: list[Any]
    in_memory = True
    if o.activations is not None:
        tail = [0x87 | (to & 7) << 3, *_displacement(o.activations, 4)]
    elif o.sums is not None:
        tail = [0x82 | (to & 7) << 3, *_displacement(o.sums, 4)]
    elif o.stream is not None:  # EVEX scales by the four bytes of the operand
        tail = [0x46 | (to & 7) << 3, *_displacement(o.stream if o.wide else 4 * o.stream, 1)]
    else:
        in_memory = False
        tail = [0xC0 | (to & 7) << 3 | second & 7]
    if o.immediate is not None:
        tail.append(o.immediate)
    if in_memory:
        first, second = 0, 0
    if o.wide or o.name.endswith("_evex"):
        high = 0x60 if in_memory else (~second >> 4 & 1) << 6 | (~second >> 3 & 1) << 5
        p0 = (~to >> 3 & 1) << 7 | high | (~to >> 4 & 1) << 4 | map_
        length = 0x40 if o.wide else 0x20
        return _row(0x62, p0, (~first & 15) << 3 | 4 | prefix, length | (~first >> 4 & 1) << 3, opcode, *tail)
    p0 = (~to >> 3 & 1) << 7 | 0x40 | (0x20 if in_memory else (~second >> 3 & 1) << 5) | map_
    return _row(0xC4, p0, (~first & 15) << 3 | 4 | prefix, opcode, *tail)


def _displacement(value: Any, size: int) -> list[Any]:
    return [np.asarray(value) >> 8 * i & 255 for i in range(size)]


def _row(*columns: Any) -> np.ndarray:
    """Bytes, each a number or an array, as rows."""
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(c) for c in columns)), 1).astype(np.uint8)


def operation_text(o: Operation) -> str:
    """One operation as a line for an assembler, which then chooses the same encoding."""
    if o.name == "prefetcht0":
        return f"{{disp32}} prefetcht0 [rdi + {o.activations}]"
    kind = "zmm" if o.wide else "ymm"
    name = o.name.removesuffix("_store").removesuffix("_evex")
    how = "{evex} " if o.wide or o.name.endswith("_evex") else "{vex3} "
    to = f"{kind}{o.to}"
    if o.name == "vmovups_store":
        return f"{how}{{disp32}} {name} [rdx + {o.sums}], {to}"
    if o.activations is not None:
        return f"{how}{{disp32}} {name} {to}, [rdi + {o.activations}]"
    if o.sums is not None:
        return f"{how}{{disp32}} {name} {to}, [rdx + {o.sums}]"
    if o.stream is not None:
        return f"{how}{{disp8}} {name} {to}, dword ptr [rsi + {4 * o.stream}]"
    if o.name in _EXTENSIONS:
        return f"{how}{name} {to}, {kind}{o.first}, {o.immediate}"
    immediate = "" if o.immediate is None else f", {o.immediate}"
    return f"{how}{name} {to}, {kind}{o.first}, {kind}{o.second}{immediate}"
