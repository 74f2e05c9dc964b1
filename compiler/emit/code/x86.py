"""x86 code of row blocks, encoded with numpy: a layer of a million instructions takes milliseconds.

Here are blocks whose multiply-accumulates broadcast weights from memory, AVX-512's; x86_slices.py has the others.

A block is a function `void block(const void *x, const void *w, void *out, const void *code, const void *next_w)`
(System V): x in rdi is the place from which the offsets count, w in rsi the block's stream plus 512 bytes, out in rdx
room for rows * 64 bytes, or what an ending reads (ending.py); rcx and r8 are the parts of the next block's code and
stream that this call fetches ahead. It keeps no stack and calls nothing. Where sums stay in registers (row r in zmm_r),
rdx leads to the numbers that they begin with. tests/emit compares the bytes with those of an assembler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ....codegen_templates.blended import BlendBlock, BlendCode
from ....codegen_templates.pattern import MAX_ROWS, PatternCode, RowBlock
from ....codegen_templates.use import AnyCode
from . import ending
from .evex import (
    BUMP_UNITS,
    ENDBR64,
    LINE,
    NOT_AHEAD,
    RETURN,
    RETURN_VECTORS,
    STREAM_BIAS,
    Ahead,
    begin_with,
    body,
    clear,
    fetched_lines,
    loads_of,
    macs,
    narrowed,
    reload,
    store,
)
from .x86_blend import blend_assembler, blend_bytes, encode_blend
from .x86_n_of_m import encode_n_of_m, n_of_m_assembler
from .x86_slices import FORMS, Form, encode_slices, slices_assembler, slices_bytes

AnyBlock: TypeAlias = RowBlock | BlendBlock

TILES_AHEAD = 2
"""How far before its use a vector of activations is fetched, where the layer asks for it."""


def encode(code: AnyCode) -> bytes:
    """Tables of uint32, then the blocks, each on a line of its own.

    The tables: the offset of every block and of the end; bytes of code that a call fetches ahead; bytes of the stream.
    """
    ahead = lines_ahead(code)
    at = -(-4 * (3 * len(code.blocks) + 1) // LINE) * LINE
    offsets = []
    padded = []
    blocks: Sequence[AnyBlock] = code.blocks
    for block, lines in zip(blocks, ahead, strict=True):
        function = encode_block(code, block, lines)
        offsets.append(at)
        padded.append(function + b"\xcc" * (-len(function) % LINE))
        at += len(padded[-1])
    fetched = (
        (LINE * a.code for a in ahead),
        (a.step * _turns(code, b) or LINE * a.stream for a, b in zip(ahead, blocks, strict=True)),
    )
    table = np.asarray([*offsets, at, *fetched[0], *fetched[1]], "<u4").tobytes()
    return table + bytes(offsets[0] - len(table) if offsets else 0) + b"".join(padded)


def _turns(code: AnyCode, block: AnyBlock) -> int:
    """How often a block's loops run, all together."""
    return code.turns * len(block.slices()) if isinstance(code, PatternCode) and isinstance(block, RowBlock) else 1


def _form(code: AnyCode) -> Form | None:
    return FORMS.get((code.isa, code.kind)) if isinstance(code, PatternCode) else None


def lines_ahead(code: AnyCode) -> list[Ahead]:
    """What each block fetches, never more often than it multiplies; the last one fetches the first."""
    ahead = _next_block(code)
    if isinstance(code, PatternCode) and code.fetch_activations and ahead:
        ahead[0] = replace(ahead[0], activations=True)
    return ahead


def _next_block(code: AnyCode) -> list[Ahead]:
    if not code.tiles:
        return [NOT_AHEAD] * len(code.blocks)
    units = np.array([len(b.row) for b in code.blocks])
    form = _form(code)
    places = form.places if form else 2 if isinstance(code, PatternCode) and code.kind == "n_of_m" else 1
    if isinstance(code, PatternCode) and (code.turns > 1 or code.kind == "n_of_m"):
        most = max(-(-len(b.row) // len(b.slices())) for b in code.blocks)
        step = -(-4 * places * most // code.tiles)
        return [Ahead(stream=-(-step // LINE), step=step)] * len(code.blocks)
    if isinstance(code, BlendCode):
        size = np.array([blend_bytes(code, b) for b in code.blocks])
    else:
        size = np.array([slices_bytes(form, code, b) if form else _straight_bytes(code, b) for b in code.blocks])
    per_line = LINE * code.tiles

    def lines(nbytes: np.ndarray) -> np.ndarray:
        return np.minimum(units, np.roll(-(-nbytes // per_line), -1))

    stream = lines(4 * places * units)
    size += 7 * lines(size) + 8 * stream  # the code that fetches is code too
    return [Ahead(int(c), int(w)) for c, w in zip(lines(size), stream, strict=True)]


def _straight_bytes(code: PatternCode, block: RowBlock) -> int:
    """Of the code without what fetches ahead."""
    loads = int(np.count_nonzero(np.diff(block.k))) + bool(len(block.k))
    inner = 7 * len(block.k) + 10 * loads + 7 * (len(block.k) // BUMP_UNITS)
    return sum(map(len, _frame(code, block))) + inner


def encode_block(code: AnyCode, block: AnyBlock, ahead: Ahead = NOT_AHEAD) -> bytes:
    """One block's function."""
    if isinstance(code, BlendCode):
        assert isinstance(block, BlendBlock)
        return encode_blend(code, block, ahead)
    assert isinstance(block, RowBlock)
    if code.kind == "n_of_m":
        return encode_n_of_m(code, block, ahead)
    form = _form(code)
    if form:
        return encode_slices(form, code, block, ahead)
    first, last = _frame(code, block)
    return first + (_loop if code.turns > 1 else _straight)(code, block, ahead) + last


def _frame(code: PatternCode, block: RowBlock) -> tuple[bytes, bytes]:
    """What comes before the multiply-accumulates, and what comes after them."""
    rows = range(block.rows)
    if code.ending is not None and code.ending.has_bias:
        first = ending.begin(block.rows)
    else:
        begin = begin_with if code.in_registers else reload if code.resumes else clear
        first = b"".join(map(begin, rows))
        if code.narrow:
            first = narrowed(np.frombuffer(first, np.uint8).reshape(block.rows, -1)).tobytes()
    if code.in_registers:
        last = RETURN_VECTORS
    elif code.ending is not None:
        last = ending.end(code.ending, block.rows) + RETURN
    else:
        last = b"".join(map(store, rows)) + RETURN
    return ENDBR64 + first, last


def _activations(block: RowBlock) -> int:
    """The first register of activations; those behind it take turns."""
    return max(MAX_ROWS, block.rows)


def _loop(code: PatternCode, block: RowBlock, ahead: Ahead) -> bytes:
    """The body, pointers on, and back."""
    turn = _straight(code, block, ahead) + _advance(code, block, ahead) + bytes.fromhex("ffc9")
    back = -(len(turn) + 6)
    return b"\xb9" + code.turns.to_bytes(4, "little") + turn + b"\x0f\x85" + back.to_bytes(4, "little", signed=True)


def _advance(code: PatternCode, block: RowBlock, ahead: Ahead) -> bytes:
    """add rdi, the turn's bytes; add rsi, what the body has left of its units; add r8; with 32-bit immediates."""
    parts = [(0x48, 0xC7, code.turn_bytes), (0x48, 0xC6, _left_over(block))]
    if ahead.step:
        parts.append((0x49, 0xC0, ahead.step))
    return b"".join(bytes([rex, 0x81, modrm]) + value.to_bytes(4, "little") for rex, modrm, value in parts)


def _left_over(block: RowBlock) -> int:
    """Bytes of the stream between where the body leaves its pointer and where it has read to."""
    count = len(block.k)
    return 4 * (count - max(0, count - 1) // BUMP_UNITS * BUMP_UNITS)


def _straight(code: PatternCode, block: RowBlock, ahead: Ahead) -> bytes:
    first = np.diff(block.k, prepend=-1) != 0
    low = _activations(block)
    x = low + (np.cumsum(first) - 1) % (32 - low)
    index = np.arange(len(block.k))
    offsets = code.offsets[block.k[first]]
    loads, products = loads_of(x[first], offsets), macs(code.kind, block.row, x, index)
    if code.narrow:
        loads, products = narrowed(loads), narrowed(products)
    if ahead.activations:
        loads = np.concatenate([_fetches(offsets + TILES_AHEAD * LINE), loads], 1)
    return body(products, first, loads, index, ahead, len(index))


def _fetches(displacement: np.ndarray) -> np.ndarray:
    """prefetcht0 [rdi + disp32]."""
    out = np.empty((len(displacement), 7), np.uint8)
    out[:, :3] = (0x0F, 0x18, 0x8F)
    out[:, 3:] = displacement.astype("<i4").view(np.uint8).reshape(-1, 4)
    return out


def assembler(code: AnyCode, block: AnyBlock, ahead: Ahead = NOT_AHEAD) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    if isinstance(code, BlendCode):
        assert isinstance(block, BlendBlock)
        return blend_assembler(code, block, ahead)
    assert isinstance(block, RowBlock)
    if code.kind == "n_of_m":
        return n_of_m_assembler(code, block, ahead)
    form = _form(code)
    if form:
        return slices_assembler(form, code, block, ahead)
    mnemonic = {"f32": "vfmadd231ps", "u8s8": "vpdpbusd"}[code.kind]
    lines = ["endbr64"]
    rows = range(block.rows)
    if code.ending is not None and code.ending.has_bias:
        lines += ending.begin_lines(block.rows)
    elif code.in_registers:
        lines += [f"{{disp8}} vpbroadcastd zmm{r}, dword ptr [rdx + {4 * r}]" for r in rows]
    elif code.resumes:
        lines += [f"{{disp8}} vmovups zmm{r}, [rdx + {64 * r}]" for r in rows]
    else:
        lines += [f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in rows]
    if code.turns > 1:
        lines += [f"mov ecx, {code.turns}", "1:"]
    count, low = len(block.k), _activations(block)
    loaded, last, x = -1, -1, 0
    for i, (k, row) in enumerate(zip(block.k.tolist(), block.row.tolist(), strict=True)):
        if i % BUMP_UNITS == 0 and i:
            lines.append("add rsi, 1024")
        lines += fetched_lines(ahead, i, count)
        if k != last:
            loaded += 1
            last, x = k, low + loaded % (32 - low)
            if ahead.activations:
                lines.append(f"{{disp32}} prefetcht0 [rdi + {int(code.offsets[k]) + TILES_AHEAD * LINE}]")
            lines.append(f"{{disp32}} vmovups zmm{x}, [rdi + {int(code.offsets[k])}]")
        offset = 4 * (i % BUMP_UNITS) - STREAM_BIAS
        lines.append(f"{{disp8}} {mnemonic} zmm{row}, zmm{x}, dword ptr [rsi + {offset}]{{1to16}}")
    if code.turns > 1:
        lines += [
            f".byte 0x48, 0x81, 0xc7; .long {code.turn_bytes}",
            f".byte 0x48, 0x81, 0xc6; .long {_left_over(block)}",
        ]
        if ahead.step:
            lines.append(f".byte 0x49, 0x81, 0xc0; .long {ahead.step}")
        lines += ["dec ecx", "{disp32} jnz 1b"]
    if code.in_registers:
        text = "\n".join([*lines, "ret\n"])
        if code.narrow:
            text = text.replace("zmm", "ymm").replace("1to16", "1to8").replace("} v", "} {evex} v")
        return text
    if code.ending is not None:
        lines += ending.end_lines(code.ending, block.rows)
    else:
        lines += [f"{{disp8}} vmovups [rdx + {64 * r}], zmm{r}" for r in rows]
    return "\n".join([*lines, "vzeroupper", "ret"]) + "\n"
