"""AVX-512 code of `Ending`s (codegen_templates/pattern.py): a block's sums through the epilogue into planes.

rdx points to a `sparsec_ending` (codegen_templates/pattern_code.h). Operations go over all rows one after the other, so
that one register, zmm31, serves each of them; activations are done with by then. NaN stays NaN: `vmaxps` and `vminps`
return their second source.
"""

from __future__ import annotations

import struct

from ....codegen_templates.epilogue import EpilogueOp
from ....codegen_templates.pattern import Ending
from .evex import bit

_TO, _ADDED, _BIAS, _LANES, _ADDED_LANES = 0, 32, 64, 72, 88
"""Offsets of the struct's fields."""
_AHEAD = 124
"""Bytes from lane 0 of a tile to the last one of the next."""
_CONSTANT = 31
_MAX, _MIN, _ADD, _STORE = 0x5F, 0x5D, 0x58, 0x11


def begin(rows: int) -> bytes:
    """Sums that begin with the bias: mov rax, [rdx + 64]; vbroadcastss zmm_r, [rax + 4 r]."""
    return b"\x48\x8b\x42" + bytes([_BIAS]) + b"".join(_broadcast(r) for r in range(rows))


def end(ending: Ending, rows: int) -> bytes:
    """The operations, then the stores."""
    code = b"".join(_apply(op, ending, rows) for op in ending.ops[ending.has_bias :])
    for s in range(ending.segments):
        code += _segment(_TO, _LANES, s)
        for r in range(rows):
            code += _at_rax(_STORE, r, 0, r * ending.plane_bytes)
            if s == ending.segments - 1:
                code += b"\x0f\x0d\x88" + struct.pack("<i", r * ending.plane_bytes + _AHEAD)
    return code


def begin_lines(rows: int) -> list[str]:
    """As text."""
    return [
        f"mov rax, [rdx + {_BIAS}]",
        *(f"{{disp8}} vbroadcastss zmm{r}, dword ptr [rax + {4 * r}]" for r in range(rows)),
    ]


def end_lines(ending: Ending, rows: int) -> list[str]:
    """As text."""
    lines = []
    for op in ending.ops[ending.has_bias :]:
        if op.kind == "add":
            for s in range(ending.added_segments):
                lines += _segment_lines(_ADDED, _ADDED_LANES, s)
                lines += [
                    f"{{disp32}} vaddps zmm{r}{{k1}}, zmm{r}, [rax + {r * ending.added_bytes}]" for r in range(rows)
                ]
        for name, value in _limits(op):
            lines += [f"mov eax, {_bits(value)}", f"vpbroadcastd zmm{_CONSTANT}, eax"]
            lines += [f"{name} zmm{r}, zmm{_CONSTANT}, zmm{r}" for r in range(rows)]
    for s in range(ending.segments):
        lines += _segment_lines(_TO, _LANES, s)
        for r in range(rows):
            lines.append(f"{{disp32}} vmovups [rax + {r * ending.plane_bytes}]{{k1}}, zmm{r}")
            if s == ending.segments - 1:
                lines.append(f"{{disp32}} prefetchw [rax + {r * ending.plane_bytes + _AHEAD}]")
    return lines


def _apply(op: EpilogueOp, ending: Ending, rows: int) -> bytes:
    if op.kind == "add":
        segments = (
            _segment(_ADDED, _ADDED_LANES, s)
            + b"".join(_at_rax(_ADD, r, r, r * ending.added_bytes) for r in range(rows))
            for s in range(ending.added_segments)
        )
        return b"".join(segments)
    code = b""
    for name, value in _limits(op):
        opcode = _MAX if name == "vmaxps" else _MIN
        code += b"\xb8" + struct.pack("<I", _bits(value)) + _SPREAD
        code += b"".join(_against_constant(opcode, r) for r in range(rows))
    return code


def _limits(op: EpilogueOp) -> list[tuple[str, float]]:
    """Instructions and their constants."""
    if op.kind == "relu":
        return [("vmaxps", 0.0)]
    if op.kind == "clip":
        return [("vmaxps", op.params[0]), ("vminps", op.params[1])]
    return []


def _bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def _segment(pointers: int, lanes: int, s: int) -> bytes:
    """mov rax, [rdx + pointers + 8 s]; kmovw k1, [rdx + lanes + 4 s]."""
    return bytes([0x48, 0x8B, 0x42, pointers + 8 * s, 0xC5, 0xF8, 0x90, 0x4A, lanes + 4 * s])


def _segment_lines(pointers: int, lanes: int, s: int) -> list[str]:
    return [f"{{disp8}} mov rax, [rdx + {pointers + 8 * s}]", f"kmovw k1, [rdx + {lanes + 4 * s}]"]


def _evex(opcode: int, reg: int, source: int, pp: int, opcode_map: int, rm: int, mode: int, mask: int = 0) -> bytes:
    """A 512-bit instruction up to its ModRM byte."""
    p0 = bit(reg, 3) << 7 | bit(rm, 4) << 6 | bit(rm, 3) << 5 | bit(reg, 4) << 4 | opcode_map
    p1 = (~source & 15) << 3 | 4 | pp
    p2 = 0x40 | bit(source, 4) << 3 | mask
    return bytes([0x62, p0, p1, p2, opcode, mode << 6 | (reg & 7) << 3 | rm & 7])


def _at_rax(opcode: int, reg: int, source: int, displacement: int) -> bytes:
    """EVEX.512.0F.W0: op zmm_reg {k1}, [zmm_source,] [rax + disp32], or the store."""
    return _evex(opcode, reg, source, 0, 1, 0, 2, 1) + struct.pack("<i", displacement)


def _against_constant(opcode: int, r: int) -> bytes:
    """EVEX.512.0F.W0: op zmm_r, zmm31, zmm_r."""
    return _evex(opcode, r, _CONSTANT, 0, 1, r, 3)


def _broadcast(r: int) -> bytes:
    """EVEX.512.66.0F38.W0 18 /r: vbroadcastss zmm_r, dword [rax + disp8 * 4]."""
    return _evex(0x18, r, 0, 1, 2, 0, 1) + bytes([r])


_SPREAD = _evex(0x7C, _CONSTANT, 0, 1, 2, 0, 3)
"""EVEX.512.66.0F38.W0 7C /r: vpbroadcastd zmm31, eax."""
