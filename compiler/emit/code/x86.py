"""AVX-512 code of row blocks, encoded with numpy: a layer of a million instructions takes milliseconds.

A block is a function `void block(const void *x, const void *w, void *out, const void *code, const void *next_w)`
(System V): x in rdi is the place from which the offsets count, w in rsi the block's stream plus 512 bytes, out in rdx
room for rows * 64 bytes; rcx and r8 are the parts of the next block's code and stream that this call fetches ahead. It
keeps no stack and calls nothing. tests/emit compares the bytes with those of an assembler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....codegen_templates.pattern import MAX_ROWS, PatternCode, RowBlock

STREAM_BIAS = 512
"""How far w points into the stream: displacements of one byte, scaled by 4, reach 512 bytes to both sides."""
_BUMP_UNITS = 256
_MAC_OPCODE = {"f32": 0xB8, "u8s8": 0x50}  # vfmadd231ps, vpdpbusd
_ENDBR64 = bytes.fromhex("f30f1efa")
_RETURN = bytes.fromhex("c5f877c3")  # vzeroupper; ret
_ALIGNMENT = 64


@dataclass(frozen=True)
class Ahead:
    """How many lines of the next block's code and stream one call of a block fetches."""

    code: int = 0
    stream: int = 0


def encode(code: PatternCode) -> bytes:
    """Tables of uint32, then the blocks, each on a line of its own.

    The tables: the offset of every block and of the end; lines of code that a block fetches ahead; lines of the stream.
    """
    ahead = lines_ahead(code)
    at = -(-4 * (3 * len(code.blocks) + 1) // _ALIGNMENT) * _ALIGNMENT
    offsets = []
    padded = []
    for block, lines in zip(code.blocks, ahead, strict=True):
        function = encode_block(code, block, lines)
        offsets.append(at)
        padded.append(function + b"\xcc" * (-len(function) % _ALIGNMENT))
        at += len(padded[-1])
    table = np.asarray([*offsets, at, *(a.code for a in ahead), *(a.stream for a in ahead)], "<u4").tobytes()
    return table + bytes(offsets[0] - len(table) if offsets else 0) + b"".join(padded)


def lines_ahead(code: PatternCode) -> list[Ahead]:
    """What each block fetches, never more often than it multiplies; the last one fetches the first."""
    if not code.tiles or code.turns > 1:
        return [Ahead()] * len(code.blocks)
    units = np.array([len(b.k) for b in code.blocks])
    size = np.array([_straight_bytes(b) for b in code.blocks])
    per_line = _ALIGNMENT * code.tiles

    def lines(nbytes: np.ndarray) -> np.ndarray:
        return np.minimum(units, np.roll(-(-nbytes // per_line), -1))

    stream = lines(4 * units)
    size += 7 * lines(size) + 8 * stream  # the code that fetches is code too
    return [Ahead(int(c), int(w)) for c, w in zip(lines(size), stream, strict=True)]


def _straight_bytes(block: RowBlock) -> int:
    """Of the code without what fetches ahead."""
    loads = int(np.count_nonzero(np.diff(block.k))) + bool(len(block.k))
    return 8 + 13 * block.rows + 7 * len(block.k) + 10 * loads + 7 * (len(block.k) // _BUMP_UNITS)


def encode_block(code: PatternCode, block: RowBlock, ahead: Ahead | None = None) -> bytes:
    """One block's function."""
    zero = b"".join(_clear(r) for r in range(block.rows))
    store = b"".join(_store(r) for r in range(block.rows))
    body = _loop(code, block) if code.turns > 1 else _body(code, block, ahead or Ahead())
    return _ENDBR64 + zero + body + store + _RETURN


def _loop(code: PatternCode, block: RowBlock) -> bytes:
    """The body, pointers on, and back."""
    turn = _body(code, block, Ahead()) + _advance(code, block) + bytes.fromhex("ffc9")
    back = -(len(turn) + 6)
    return b"\xb9" + code.turns.to_bytes(4, "little") + turn + b"\x0f\x85" + back.to_bytes(4, "little", signed=True)


def _advance(code: PatternCode, block: RowBlock) -> bytes:
    """add rdi, the turn's bytes; add rsi, what the body has left of its units; both with 32-bit immediates."""
    parts = ((0xC7, code.turn_bytes), (0xC6, _left_over(block)))
    return b"".join(bytes([0x48, 0x81, modrm]) + value.to_bytes(4, "little") for modrm, value in parts)


def _left_over(block: RowBlock) -> int:
    """Bytes of the stream between where the body leaves its pointer and where it has read to."""
    count = len(block.k)
    return 4 * (count - max(0, count - 1) // _BUMP_UNITS * _BUMP_UNITS)


def _body(code: PatternCode, block: RowBlock, ahead: Ahead) -> bytes:
    count = len(block.k)
    if not count:
        return b""
    index = np.arange(count)
    first = np.r_[True, block.k[1:] != block.k[:-1]]
    x = MAX_ROWS + (np.cumsum(first) - 1) % (32 - MAX_ROWS)
    bump = (index % _BUMP_UNITS == 0) & (index > 0)
    fetch_code, fetch_stream = _spread(ahead.code, count), _spread(ahead.stream, count)
    lengths = 7 + 10 * first + 7 * bump + 7 * fetch_code + 8 * fetch_stream
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), np.uint8)
    _place(out, ends - 7, _macs(code.kind, block.row, x, index))
    _place(out, (ends - 17)[first], _loads(x[first], code.offsets[block.k[first]]))
    begins = (ends - lengths)[bump]
    _place(out, begins, np.tile(np.frombuffer(bytes.fromhex("4881c600040000"), np.uint8), (len(begins), 1)))
    begins = ends - lengths + 7 * bump
    _place(out, begins[fetch_code], _prefetches(b"\x0f\x18\x91", ahead.code))
    _place(out, (begins + 7 * fetch_code)[fetch_stream], _prefetches(b"\x41\x0f\x18\x90", ahead.stream))
    return out.tobytes()


def _spread(lines: int, count: int) -> np.ndarray:
    """Which of `count` multiply-accumulates have a prefetch before them."""
    chosen = np.zeros(count, bool)
    chosen[np.arange(lines) * count // max(lines, 1)] = True
    return chosen


def _prefetches(opcode: bytes, lines: int) -> np.ndarray:
    """prefetcht1 [rcx or r8 + disp32], a line each."""
    out = np.empty((lines, len(opcode) + 4), np.uint8)
    out[:, :-4] = np.frombuffer(opcode, np.uint8)
    out[:, -4:] = (_ALIGNMENT * np.arange(lines)).astype("<i4").view(np.uint8).reshape(-1, 4)
    return out


def _place(out: np.ndarray, begins: np.ndarray, rows: np.ndarray) -> None:
    out[begins[:, None] + np.arange(rows.shape[1])] = rows


def _macs(kind: str, row: np.ndarray, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """EVEX.512.66.0F38.W0 op /r: zmm_row += zmm_x * dword [rsi + disp8 * 4]{1to16}."""
    out = np.empty((len(row), 7), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = _inverted(row, 3) << 7 | 0x60 | _inverted(row, 4) << 4 | 2
    out[:, 2] = (~x & 15) << 3 | 0x05
    out[:, 3] = 0x50 | _inverted(x, 4) << 3
    out[:, 4] = _MAC_OPCODE[kind]
    out[:, 5] = 0x46 | (row & 7) << 3
    out[:, 6] = ((index % _BUMP_UNITS) - STREAM_BIAS // 4).astype(np.int8).view(np.uint8)
    return out


def _loads(x: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """EVEX.512.0F.W0 10 /r: vmovups zmm_x, [rdi + disp32]."""
    out = np.empty((len(x), 10), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = _inverted(x, 3) << 7 | 0x60 | _inverted(x, 4) << 4 | 1
    out[:, 2:5] = (0x7C, 0x48, 0x10)
    out[:, 5] = 0x87 | (x & 7) << 3
    if len(displacement) and int(displacement.max()) >= 1 << 31:
        raise ValueError("the activations of a layer exceed 2 GiB")
    out[:, 6:] = displacement.astype("<i4").view(np.uint8).reshape(-1, 4)
    return out


def _clear(r: int) -> bytes:
    """vpxord zmm_r, zmm_r, zmm_r."""
    high, middle = _bit(r, 4), _bit(r, 3)
    p0 = middle << 7 | high << 6 | middle << 5 | high << 4 | 1
    return bytes([0x62, p0, (~r & 15) << 3 | 0x05, 0x40 | high << 3, 0xEF, 0xC0 | (r & 7) << 3 | r & 7])


def _store(r: int) -> bytes:
    """vmovups [rdx + r * 64], zmm_r."""
    p0 = _bit(r, 3) << 7 | 0x60 | _bit(r, 4) << 4 | 1
    return bytes([0x62, p0, 0x7C, 0x48, 0x11, 0x42 | (r & 7) << 3, r])


def _bit(value: int, bit: int) -> int:
    """A register number's bit, inverted as EVEX has it."""
    return ~value >> bit & 1


def _inverted(values: np.ndarray, bit: int) -> np.ndarray:
    return (~values >> bit & 1).astype(np.uint8)


def assembler(code: PatternCode, block: RowBlock, ahead: Ahead | None = None) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    mnemonic = {"f32": "vfmadd231ps", "u8s8": "vpdpbusd"}[code.kind]
    lines = ["endbr64", *(f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in range(block.rows))]
    if code.turns > 1:
        lines += [f"mov ecx, {code.turns}", "1:"]
    count = len(block.k)
    fetched = (
        {
            register: [i * count // n for i in range(n)]
            for register, n in (("rcx", ahead.code), ("r8", ahead.stream))
            if n
        }
        if ahead
        else {}
    )
    loaded, last, x = -1, -1, 0
    for i, (k, row) in enumerate(zip(block.k.tolist(), block.row.tolist(), strict=True)):
        if i % _BUMP_UNITS == 0 and i:
            lines.append("add rsi, 1024")
        for register, places in fetched.items():
            if i in places:
                lines.append(f"{{disp32}} prefetcht1 [{register} + {64 * places.index(i)}]")
        if k != last:
            loaded += 1
            last, x = k, MAX_ROWS + loaded % (32 - MAX_ROWS)
            lines.append(f"{{disp32}} vmovups zmm{x}, [rdi + {int(code.offsets[k])}]")
        offset = 4 * (i % _BUMP_UNITS) - STREAM_BIAS
        lines.append(f"{{disp8}} {mnemonic} zmm{row}, zmm{x}, dword ptr [rsi + {offset}]{{1to16}}")
    if code.turns > 1:
        lines += [
            f".byte 0x48, 0x81, 0xc7; .long {code.turn_bytes}",
            f".byte 0x48, 0x81, 0xc6; .long {_left_over(block)}",
        ]
        lines += ["dec ecx", "{disp32} jnz 1b"]
    lines += [*(f"{{disp8}} vmovups [rdx + {64 * r}], zmm{r}" for r in range(block.rows)), "vzeroupper", "ret"]
    return "\n".join(lines) + "\n"
