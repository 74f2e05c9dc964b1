"""Code of row blocks for x86 whose multiply-accumulates take no broadcast from memory, encoded with numpy.

The function is that of x86.py. A block's rows are summed a slice at a time (`RowBlock.height`), 16 columns of each: in
two registers of AVX2, or in one of AVX-512. A weight is broadcast into a register, then it multiplies the activations.

Without VNNI four products of bytes take three instructions: `vpmaddubsw` adds two products in 16 bits, which must not
saturate (codegen_templates/row_code.py), `vpmaddwd` by ones adds two of these in 32. Where every weight is taken, so
that activations are loaded for many rows, weights have 16 bits instead and nothing saturates: even and odd bytes of
the activations become words when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....codegen_templates.pattern import PatternCode, RowBlock
from .evex import BUMP_UNITS, ENDBR64, LINE, NOT_AHEAD, RETURN, RETURN_VECTORS, STREAM_BIAS, Ahead, body, fetched_lines
from .vector_ops import Operation, encode_operation, operation_text

TILES_AHEAD = 2


@dataclass(frozen=True)
class Form:
    """How an ISA multiplies units of one kind. Registers from 0 on are sums: `vectors` of a row one after the other."""

    vectors: int
    """Registers of 16 columns: two of AVX2, one of AVX-512."""
    prepare: tuple[Operation, ...]
    """Before the first slice."""
    load: Callable[[Any], tuple[Operation, ...]]
    """Activations at an offset, one or an array of them."""
    unit: Callable[[Any, Sequence[Any]], tuple[Operation, ...]]
    """Of a row's sums and the places of its weights in the stream, one of each or arrays."""
    places: int = 1
    """Of four bytes that a unit has in the stream."""

    @property
    def bump_units(self) -> int:
        """Places that a displacement of one byte reaches; AVX-512 scales it."""
        return BUMP_UNITS if self.vectors == 1 else BUMP_UNITS // 4


def _f32(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
    return (
        Operation("vbroadcastss", 14, stream=at[0]),
        Operation("vfmadd231ps", 2 * row, 12, 14),
        Operation("vfmadd231ps", 2 * row + 1, 13, 14),
    )


def _pair_loads(first: int) -> Callable[[Any], tuple[Operation, ...]]:
    return lambda offset: (
        Operation("vmovups", first, activations=offset),
        Operation("vmovups", first + 1, activations=offset + 32),
    )


def _vnni(encoding: str) -> Form:
    def unit(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
        return (
            Operation("vbroadcastss", 14, stream=at[0]),
            Operation(encoding, 2 * row, 12, 14),
            Operation(encoding, 2 * row + 1, 13, 14),
        )

    return Form(2, (), _pair_loads(12), unit)


def _bytes(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
    return (
        Operation("vbroadcastss", 12, stream=at[0]),
        Operation("vpmaddubsw", 13, 10, 12),
        Operation("vpmaddubsw", 12, 11, 12),
        Operation("vpmaddwd", 13, 13, 14),
        Operation("vpmaddwd", 12, 12, 14),
        Operation("vpaddd", 2 * row, 2 * row, 13),
        Operation("vpaddd", 2 * row + 1, 2 * row + 1, 12),
    )


def _words(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
    part: list[Operation] = []
    for place, x in zip(at, (12, 10), strict=True):  # even bytes, odd ones
        part += (
            Operation("vbroadcastss", 14, stream=place),
            Operation("vpmaddwd", 15, x, 14),
            Operation("vpmaddwd", 14, x + 1, 14),
            Operation("vpaddd", 2 * row, 2 * row, 15),
            Operation("vpaddd", 2 * row + 1, 2 * row + 1, 14),
        )
    return tuple(part)


def _word_loads(offset: Any) -> tuple[Operation, ...]:
    loads: list[Operation] = []
    for half in range(2):
        loads += (
            Operation("vmovups", 10 + half, activations=offset + 32 * half),
            Operation("vpsllw", 12 + half, 10 + half, immediate=8),
            Operation("vpsrlw", 12 + half, 12 + half, immediate=8),
            Operation("vpsrlw", 10 + half, 10 + half, immediate=8),
        )
    return tuple(loads)


def _wide_bytes(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
    return (
        Operation("vbroadcastss", 29, stream=at[0], wide=True),
        Operation("vpmaddubsw", 29, 30, 29, wide=True),
        Operation("vpmaddwd", 29, 29, 28, wide=True),
        Operation("vpaddd", row, row, 29, wide=True),
    )


def _wide_words(row: Any, at: Sequence[Any]) -> tuple[Operation, ...]:
    part: list[Operation] = []
    for place, x in zip(at, (28, 29), strict=True):
        part += (
            Operation("vbroadcastss", 30, stream=place, wide=True),
            Operation("vpmaddwd", 31, x, 30, wide=True),
            Operation("vpaddd", row, row, 31, wide=True),
        )
    return tuple(part)


def _wide_word_loads(offset: Any) -> tuple[Operation, ...]:
    return (
        Operation("vmovups", 29, activations=offset, wide=True),
        Operation("vpsllw", 28, 29, immediate=8, wide=True),
        Operation("vpsrlw", 28, 28, immediate=8, wide=True),
        Operation("vpsrlw", 29, 29, immediate=8, wide=True),
    )


def _ones(register: int, *, wide: bool) -> tuple[Operation, ...]:
    """1 in every word."""
    all_bits = (
        Operation("vpternlogd", register, register, register, immediate=255, wide=True)
        if wide
        else Operation("vpcmpeqw", register, register, register)
    )
    return (all_bits, Operation("vpsrlw", register, register, immediate=15, wide=wide))


_PAIRS_F32 = Form(2, (), _pair_loads(12), _f32)
FORMS = {
    ("avx2", "f32"): _PAIRS_F32,
    ("avx2", "u8s8"): Form(2, _ones(14, wide=False), _pair_loads(10), _bytes),
    ("avx2", "u8s16"): Form(2, (), _word_loads, _words, places=2),
    ("avx2-vnni", "f32"): _PAIRS_F32,
    ("avx2-vnni", "u8s8"): _vnni("vpdpbusd"),
    # the same as CPUs with AVX-512 run it, for tests
    ("avx2-vnni-evex", "f32"): _PAIRS_F32,
    ("avx2-vnni-evex", "u8s8"): _vnni("vpdpbusd_evex"),
    ("avx512-novnni", "u8s8"): Form(
        1, _ones(28, wide=True), lambda offset: (Operation("vmovups", 30, activations=offset, wide=True),), _wide_bytes
    ),
    ("avx512-novnni", "u8s16"): Form(1, (), _wide_word_loads, _wide_words, places=2),
}
"""By ISA and kind; what is not here, x86.py encodes."""


def encode_slices(form: Form, code: PatternCode, block: RowBlock, ahead: Ahead) -> bytes:
    """One block's function."""
    parts = [ENDBR64, *_bytes_of(form.prepare)]
    if form.vectors == 2:
        parts.append(_add_to_stream(form.bump_units * 2 - STREAM_BIAS))
    if code.turns > 1:
        parts.append(_KEEP_X)
    step = block.height or block.rows
    for low, high in block.slices():
        edges = np.searchsorted(block.row // step, (low // step, low // step + 1))
        parts += _bytes_of(_begin(form, code, low, high))
        parts.append(_part(form, code, block, ahead, *edges.tolist()))
        parts += _bytes_of(_end(form, code, low, high))
    return b"".join(parts) + (RETURN_VECTORS if code.in_registers else RETURN)


def slices_bytes(form: Form, code: PatternCode, block: RowBlock) -> int:
    """Length of straight-line code, about, without what fetches ahead."""
    slices = block.row // (block.height or block.rows)
    loads = int(np.count_nonzero(np.diff(block.k + slices * (1 << 24)))) + bool(len(block.k))
    unit = sum(len(encode_operation(o)[0]) for o in form.unit(0, [0] * form.places))
    load = sum(len(encode_operation(o)[0]) for o in form.load(0))
    return 32 + 14 * form.vectors * block.rows + unit * len(block.k) + load * loads


_KEEP_X, _RESTORE_X = bytes.fromhex("4989f9"), bytes.fromhex("4c89cf")
"""mov r9, rdi and back."""


def _bytes_of(operations: Sequence[Operation]) -> list[bytes]:
    return [encode_operation(o).tobytes() for o in operations]


def _columns_of(operations: Sequence[Operation], count: int) -> np.ndarray:
    """A row of bytes for each of `count` uses of the operations, whose registers and places may be arrays."""
    parts = [encode_operation(o) for o in operations]
    return np.concatenate([np.broadcast_to(p, (count, p.shape[1])) for p in parts], 1)


def _begin(form: Form, code: PatternCode, low: int, high: int) -> list[Operation]:
    wide = form.vectors == 1
    registers = range((high - low) * form.vectors)
    if code.in_registers:
        return [Operation("vbroadcastss", r, sums=4 * r, wide=wide) for r in registers]
    if not code.resumes:
        return [Operation("vpxord" if wide else "vpxor", r, r, r, wide=wide) for r in registers]
    return [Operation("vmovups", r, sums=_place(form, low, r), wide=wide) for r in registers]


def _end(form: Form, code: PatternCode, low: int, high: int) -> list[Operation]:
    registers = range(0 if code.in_registers else (high - low) * form.vectors)
    return [Operation("vmovups_store", r, sums=_place(form, low, r), wide=form.vectors == 1) for r in registers]


def _place(form: Form, low: int, register: int) -> int:
    """Where the sums of a register are stored."""
    return LINE * low + LINE // form.vectors * register


def _part(form: Form, code: PatternCode, block: RowBlock, ahead: Ahead, begin: int, end: int) -> bytes:
    """The multiply-accumulates of a slice."""
    straight = _straight(form, code, block, ahead, begin, end)
    if code.turns == 1:
        return straight
    turn = straight + _advance(form, code, ahead, end - begin) + bytes.fromhex("ffc9")
    back = -(len(turn) + 6)
    loop = b"\xb9" + code.turns.to_bytes(4, "little") + turn + b"\x0f\x85" + back.to_bytes(4, "little", signed=True)
    return loop + _RESTORE_X


def _straight(form: Form, code: PatternCode, block: RowBlock, ahead: Ahead, begin: int, end: int) -> bytes:
    k, row = block.k[begin:end], block.row[begin:end] % (block.height or block.rows)
    first = np.diff(k, prepend=-1) != 0
    # a loop reads its part of the stream from its beginning; straight-line code goes on where the last slice ended
    index = np.arange(end - begin) if code.turns > 1 else np.arange(begin, end)
    count = len(index) if code.turns > 1 else len(block.k)
    half = form.bump_units // 2
    at = [(form.places * index + p) % form.bump_units - half for p in range(form.places)]
    units = _columns_of(form.unit(row, at), len(index))
    offsets = code.offsets[k[first]]
    if len(offsets) and int(offsets.max()) >= (1 << 31) - LINE:
        raise ValueError("the activations of a layer exceed 2 GiB")
    loads = _columns_of(_fetching(form.load(offsets), offsets, ahead), len(offsets))
    bump = (form.bump_units // form.places, _add_to_stream(4 * form.bump_units))
    return body(units, first, loads, index, ahead, count, bump)


def _fetching(operations: Sequence[Operation], offset: Any, ahead: Ahead) -> list[Operation]:
    fetch = [Operation("prefetcht0", 0, activations=offset + TILES_AHEAD * LINE)] if ahead.activations else []
    return [*fetch, *operations]


def _add_to_stream(value: int) -> bytes:
    """add rsi, imm32."""
    return b"\x48\x81\xc6" + value.to_bytes(4, "little", signed=True)


def _left_over(form: Form, units: int) -> int:
    """Bytes of the stream between where a turn leaves its pointer and where it has read to."""
    count = units * form.places
    return 4 * (count - max(0, count - 1) // form.bump_units * form.bump_units)


def _advance(form: Form, code: PatternCode, ahead: Ahead, units: int) -> bytes:
    """add rdi, the turn's bytes; add rsi, what is left of its units; add r8; with 32-bit immediates."""
    parts = b"\x48\x81\xc7" + code.turn_bytes.to_bytes(4, "little") + _add_to_stream(_left_over(form, units))
    return parts + (b"\x49\x81\xc0" + ahead.step.to_bytes(4, "little") if ahead.step else b"")


def slices_assembler(form: Form, code: PatternCode, block: RowBlock, ahead: Ahead = NOT_AHEAD) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    lines = ["endbr64", *map(operation_text, form.prepare)]
    if form.vectors == 2:
        lines.append(f"add rsi, {form.bump_units * 2 - STREAM_BIAS}")
    lines += ["mov r9, rdi"] * (code.turns > 1)
    number, step = 0, block.height or block.rows
    for low, high in block.slices():
        inside = np.flatnonzero(block.row // step == low // step)
        lines += map(operation_text, _begin(form, code, low, high))
        if code.turns > 1:
            number = 0
            lines += [f"mov ecx, {code.turns}", f"{low + 1}:"]
        count = len(inside) if code.turns > 1 else len(block.k)
        last = -1
        for k, row in zip(block.k[inside].tolist(), (block.row[inside] - low).tolist(), strict=True):
            places = [form.places * number + p for p in range(form.places)]
            if places[0] % form.bump_units == 0 and number:
                lines.append(f"add rsi, {4 * form.bump_units}")
            lines += fetched_lines(ahead, number, count)
            offset = int(code.offsets[k])
            if k != last:
                lines += map(operation_text, _fetching(form.load(offset), offset, ahead))
            at = [p % form.bump_units - form.bump_units // 2 for p in places]
            lines += map(operation_text, form.unit(row, at))
            last, number = k, number + 1
        if code.turns > 1:
            left = _left_over(form, len(inside))
            lines += [f".byte 0x48, 0x81, 0xc7; .long {code.turn_bytes}", f".byte 0x48, 0x81, 0xc6; .long {left}"]
            lines += [f".byte 0x49, 0x81, 0xc0; .long {ahead.step}"] * bool(ahead.step)
            lines += ["dec ecx", f"{{disp32}} jnz {low + 1}b", "mov rdi, r9"]
        lines += map(operation_text, _end(form, code, low, high))
    return "\n".join([*lines, *["vzeroupper"] * (not code.in_registers), "ret"]) + "\n"
