"""Instructions of AVX-512 as bytes: one for a register, or rows of bytes for arrays of registers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Pieces: TypeAlias = tuple[np.ndarray, np.ndarray]
"""(numbers of multiply-accumulates, what stands before each of them: rows of bytes). Numbers may repeat."""

ENDBR64 = bytes.fromhex("f30f1efa")
RETURN = bytes.fromhex("c5f877c3")
"""vzeroupper; ret."""
RETURN_VECTORS = b"\xc3"
"""ret, where results are in registers."""
STREAM_BIAS = 512
"""How far w points into a block's stream: displacements of one byte, scaled by 4, reach 512 bytes to both sides."""
BUMP_UNITS = 256
BUMP = bytes.fromhex("4881c600040000")
"""add rsi, 1024: before every unit whose number is a multiple of BUMP_UNITS, but the first."""
LINE = 64
_MAC_OPCODE = {"f32": 0xB8, "u8s8": 0x50}  # vfmadd231ps, vpdpbusd


@dataclass(frozen=True)
class Ahead:
    """Lines of the next block's code (at rcx) and stream (at r8) that a block fetches: per call, or turn of a loop."""

    code: int = 0
    stream: int = 0
    step: int = 0
    """Bytes of the stream from one turn to the next."""
    activations: bool = False
    """Whether every load fetches the vector of the tile after the next too: for the block that reads them first."""


NOT_AHEAD = Ahead()


def body(
    macs: np.ndarray,
    first: np.ndarray,
    loads: np.ndarray,
    index: np.ndarray,
    ahead: Ahead,
    count: int,
    bump: tuple[int, bytes] = (BUMP_UNITS, BUMP),
) -> bytes:
    """Straight-line code: the i-th row of `loads` before the i-th of the `macs` that are `first` in their group.

    `index` numbers the multiply-accumulates in the stream of `count`, over which the fetches ahead are spread.
    """
    fetched = fetches(ahead, index, count, bump)
    return interleave([*fetched, (index[first], loads), (index, macs)])


def fetches(ahead: Ahead, index: np.ndarray, count: int, bump: tuple[int, bytes] = (BUMP_UNITS, BUMP)) -> list[Pieces]:
    """Before the multiply-accumulates numbered `index`, of `count`: the stream's steps and fetches ahead."""
    every, step = bump
    steps = index[(index % every == 0) & (index > 0)]
    pieces: list[Pieces] = [(steps, np.tile(np.frombuffer(step, np.uint8), (len(steps), 1)))]
    for opcode, lines in ((b"\x0f\x18\x89", ahead.code), (b"\x41\x0f\x18\x88", ahead.stream)):
        before = _spread(lines, count)
        line = np.flatnonzero(np.isin(before, index))
        pieces.append((before[line], _prefetches(opcode, line)))
    return pieces


def interleave(pieces: Sequence[Pieces]) -> bytes:
    """Every piece before what follows it in the sequence, as far as both belong to one multiply-accumulate."""
    where = np.concatenate([numbers for numbers, _ in pieces])
    lengths = np.concatenate([np.full(len(rows), rows.shape[1]) for _, rows in pieces])
    order = np.argsort(where, kind="stable")
    begins = np.empty(len(where), np.int64)
    begins[order] = np.cumsum(lengths[order]) - lengths[order]
    out = np.empty(int(lengths.sum()), np.uint8)
    first = 0
    for numbers, rows in pieces:
        place(out, begins[first : first + len(numbers)], rows)
        first += len(numbers)
    return out.tobytes()


def _spread(lines: int, count: int) -> np.ndarray:
    """The multiply-accumulates that have a prefetch before them, one per line."""
    return np.arange(lines) * count // max(lines, 1)


def fetched_lines(ahead: Ahead, number: int, count: int) -> list[str]:
    """As text, the fetches before a multiply-accumulate."""
    return [
        f"{{disp32}} prefetcht0 [{register} + {LINE * line}]"
        for register, lines in (("rcx", ahead.code), ("r8", ahead.stream))
        for line in np.flatnonzero(_spread(lines, count) == number).tolist()
    ]


def _prefetches(opcode: bytes, lines: np.ndarray) -> np.ndarray:
    """prefetcht0 [rcx or r8 + disp32], a line each."""
    out = np.empty((len(lines), len(opcode) + 4), np.uint8)
    out[:, :-4] = np.frombuffer(opcode, np.uint8)
    out[:, -4:] = (LINE * lines).astype("<i4").view(np.uint8).reshape(-1, 4)
    return out


def place(out: np.ndarray, begins: np.ndarray, rows: np.ndarray) -> None:
    """Row i of bytes at out[begins[i]]."""
    out[begins[:, None] + np.arange(rows.shape[1])] = rows


def macs(kind: str, row: np.ndarray, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """EVEX.512.66.0F38.W0 op /r: zmm_row += zmm_x * dword [rsi + disp8 * 4]{1to16}; `index` counts units."""
    out = np.empty((len(row), 7), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = inverted(row, 3) << 7 | 0x60 | inverted(row, 4) << 4 | 2
    out[:, 2] = (~x & 15) << 3 | 0x05
    out[:, 3] = 0x50 | inverted(x, 4) << 3
    out[:, 4] = _MAC_OPCODE[kind]
    out[:, 5] = 0x46 | (row & 7) << 3
    out[:, 6] = ((index % BUMP_UNITS) - STREAM_BIAS // 4).astype(np.int8).view(np.uint8)
    return out


def loads_of(x: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """EVEX.512.0F.W0 10 /r: vmovups zmm_x, [rdi + disp32]."""
    out = np.empty((len(x), 10), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = inverted(x, 3) << 7 | 0x60 | inverted(x, 4) << 4 | 1
    out[:, 2:5] = (0x7C, 0x48, 0x10)
    out[:, 5] = 0x87 | (x & 7) << 3
    if len(displacement) and int(displacement.max()) >= 1 << 31:
        raise ValueError("the activations of a layer exceed 2 GiB")
    out[:, 6:] = displacement.astype("<i4").view(np.uint8).reshape(-1, 4)
    return out


def narrowed(instructions: np.ndarray) -> np.ndarray:
    """Rows of the same instruction on 512 bits, on 256 bits."""
    out = instructions.copy()
    out[:, 3] ^= 0x60
    return out


def clear(r: int) -> bytes:
    """vpxord zmm_r, zmm_r, zmm_r."""
    high, middle = bit(r, 4), bit(r, 3)
    p0 = middle << 7 | high << 6 | middle << 5 | high << 4 | 1
    return bytes([0x62, p0, (~r & 15) << 3 | 0x05, 0x40 | high << 3, 0xEF, 0xC0 | (r & 7) << 3 | r & 7])


def begin_with(r: int) -> bytes:
    """EVEX.512.66.0F38.W0 58 /r: vpbroadcastd zmm_r, dword [rdx + r * 4]."""
    p0 = bit(r, 3) << 7 | 0x60 | bit(r, 4) << 4 | 2
    return bytes([0x62, p0, 0x7D, 0x48, 0x58, 0x42 | (r & 7) << 3, r])


def store(r: int) -> bytes:
    """vmovups [rdx + r * 64], zmm_r."""
    return _move(0x11, r)


def reload(r: int) -> bytes:
    """vmovups zmm_r, [rdx + r * 64]."""
    return _move(0x10, r)


def _move(opcode: int, r: int) -> bytes:
    p0 = bit(r, 3) << 7 | 0x60 | bit(r, 4) << 4 | 1
    return bytes([0x62, p0, 0x7C, 0x48, opcode, 0x42 | (r & 7) << 3, r])


def bit(value: int, bit: int) -> int:
    """A register number's bit, inverted as EVEX has it."""
    return ~value >> bit & 1


def inverted(values: np.ndarray, bit: int) -> np.ndarray:
    """The same of an array."""
    return (~values >> bit & 1).astype(np.uint8)
