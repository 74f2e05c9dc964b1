"""AVX-512 code of blended row blocks (codegen_templates/blended.py), encoded with numpy.

The function is that of x86.py. Sums are in the first registers, a slot's vector in zmm30 - slot, what is blended in
zmm31. k1 .. k7 hold the masks of bytes 0 to 2 of a unit; a mask with byte 3 is the other one, operands exchanged.
"""

from __future__ import annotations

import numpy as np

from ....codegen_templates.blended import LANES, REGISTERS, BlendBlock, BlendCode
from .evex import (
    BUMP_UNITS,
    ENDBR64,
    NOT_AHEAD,
    RETURN,
    RETURN_VECTORS,
    STREAM_BIAS,
    Ahead,
    begin_with,
    clear,
    fetched_lines,
    fetches,
    interleave,
    inverted,
    loads_of,
    macs,
    store,
)

_BLENDED = 31
_MASKS = 1 << LANES - 1
_KMOV_BYTES = 9


def encode_blend(code: BlendCode, block: BlendBlock, ahead: Ahead) -> bytes:
    """One block's function, and behind it the masks that it reads."""
    rows = range(block.rows)
    begun = b"".join(map(begin_with if code.in_registers else clear, rows))
    stored = RETURN_VECTORS if code.in_registers else b"".join(map(store, rows)) + RETURN
    tail = begun + _inner(code, block, ahead) + stored
    return ENDBR64 + _masks(len(tail)) + tail + _mask_table()


def blend_bytes(code: BlendCode, block: BlendBlock) -> int:
    """Length of the function without what fetches ahead."""
    return len(encode_blend(code, block, NOT_AHEAD))


def _mask_table() -> bytes:
    """64 bits for each of 1 .. 7, its four repeated."""
    return b"".join((mask * 0x11).to_bytes(1, "little") * 8 for mask in range(1, _MASKS))


def _masks(behind: int) -> bytes:
    """VEX.L0.0F.W1 90 /r: kmovq k, [rip + disp32]; the table begins so many bytes after the last of them."""
    code = b""
    for k in range(1, _MASKS):
        disp = (_MASKS - 1 - k) * _KMOV_BYTES + behind + 8 * (k - 1)
        code += bytes([0xC4, 0xE1, 0xF8, 0x90, 0x05 | k << 3]) + disp.to_bytes(4, "little")
    return code


def _inner(code: BlendCode, block: BlendBlock, ahead: Ahead) -> bytes:
    count = len(block.row)
    index = np.arange(count)
    register = REGISTERS - 1 - block.slot
    chain, lanes = _chain(block)
    several = chain[:, 1] >= 0
    pieces = fetches(ahead, index, count)
    pieces.append((block.before, loads_of(register, code.offsets[block.unit])))
    for i in range(1, LANES):
        mine = np.flatnonzero(chain[:, i] >= 0)
        onto = register[chain[mine, 0]] if i == 1 else np.full(len(mine), _BLENDED)
        pieces.append((mine, _blends(onto, register[chain[mine, i]], lanes[mine, i])))
    x = np.where(several, _BLENDED, register[chain[:, 0]])
    return interleave([*pieces, (index, macs("u8s8", block.row, x, index))])


def _chain(block: BlendBlock) -> tuple[np.ndarray, np.ndarray]:
    """(the loads that each one blends, ascending, then -1; the bytes of each as bits): both [macs, 4]."""
    ordered = np.sort(block.source, axis=1)
    new = ordered >= 0
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    chain = np.full(ordered.shape, -1, np.int64)
    mac, place = np.nonzero(new)
    chain[mac, np.cumsum(new, axis=1)[mac, place] - 1] = ordered[mac, place]
    same = (block.source[:, None, :] == chain[:, :, None]) & (chain[:, :, None] >= 0)
    return chain, (same << np.arange(LANES)).sum(2)


def _blends(onto: np.ndarray, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """EVEX.512.66.0F38.W0 66 /r: vpblendmb zmm31{k}, onto, x takes the lanes of x."""
    swapped = lanes >= _MASKS
    mask = np.where(swapped, 2 * _MASKS - 1 - lanes, lanes)
    first, second = np.where(swapped, x, onto), np.where(swapped, onto, x)
    out = np.empty((len(x), 6), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = inverted(second, 4) << 6 | inverted(second, 3) << 5 | 2
    out[:, 2] = (~first & 15) << 3 | 0x05
    out[:, 3] = 0x40 | inverted(first, 4) << 3 | mask
    out[:, 4] = 0x66
    out[:, 5] = 0xC0 | (_BLENDED & 7) << 3 | second & 7
    return out


def blend_assembler(code: BlendCode, block: BlendBlock, ahead: Ahead) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    lines = ["endbr64", *(f"kmovq k{k}, [rip + 1f + {8 * (k - 1)}]" for k in range(1, _MASKS))]
    rows = range(block.rows)
    if code.in_registers:
        lines += [f"{{disp8}} vpbroadcastd zmm{r}, dword ptr [rdx + {4 * r}]" for r in rows]
    else:
        lines += [f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in rows]
    register = [REGISTERS - 1 - s for s in block.slot.tolist()]
    count = len(block.row)
    for i, (row, source) in enumerate(zip(block.row.tolist(), block.source.tolist(), strict=True)):
        lines += ["add rsi, 1024"] * (i % BUMP_UNITS == 0 and i > 0)
        lines += fetched_lines(ahead, i, count)
        for load in np.flatnonzero(block.before == i).tolist():
            lines.append(f"{{disp32}} vmovups zmm{register[load]}, [rdi + {int(code.offsets[block.unit[load]])}]")
        first, *others = sorted(set(source) - {-1})
        x = register[first]
        for other in others:
            lanes, pair = sum((load == other) << lane for lane, load in enumerate(source)), (x, register[other])
            if lanes >= _MASKS:
                lanes, pair = 2 * _MASKS - 1 - lanes, pair[::-1]
            lines.append(f"vpblendmb zmm{_BLENDED}{{k{lanes}}}, zmm{pair[0]}, zmm{pair[1]}")
            x = _BLENDED
        offset = 4 * (i % BUMP_UNITS) - STREAM_BIAS
        lines.append(f"{{disp8}} vpdpbusd zmm{row}, zmm{x}, dword ptr [rsi + {offset}]{{1to16}}")
    if not code.in_registers:
        lines += [*(f"{{disp8}} vmovups [rdx + {64 * r}], zmm{r}" for r in rows), "vzeroupper"]
    lines += ["ret", "1:"]
    lines += [f".byte {', '.join([str(mask * 0x11)] * 8)}" for mask in range(1, _MASKS)]
    return "\n".join(lines) + "\n"
