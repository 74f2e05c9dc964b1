"""AArch64 code of row blocks, encoded with numpy: `fmla` and `sdot` by lane, the weights in lanes of registers.

A block is a function `void block(const void *x, const void *w, void *out, int64 quarters)` (AAPCS64) for tiles of 16
columns, of which it computes so many quarters, four columns at a time: up to 28 accumulators, two vectors of
activations, of which one is loaded ahead, and two of weights, eight units to a load. x in x0 is the place from which
the offsets count, w in x1 the block's stream plus 512 bytes, out in x2 room for rows * 64 bytes. What is fetched ahead
of the next block pattern_code.h fetches. It calls nothing; tests/emit compares the bytes with those of an assembler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....codegen_templates.pattern import PatternCode, RowBlock
from ....codegen_templates.use import AnyCode
from .aarch64_matrix import encode_matrix, matrix_assembler

LINE = 64
STREAM_BIAS = 512
BUMP_UNITS = 256
_ACCUMULATORS = np.array([*range(8), *range(16, 28), *range(8, 16)])
"""By row; the last eight are the caller's, to be saved."""
_FREE_ROWS = 20
_X = (28, 29)
_W = (30, 31)
_WINDOW = 1 << 16
"""Bytes that the offset of a load reaches, in steps of 16."""
_MAC = {"f32": 0x4F801000, "u8s8": 0x4F80E000}
"""fmla v.4s, v.4s, v.s[lane]; sdot v.4s, v.16b, v.4b[lane]."""
_MNEMONIC = {"f32": ("fmla", "4s", "s"), "u8s8": ("sdot", "16b", "4b")}
_BTI, _RET = 0xD503245F, 0xD65F03C0
_POINTER, _STREAM, _QUARTER, _TURN, _FAR, _LAST = 6, 7, 5, 4, 3, 8
"""General registers: activations and weights as they advance, what is left of the loops, a distance, the last units."""
_BASES = (9, 10, 11, 12)
"""One for each distance from a multiple of 16."""


def encode(code: AnyCode) -> bytes:
    """Tables of uint32, then the blocks, each on a line of its own: as x86.encode.

    The tables: the offset of every block and of the end; bytes of code and of the stream that a call fetches ahead.
    """
    assert isinstance(code, PatternCode)
    count = len(code.blocks)
    at = -(-4 * (3 * count + 1) // LINE) * LINE
    offsets, functions = [], []
    for block in code.blocks:
        function = encode_block(code, block)
        offsets.append(at)
        functions.append(function + bytes(-len(function) % LINE))
        at += len(functions[-1])
    sizes = np.diff([*offsets, at])
    streams = np.array([4 * code.turns * stream_units(code, block) for block in code.blocks])
    ahead = [np.roll(-(-s // code.tiles), -1) if code.tiles else 0 * s for s in (sizes, streams)]
    table = np.asarray([*offsets, at, *ahead[0], *ahead[1]], "<u4").tobytes()
    return table + bytes(offsets[0] - len(table) if offsets else 0) + b"".join(functions)


def stream_units(code: PatternCode, block: RowBlock) -> int:
    """Places of the stream that a turn takes."""
    if code.kind == "s8_pairs":
        return -(-block.rows // 4) * 4 * (-(-len(code.offsets) // 2) * 2)
    return len(block.k)


def encode_block(code: PatternCode, block: RowBlock) -> bytes:
    """One block's function."""
    if code.kind == "s8_pairs":
        return encode_matrix(code, block)
    rows = np.arange(block.rows)
    registers = _ACCUMULATORS[rows]
    saved = block.rows > _FREE_ROWS
    out: list[Sequence[int] | np.ndarray] = [[_BTI]]
    if saved:
        out.append(
            [0x6DBC27E8, 0x6D012FEA, 0x6D0237EC, 0x6D033FEE]
        )  # stp d8, d9, [sp, -64]!; stp d10, d11, [sp, 16]; …
    out.append([0x2A0303E0 | _QUARTER])  # mov w5, w3
    quarter: list[Sequence[int] | np.ndarray] = [[_copy(_POINTER, 0), _copy(_STREAM, 1)]]
    # ldr q, [x2, row * 64]; movi v.2d, 0
    quarter.append(0x3DC00040 | rows * 4 << 10 | registers if code.resumes else 0x6F00E400 | registers)
    quarter.append(_loop(code, block) if code.turns > 1 else _straight(code, block))
    quarter.append(0x3D800040 | rows * 4 << 10 | registers)  # str q, [x2, row * 64]
    quarter.append([_add(0, 16), _add(2, 16)])
    words = np.concatenate([np.asarray(part, np.uint32) for part in quarter])
    out += [words, _again(_QUARTER, len(words))]
    if saved:
        out.append([0x6D412FEA, 0x6D4237EC, 0x6D433FEE, 0x6CC427E8])  # ldp d10, d11, [sp, 16]; …; ldp d8, d9, [sp], 64
    out.append([_RET])
    return np.concatenate([np.asarray(part, np.uint32) for part in out]).astype("<u4").tobytes()


def _loop(code: PatternCode, block: RowBlock) -> np.ndarray:
    """The body, pointers on, and back."""
    advance = [
        *_distance(_FAR, code.turn_bytes),
        0x8B23C000 | _FAR << 16 | _POINTER << 5 | _POINTER,
    ]  # add x, x, w, sxtw
    if code.turn_bytes < 4096:
        advance = [_add(_POINTER, code.turn_bytes)]
    turn = np.concatenate([_straight(code, block), advance, [_add(_STREAM, _left_over(block))]])
    return np.concatenate([[*_distance(_TURN, code.turns)], turn, _again(_TURN, len(turn))])


def _left_over(block: RowBlock) -> int:
    """Bytes of the stream between where the body leaves its pointer and where it has read to."""
    count = len(block.k)
    return 4 * (count - max(0, count - 1) // BUMP_UNITS * BUMP_UNITS)


@dataclass(frozen=True)
class _Body:
    """What a body does, by unit or by load of activations; `at`: before which unit."""

    mac_x: np.ndarray
    mac_w: np.ndarray
    lane: np.ndarray
    weight_at: np.ndarray
    weight_units: np.ndarray
    weight_register: np.ndarray
    load_at: np.ndarray
    load_x: np.ndarray
    load_offset: np.ndarray
    load_base: np.ndarray
    """Register."""
    bases: list[tuple[int, list[tuple[int, str]]]]
    """Before which load a base has to be moved, and the instructions that do it."""
    bump_at: np.ndarray


def _plan(code: PatternCode, block: RowBlock) -> _Body:
    count = len(block.k)
    index = np.arange(count)
    first = np.diff(block.k, prepend=-1) != 0
    group = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    offsets = code.offsets[block.k[first]].astype(np.int64)
    if (offsets % 4).any() or (np.abs(offsets) >= 1 << 31).any():
        raise ValueError("activations of a layer lie more than 2 GiB apart, or not on words")
    beside, window = offsets % 16, offsets // _WINDOW
    near = (beside == 0) & (window == 0)
    bases = []
    for distance in range(0, 16, 4):
        mine = np.flatnonzero((beside == distance) & ~near)
        before = None
        for i in mine[np.diff(window[mine], prepend=np.iinfo(np.int64).min) != 0].tolist():
            bases.append((i, _moved(_BASES[distance // 4], distance, int(window[i]), before)))
            before = int(window[i])
    # the last units, one to seven: four, two and one at a time, so that nothing behind the stream is read
    whole = count // 8 * 8
    tail = np.array([], int)
    units = np.array([], int)
    for size in (4, 2, 1):
        if (count - whole) & size:
            tail = np.append(tail, whole + int(units.sum()))
            units = np.append(units, size)
    weight_at = np.concatenate([np.arange(0, whole, 8), tail])
    weight_units = np.concatenate([np.full(whole // 8, 8), units])
    tail_register = np.arange(len(tail)) % 2
    mac_w = index % 8 // 4
    lane = index % 4
    for at, size, register in zip(tail, units, tail_register, strict=True):
        mac_w[at : at + size] = register
        lane[at : at + size] = np.arange(size)
    loads = np.arange(len(starts))
    return _Body(
        np.asarray(_X)[group % 2],
        np.asarray(_W)[mac_w],
        lane,
        weight_at,
        weight_units,
        np.asarray(_W)[np.concatenate([np.zeros(whole // 8, int), tail_register])],
        starts[np.maximum(loads - 1, 0)],
        np.asarray(_X)[loads % 2],
        (offsets - beside) % _WINDOW,
        np.where(near, _POINTER, np.asarray(_BASES)[beside // 4]),
        bases,
        index[(index % BUMP_UNITS == 0) & (index > 0)],
    )


def _straight(code: PatternCode, block: RowBlock) -> np.ndarray:
    """Before a unit: the stream's pointer on, its weights, activations of the next group; then multiply-accumulate."""
    if not len(block.k):
        return np.zeros(0, np.uint32)
    body = _plan(code, block)
    tail = body.weight_at[body.weight_units < 8][:1]
    parts = [
        (body.bump_at, np.full(len(body.bump_at), _add(_STREAM, 4 * BUMP_UNITS))),
        (tail, np.full(len(tail), 0xD1000000 | STREAM_BIAS << 10 | _STREAM << 5 | _LAST)),  # sub x8, x7, 512
        (body.weight_at, _weight_loads(body.weight_units, body.weight_register, 4 * (body.weight_at % BUMP_UNITS))),
        (
            body.load_at,
            0x3DC00000 | body.load_offset // 16 << 10 | body.load_base << 5 | body.load_x,
        ),  # ldr q, [x, offset]
        (
            np.arange(len(block.k)),
            _MAC[code.kind]
            | (body.lane & 1) << 21
            | body.mac_w << 16
            | (body.lane >> 1) << 11
            | body.mac_x << 5
            | _ACCUMULATORS[block.row],
        ),
    ]
    # an instruction's place: its unit, which of the parts, its number in the part, its number within three
    at = [p[0] for p in parts]
    rank = [np.full(len(p[0]), 4 * i) for i, p in enumerate(parts)]
    number = [np.arange(len(p[0])) for p in parts]
    step = [np.full(len(p[0]), 3) for p in parts]
    words = [p[1] for p in parts]
    moves = [(load, i, word) for load, found in body.bases for i, (word, _) in enumerate(found)]
    if moves:
        load, i, word = np.array(moves, np.int64).T
        for keys, values in zip(
            (at, rank, number, step, words), (body.load_at[load], 12 + 0 * i, load, i, word), strict=True
        ):
            keys.append(values)
    order = np.lexsort([np.concatenate(key) for key in (step, number, rank, at)])
    return np.concatenate(words)[order].astype(np.uint32)


def _weight_loads(units: np.ndarray, register: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """ldp q, q, [x7, offset - 512] of eight units, ldr q, d or s, [x8, offset] of fewer."""
    pair = 0xAD400000 | ((offset - STREAM_BIAS) // 16 & 0x7F) << 15 | _W[1] << 10 | _STREAM << 5 | _W[0]
    one = offset // (4 * units) << 10 | _LAST << 5 | register
    return np.select([units == 8, units == 4, units == 2], [pair, 0x3DC00000 | one, 0xFD400000 | one], 0xBD400000 | one)


def _moved(base: int, beside: int, window: int, before: int | None) -> list[tuple[int, str]]:
    """As words and as text: the base register to `beside` bytes and so many windows behind the activations."""
    step = window if before is None else window - before
    if abs(step) > 0xFF:
        value = beside + window * _WINDOW
        last = 0x8B20C000 | _FAR << 16 | _POINTER << 5 | base, f"add x{base}, x{_POINTER}, w{_FAR}, sxtw"
        return [*zip(_distance(_FAR, value), _distance_text(value), strict=True), last]
    moves = []
    source = base
    if before is None and (beside or not step):
        moves.append((0x91000000 | beside << 10 | _POINTER << 5 | base, f"add x{base}, x{_POINTER}, {beside}"))
    elif before is None:
        source = _POINTER
    if step:
        name, word = ("add", 0x91400000) if step > 0 else ("sub", 0xD1400000)
        pages = abs(step) * (_WINDOW >> 12)
        moves.append((word | pages << 10 | source << 5 | base, f"{name} x{base}, x{source}, {pages}, lsl 12"))
    return moves


def _distance(register: int, value: int) -> list[int]:
    """movz w, low; movk w, high, lsl 16."""
    return [0x52800000 | (value & 0xFFFF) << 5 | register, 0x72A00000 | (value >> 16 & 0xFFFF) << 5 | register]


def _copy(register: int, source: int) -> int:
    return 0xAA0003E0 | source << 16 | register


def _add(register: int, value: int) -> int:
    return 0x91000000 | value << 10 | register << 5 | register


def _again(register: int, words: int) -> list[int]:
    """subs w, w, 1; b.ne to `words` before it."""
    return [0x71000400 | register << 5 | register, 0x54000001 | (-(words + 1) & 0x7FFFF) << 5]


def assembler(code: PatternCode, block: RowBlock) -> str:
    """The same function as text (GNU as): the reference that tests compare with."""
    if code.kind == "s8_pairs":
        return matrix_assembler(code, block)
    acc = _ACCUMULATORS.tolist()
    saved = block.rows > _FREE_ROWS
    lines = ["hint 34"]
    if saved:
        lines += [
            "stp d8, d9, [sp, -64]!",
            "stp d10, d11, [sp, 16]",
            "stp d12, d13, [sp, 32]",
            "stp d14, d15, [sp, 48]",
        ]
    lines += ["mov w5, w3", "1:", "mov x6, x0", "mov x7, x1"]
    lines += [f"ldr q{acc[r]}, [x2, {64 * r}]" if code.resumes else f"movi v{acc[r]}.2d, 0" for r in range(block.rows)]
    if code.turns > 1:
        lines += [f"movz w4, {code.turns & 0xFFFF}", f"movk w4, {code.turns >> 16}, lsl 16", "2:"]
    lines += _body_text(code, block)
    if code.turns > 1:
        if code.turn_bytes < 4096:
            lines.append(f"add x6, x6, {code.turn_bytes}")
        else:
            lines += [*_distance_text(code.turn_bytes), "add x6, x6, w3, sxtw"]
        lines += [f"add x7, x7, {_left_over(block)}", "subs w4, w4, 1", "b.ne 2b"]
    lines += [f"str q{acc[r]}, [x2, {64 * r}]" for r in range(block.rows)]
    lines += ["add x0, x0, 16", "add x2, x2, 16", "subs w5, w5, 1", "b.ne 1b"]
    if saved:
        lines += ["ldp d10, d11, [sp, 16]", "ldp d12, d13, [sp, 32]", "ldp d14, d15, [sp, 48]", "ldp d8, d9, [sp], 64"]
    return "\n".join([*lines, "ret"]) + "\n"


def _body_text(code: PatternCode, block: RowBlock) -> list[str]:
    mnemonic, whole, part = _MNEMONIC[code.kind]
    groups = list(dict.fromkeys(block.k.tolist()))
    held: dict[int, int | None] = {}

    def load(number: int) -> list[str]:
        offset = int(code.offsets[groups[number]])
        beside, window = offset % 16, offset // _WINDOW
        base, made = _POINTER, []
        if beside or window:
            base = _BASES[beside // 4]
            if beside not in held or held[beside] != window:
                made = [text for _, text in _moved(base, beside, window, held.get(beside))]
                held[beside] = window
        return [*made, f"ldr q{_X[number % 2]}, [x{base}, {(offset - beside) % _WINDOW}]"]

    lines: list[str] = []
    count, current = len(block.k), -1
    weights: list[tuple[int, int]] = []
    turn = 0
    for i, (k, row) in enumerate(zip(block.k.tolist(), block.row.tolist(), strict=True)):
        if i % BUMP_UNITS == 0 and i:
            lines.append("add x7, x7, 1024")
        if not weights:
            left = count - i
            if left >= 8:
                lines.append(f"ldp q30, q31, [x7, {4 * (i % BUMP_UNITS) - STREAM_BIAS}]")
                weights = [(w, lane) for w in _W for lane in range(4)]
            else:
                size = next(s for s in (4, 2, 1) if s <= left)
                lines += [f"sub x8, x7, {STREAM_BIAS}"] if turn == 0 else []
                lines.append(f"ldr {({4: 'q', 2: 'd', 1: 's'})[size]}{_W[turn % 2]}, [x8, {4 * (i % BUMP_UNITS)}]")
                weights = [(_W[turn % 2], lane) for lane in range(size)]
                turn += 1
        if current < 0 or k != groups[current]:
            current += 1
            lines += load(0) if current == 0 else []
            lines += load(current + 1) if current + 1 < len(groups) else []
        w, lane = weights.pop(0)
        lines.append(f"{mnemonic} v{_ACCUMULATORS[row]}.4s, v{_X[current % 2]}.{whole}, v{w}.{part}[{lane}]")
    return lines


def _distance_text(value: int) -> list[str]:
    return [f"movz w3, {value & 0xFFFF}", f"movk w3, {value >> 16 & 0xFFFF}, lsl 16"]
