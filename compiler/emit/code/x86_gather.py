"""AVX-512 VBMI code of gathered row blocks (codegen_templates/gathered.py), encoded with numpy.

The function is that of x86.py. zmm0 .. zmm27 are sums, zmm28 the byte permutation; a group's first two k come together
in ymm30 or ymm31, its others in ymm29, and one permutation of both makes the unit. (Broadcasts to a masked quarter of
a register would need no inserts, but each occupies both load ports.) Loads reach 256 planes of 16 bytes from each of
four base registers by a scaled displacement of one byte.
"""

from __future__ import annotations

import numpy as np

from ....codegen_templates.gathered import LANES, GatherBlock, GatherCode
from .evex import (
    BUMP_UNITS,
    ENDBR64,
    NOT_AHEAD,
    RETURN,
    STREAM_BIAS,
    Ahead,
    body,
    clear,
    fetched_lines,
    inverted,
    macs,
    store,
)

_INDEX, _SECOND, _FIRST, _TEMPORARIES = 28, 29, 30, 2
_PLANE, _WINDOW = 16, 4096
_BASES = {0: "rax", 9: "r9", 10: "r10", 11: "r11"}
_ORDER = (np.array([0, 16, 64, 80])[np.arange(64) % LANES] + np.arange(64) // LANES).astype(np.uint8)
"""From four planes of 16 columns, two in either register, to 16 columns of four bytes."""
_PERMUTE_BYTES = 6


def encode_gather(code: GatherCode, block: GatherBlock, ahead: Ahead) -> bytes:
    """One block's function, and behind it the permutation that it reads."""
    zero = b"".join(clear(r) for r in range(block.rows))
    inner = b"".join(_part(code, block, ahead, *part) for part in _parts(code, block))
    tail = inner + b"".join(store(r) for r in range(block.rows)) + RETURN
    order = bytes.fromhex("62617c481025") + len(zero + tail).to_bytes(4, "little")
    return ENDBR64 + order + zero + tail + _ORDER.tobytes()


def gather_bytes(code: GatherCode, block: GatherBlock) -> int:
    """Length of the function without what fetches ahead."""
    return len(encode_gather(code, block, NOT_AHEAD))


def _parts(code: GatherCode, block: GatherBlock) -> list[tuple[int, int, np.ndarray | None]]:
    """(first group, last group + 1, windows that the base registers point into), as few as there can be.

    Offsets that are no multiples of 16 are reached with 32 bits, and need no windows.
    """
    groups = len(block.k)
    if not groups:
        return []
    if (code.offsets % _PLANE).any():
        return [(0, groups, None)]
    windows = code.offsets[block.k] // _WINDOW
    parts, first, seen = [], 0, set[int]()
    for i, mine in enumerate(windows.tolist()):
        if len(seen.union(mine)) > len(_BASES):
            parts.append((first, i, np.array(sorted(seen))))
            first, seen = i, set()
        seen.update(mine)
    return [*parts, (first, groups, np.array(sorted(seen)))]


def _part(
    code: GatherCode, block: GatherBlock, ahead: Ahead, begin: int, end: int, windows: np.ndarray | None
) -> bytes:
    low, high = np.searchsorted(block.group, (begin, end))
    index, group = np.arange(low, high), block.group[low:high]
    first = np.diff(group, prepend=-1) != 0
    x = _FIRST + group % _TEMPORARIES
    second = np.full(end - begin, _SECOND)
    loads = [
        _loads(x[first] if lane < 2 else second, lane, code.offsets[block.k[begin:end, lane]], windows)
        for lane in range(LANES)
    ]
    gathers = np.concatenate([*loads, _permutes(x[first])], axis=1)
    units = macs("u8s8", block.row[low:high], x, index)
    return _set_bases(windows) + body(units, first, gathers, index, ahead, len(block.group))


def _set_bases(windows: np.ndarray | None) -> bytes:
    """lea base, [rdi + the middle of the window]."""
    code = b""
    for base, window in zip(_BASES, [] if windows is None else windows.tolist(), strict=False):
        code += bytes([0x48 | (base >> 3) << 2, 0x8D, 0x87 | (base & 7) << 3]) + _middle(window).to_bytes(4, "little")
    return code


def _middle(window: int) -> int:
    return window * _WINDOW + _WINDOW // 2


def _loads(x: np.ndarray, lane: int, offsets: np.ndarray, windows: np.ndarray | None) -> np.ndarray:
    """EVEX.128.F3.0F.W0 6F /r: vmovdqu32 xmm_x, [base + disp] for even lanes; for odd ones

    EVEX.256.66.0F3A.W0 38 /r 1: vinserti32x4 ymm_x, ymm_x, [base + disp], 1.
    """
    odd = lane % 2
    out = np.empty((len(x), (10 if windows is None else 7) + odd), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = inverted(x, 3) << 7 | 0x40 | inverted(x, 4) << 4 | (3 if odd else 1)
    if odd:
        out[:, 2] = (~x & 15) << 3 | 0x05
        out[:, 3] = 0x20 | inverted(x, 4) << 3
        out[:, -1] = 1
    else:
        out[:, 2:4] = (0x7E, 0x08)
    out[:, 4] = 0x38 if odd else 0x6F
    if windows is None:
        if int(offsets.max()) >= 1 << 31:
            raise ValueError("the activations of a layer exceed 2 GiB")
        out[:, 1] |= 0x20
        out[:, 5] = 0x87 | (x & 7) << 3
        out[:, 6:10] = offsets.astype("<i4").view(np.uint8).reshape(-1, 4)
        return out
    window = offsets // _WINDOW
    base = np.array(list(_BASES))[np.searchsorted(windows, window)]
    out[:, 1] |= inverted(base, 3) << 5
    out[:, 5] = 0x40 | (x & 7) << 3 | base & 7
    out[:, 6] = ((offsets - window * _WINDOW - _WINDOW // 2) // _PLANE).astype(np.int8).view(np.uint8)
    return out


def _permutes(x: np.ndarray) -> np.ndarray:
    """EVEX.512.66.0F38.W0 7D /r: vpermt2b zmm_x, zmm_index, zmm_second."""
    out = np.empty((len(x), _PERMUTE_BYTES), np.uint8)
    out[:, 0] = 0x62
    out[:, 1] = inverted(x, 3) << 7 | (~_SECOND >> 4 & 1) << 6 | (~_SECOND >> 3 & 1) << 5 | inverted(x, 4) << 4 | 2
    out[:, 2:5] = ((~_INDEX & 15) << 3 | 0x05, 0x40, 0x7D)
    out[:, 5] = 0xC0 | (x & 7) << 3 | _SECOND & 7
    return out


def gather_assembler(code: GatherCode, block: GatherBlock, ahead: Ahead) -> str:
    """The same function as text (GNU as, Intel syntax): the reference that tests compare with."""
    lines = ["endbr64", f"vmovups zmm{_INDEX}, [rip + 1f]"]
    lines += [f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in range(block.rows)]
    for begin, end, windows in _parts(code, block):
        bases = {} if windows is None else dict(zip(windows.tolist(), _BASES, strict=False))
        lines += [f"lea {_BASES[b]}, [rdi + {_middle(w)}]" for w, b in bases.items()]
        for group in range(begin, end):
            x = _FIRST + group % _TEMPORARIES
            loads = [f"vpermt2b zmm{x}, zmm{_INDEX}, zmm{_SECOND}"]
            for lane, k in reversed(list(enumerate(block.k[group].tolist()))):
                to, offset = x if lane < 2 else _SECOND, int(code.offsets[k])
                where = f"{{disp32}} OP xmmword ptr [rdi + {offset}]"
                if windows is not None:
                    window = offset // _WINDOW
                    where = f"{{disp8}} OP xmmword ptr [{_BASES[bases[window]]} + {offset - _middle(window)}]"
                op = f"vinserti32x4 ymm{to}, ymm{to}," if lane % 2 else f"vmovdqu32 xmm{to},"
                loads.insert(0, where.replace("OP", op) + ", 1" * (lane % 2))
            for i in np.flatnonzero(block.group == group).tolist():
                lines += ["add rsi, 1024"] * (i % BUMP_UNITS == 0 and i > 0)
                lines += fetched_lines(ahead, i, len(block.group)) + loads
                loads = []
                offset = 4 * (i % BUMP_UNITS) - STREAM_BIAS
                lines.append(f"{{disp8}} vpdpbusd zmm{block.row[i]}, zmm{x}, dword ptr [rsi + {offset}]{{1to16}}")
    lines += [*(f"{{disp8}} vmovups [rdx + {64 * r}], zmm{r}" for r in range(block.rows)), "vzeroupper", "ret"]
    return "\n".join([*lines, "1:", f".byte {', '.join(map(str, _ORDER.tolist()))}"]) + "\n"
