"""AVX-512 code of row blocks with at most 4 of every 8 weights (codegen_templates/n_of_m.py): a loop, places are data.

The function is that of x86.py for sums in registers. Until the end zmm_2p and zmm_2p+1 hold the sums of rows 2p and
2p+1, four columns of either beside each other, of the tile's even and odd pairs of columns.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ....codegen_templates.pattern import PatternCode, RowBlock
from .evex import ENDBR64, LINE, NOT_AHEAD, RETURN_VECTORS, Ahead, bit, clear, loads_of

PAIR_BYTES = 16
"""Of the stream: four weights of either row, then where they lie in the eight k."""
_ODD, _LOW, _HIGH, _ORDER, _WEIGHTS, _TAKEN = 24, 26, 27, 28, 29, (30, 31)
_RDX, _RSI = 2, 6
_ODD_QUADWORDS = bytes([0] * 8 + [8] * 8) * 4
"""Added to places for the second quadword of 16 bytes."""
_EVEN_WORDS, _ODD_WORDS = 0x88, 0xDD
_BIAS = 512


def encode_n_of_m(code: PatternCode, block: RowBlock, ahead: Ahead = NOT_AHEAD) -> bytes:
    """One block's function, and behind it the constant that it reads."""
    return _encode(block.rows, tuple(code.offsets.tolist()), code.turns, code.turn_bytes, ahead)


@lru_cache(maxsize=16)
def _encode(rows: int, offsets: tuple[int, ...], turns: int, turn_bytes: int, ahead: Ahead) -> bytes:
    turn = _turn(rows, offsets, turn_bytes, ahead)
    back = -(len(turn) + 6)
    loop = b"\xb9" + turns.to_bytes(4, "little") + turn + b"\x0f\x85" + back.to_bytes(4, "little", signed=True)
    tail = b"".join(map(clear, range(rows))) + loop + b"".join(_end(r) for r in range(0, rows, 2)) + RETURN_VECTORS
    constant = _prefix(1, 0, 0, 0x10, _ODD, 0, 0) + bytes([0x05 | (_ODD & 7) << 3]) + len(tail).to_bytes(4, "little")
    return ENDBR64 + constant + tail + _ODD_QUADWORDS


def _turn(rows: int, offsets: tuple[int, ...], turn_bytes: int, ahead: Ahead) -> bytes:
    """All of `offsets`, two for every eight k, and the pointers on to the next turn."""
    parts = []
    fetched = [line * len(offsets) // 2 // max(ahead.stream, 1) for line in range(ahead.stream)]
    for eight, (first, second) in enumerate(zip(offsets[::2], offsets[1::2], strict=True)):
        parts += [b"\x41\x0f\x18\x88" + (LINE * i).to_bytes(4, "little") for i, at in enumerate(fetched) if at == eight]
        parts.append(loads_of(np.array([_ORDER, _WEIGHTS]), np.array([first, second])).tobytes())
        parts.append(_registers(1, 1, 0, 0x62, _LOW, _ORDER, _WEIGHTS))
        parts.append(_registers(1, 1, 0, 0x6A, _HIGH, _ORDER, _WEIGHTS))
        parts += [_pair(row) for row in range(0, rows, 2)]
        parts.append(_add(0x48, 0xC6, rows // 2 * PAIR_BYTES))
    parts.append(_add(0x48, 0xC7, turn_bytes))
    if ahead.step:
        parts.append(_add(0x49, 0xC0, ahead.step))
    return b"".join(parts) + bytes.fromhex("ffc9")


def _pair(row: int) -> bytes:
    """Two rows by eight k."""
    at = row // 2 * PAIR_BYTES - _BIAS
    code = _broadcast(_ORDER, at + 8) + _registers(1, 1, 1, 0xEB, _ORDER, _ORDER, _ODD) + _broadcast(_WEIGHTS, at)
    for half, (x, taken) in enumerate(zip((_LOW, _HIGH), _TAKEN, strict=True)):
        code += _registers(2, 1, 0, 0x00, taken, x, _ORDER) + _registers(2, 1, 0, 0x50, row + half, taken, _WEIGHTS)
    return code


def _end(row: int) -> bytes:
    """Rows in columns, plus the numbers that they begin with."""
    low, high = row, row + 1
    code = _registers(1, 0, 0, 0xC6, _TAKEN[0], low, high) + bytes([_EVEN_WORDS])
    code += _registers(1, 0, 0, 0xC6, high, low, high) + bytes([_ODD_WORDS])
    for r, x in ((low, _TAKEN[0]), (high, high)):
        code += _prefix(1, 1, 0, 0xFE, r, x, 0, broadcast=True) + bytes([0x40 | (r & 7) << 3 | _RDX, r])
    return code


def _broadcast(register: int, at: int) -> bytes:
    """vpbroadcastq zmm, [rsi + disp8 * 8]."""
    return _prefix(2, 1, 1, 0x59, register, 0, 0) + bytes([0x40 | (register & 7) << 3 | _RSI, at // 8 & 255])


def _registers(space: int, pp: int, wide: int, opcode: int, to: int, first: int, second: int) -> bytes:
    return _prefix(space, pp, wide, opcode, to, first, second) + bytes([0xC0 | (to & 7) << 3 | second & 7])


def _prefix(
    space: int, pp: int, wide: int, opcode: int, reg: int, first: int, rm: int, broadcast: bool = False
) -> bytes:
    """EVEX.512 and the opcode; `space` 1 is 0F, 2 is 0F38; `pp` 1 is 66. A base register of memory is 0 here."""
    p0 = bit(reg, 3) << 7 | bit(rm, 4) << 6 | bit(rm, 3) << 5 | bit(reg, 4) << 4 | space
    p1 = wide << 7 | (~first & 15) << 3 | 4 | pp
    return bytes([0x62, p0, p1, 0x40 | broadcast << 4 | bit(first, 4) << 3, opcode])


def _add(rex: int, modrm: int, value: int) -> bytes:
    """add register, imm32."""
    return bytes([rex, 0x81, modrm]) + value.to_bytes(4, "little")


def n_of_m_assembler(code: PatternCode, block: RowBlock, ahead: Ahead = NOT_AHEAD) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    rows, step = block.rows, block.rows // 2 * PAIR_BYTES
    lines = ["endbr64", f"vmovups zmm{_ODD}, [rip + 2f]"]
    lines += [f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in range(rows)]
    lines += [f"mov ecx, {code.turns}", "1:"]
    eights = len(code.offsets) // 2
    for eight, (first, second) in enumerate(code.offsets.reshape(-1, 2).tolist()):
        for line in range(ahead.stream):
            if line * eights // ahead.stream == eight:
                lines.append(f"{{disp32}} prefetcht0 [r8 + {LINE * line}]")
        lines.append(f"{{disp32}} vmovups zmm{_ORDER}, [rdi + {first}]")
        lines.append(f"{{disp32}} vmovups zmm{_WEIGHTS}, [rdi + {second}]")
        lines.append(f"vpunpckldq zmm{_LOW}, zmm{_ORDER}, zmm{_WEIGHTS}")
        lines.append(f"vpunpckhdq zmm{_HIGH}, zmm{_ORDER}, zmm{_WEIGHTS}")
        for row in range(0, rows, 2):
            at = row // 2 * PAIR_BYTES - _BIAS
            lines.append(f"vpbroadcastq zmm{_ORDER}, qword ptr [rsi + {at + 8}]")
            lines.append(f"vporq zmm{_ORDER}, zmm{_ORDER}, zmm{_ODD}")
            lines.append(f"vpbroadcastq zmm{_WEIGHTS}, qword ptr [rsi + {at}]")
            for half, x in enumerate((_LOW, _HIGH)):
                lines.append(f"vpshufb zmm{_TAKEN[half]}, zmm{x}, zmm{_ORDER}")
                lines.append(f"vpdpbusd zmm{row + half}, zmm{_TAKEN[half]}, zmm{_WEIGHTS}")
        lines.append(f".byte 0x48, 0x81, 0xc6; .long {step}")
    lines.append(f".byte 0x48, 0x81, 0xc7; .long {code.turn_bytes}")
    if ahead.step:
        lines.append(f".byte 0x49, 0x81, 0xc0; .long {ahead.step}")
    lines += ["dec ecx", "{disp32} jnz 1b"]
    for row in range(0, rows, 2):
        lines.append(f"vshufps zmm{_TAKEN[0]}, zmm{row}, zmm{row + 1}, {_EVEN_WORDS}")
        lines.append(f"vshufps zmm{row + 1}, zmm{row}, zmm{row + 1}, {_ODD_WORDS}")
        lines.append(f"{{disp8}} vpaddd zmm{row}, zmm{_TAKEN[0]}, dword ptr [rdx + {4 * row}]{{1to16}}")
        lines.append(f"{{disp8}} vpaddd zmm{row + 1}, zmm{row + 1}, dword ptr [rdx + {4 * row + 4}]{{1to16}}")
    return "\n".join([*lines, "ret", "2:", f".byte {', '.join(map(str, _ODD_QUADWORDS))}"]) + "\n"
