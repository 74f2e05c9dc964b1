"""AArch64 code of dense int8 row blocks by `smmla`: two rows of eight weights times two columns of eight activations.

The function, its arguments and its tile are those of aarch64.py. Four columns of two units of k become two operands by
two permutations; 28 registers of sums, two rows by two columns each, are rows again when they are stored. The stream
(`matrix_stream` of row_code.py) holds for each two units the rows, two by two, in fours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....codegen_templates.pattern import PatternCode, RowBlock

_LOW, _HIGH, _FIRST, _WEIGHTS = 28, 29, 30, 31
"""Vector registers: of activations as they are loaded, the operand of the first two columns; the second is _HIGH."""
_BIAS, _BUMP = 512, 1024
_WINDOW = 1 << 16
_ACCUMULATORS = (*range(8), *range(16, 28), *range(8, 16))
"""The last eight are the caller's, to be saved."""
_FREE = 20
Instruction = tuple[int, str]
"""As a word and as text."""


def instructions(code: PatternCode, block: RowBlock) -> Iterator[Instruction]:
    """The block's function."""
    quads = -(-block.rows // 4)
    saved = 4 * quads > _FREE
    yield 0xD503245F, "hint 34"
    if saved:
        yield 0x6DBC27E8, "stp d8, d9, [sp, -64]!"
        yield from _saved(0x6D002FEA, "stp")
    yield 0x2A0303E5, "mov w5, w3"
    quarter = list(_quarter(code, block, quads))
    yield from quarter
    yield 0x710004A5, "subs w5, w5, 1"
    yield 0x54000001 | (-(len(quarter) + 1) & 0x7FFFF) << 5, f"b.ne .-{4 * (len(quarter) + 1)}"
    if saved:
        yield from _saved(0x6D402FEA, "ldp")
        yield 0x6CC427E8, "ldp d8, d9, [sp], 64"
    yield 0xD65F03C0, "ret"


def _saved(word: int, mnemonic: str) -> Iterator[Instruction]:
    for i in range(1, 4):
        yield word + (i << 16) + (i - 1) * 0x802, f"{mnemonic} d{8 + 2 * i}, d{9 + 2 * i}, [sp, {16 * i}]"


def _quarter(code: PatternCode, block: RowBlock, quads: int) -> Iterator[Instruction]:
    """Four columns."""
    yield 0xAA0003E6, "mov x6, x0"
    yield 0xAA0103E7, "mov x7, x1"
    for r in _ACCUMULATORS[: 4 * quads]:
        yield 0x6F00E400 | r, f"movi v{r}.2d, 0"
    turn = list(_turn(code, quads))
    yield from _constant(4, code.turns)
    yield from turn
    yield 0x71000484, "subs w4, w4, 1"
    yield 0x54000001 | (-(len(turn) + 1) & 0x7FFFF) << 5, f"b.ne .-{4 * (len(turn) + 1)}"
    for pair in range(-(-block.rows // 2)):
        a, b = _ACCUMULATORS[2 * pair : 2 * pair + 2]
        for half in range(min(2, block.rows - 2 * pair)):
            at = 2 * pair + half
            yield _zip(0x4EC03800, half, _LOW + half, a, b, "2d")
            yield 0x3D800040 | 4 * at << 10 | _LOW + half, f"str q{_LOW + half}, [x2, {64 * at}]"
    yield 0x91004000, "add x0, x0, 16"
    yield 0x91004042, "add x2, x2, 16"


def _turn(code: PatternCode, quads: int) -> Iterator[Instruction]:
    offsets = [int(o) for o in code.offsets]
    at = 0  # of the stream, in bytes
    for k in range(0, len(offsets), 2):
        yield from _load(_LOW, offsets[k])
        both = k + 1 < len(offsets)  # else the weights of the second are zero
        if both:
            yield from _load(_HIGH, offsets[k + 1])
        high = _HIGH if both else _LOW
        yield _zip(0x4E803800, 0, _FIRST, _LOW, high, "4s")
        yield _zip(0x4E803800, 1, _HIGH, _LOW, high, "4s")
        for quad in range(quads):
            if at == _BUMP:
                yield _add(7, _BUMP)
                at = 0
            where = at - _BIAS
            word = 0xAD400000 | (where // 16 & 0x7F) << 15 | _WEIGHTS << 10 | 7 << 5 | _LOW
            yield word, f"ldp q{_LOW}, q{_WEIGHTS}, [x7, {where}]"
            at += 32
            for i, w in enumerate((_LOW, _WEIGHTS)):
                for j, x in enumerate((_FIRST, _HIGH)):
                    acc = _ACCUMULATORS[4 * quad + 2 * i + j]
                    yield 0x4E80A400 | x << 16 | w << 5 | acc, f"smmla v{acc}.4s, v{w}.16b, v{x}.16b"
    yield _add(7, at)
    if code.turn_bytes < 4096:
        yield _add(6, code.turn_bytes)
    else:
        yield from _constant(3, code.turn_bytes)
        yield 0x8B23C0C6, "add x6, x6, w3, sxtw"


def _load(register: int, offset: int) -> Iterator[Instruction]:
    """Any distance on words."""
    beside, window = offset % 16, offset // _WINDOW
    base = 6
    if beside or window:
        base = 9
        yield from _constant(3, beside + window * _WINDOW)
        yield 0x8B23C0C9, "add x9, x6, w3, sxtw"
    near = (offset - beside) % _WINDOW
    yield 0x3DC00000 | near // 16 << 10 | base << 5 | register, f"ldr q{register}, [x{base}, {near}]"


def _constant(register: int, value: int) -> Iterator[Instruction]:
    low, high = value & 0xFFFF, value >> 16 & 0xFFFF
    yield 0x52800000 | low << 5 | register, f"movz w{register}, {low}"
    yield 0x72A00000 | high << 5 | register, f"movk w{register}, {high}, lsl 16"


def _add(register: int, value: int) -> Instruction:
    return 0x91000000 | value << 10 | register << 5 | register, f"add x{register}, x{register}, {value}"


def _zip(word: int, second: int, to: int, a: int, b: int, lanes: str) -> Instruction:
    text = f"zip{1 + second} v{to}.{lanes}, v{a}.{lanes}, v{b}.{lanes}"
    return word | second << 14 | b << 16 | a << 5 | to, text


def encode_matrix(code: PatternCode, block: RowBlock) -> bytes:
    """The function's bytes."""
    return np.array([word for word, _ in instructions(code, block)], "<u4").tobytes()


def matrix_assembler(code: PatternCode, block: RowBlock) -> str:
    """The function as text (GNU as)."""
    return "\n".join(text for _, text in instructions(code, block)) + "\n"
