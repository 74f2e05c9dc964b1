"""How much machine code an object file holds."""

from __future__ import annotations

import struct
from pathlib import Path

_SHF_EXECINSTR = 4


def code_bytes(path: Path) -> int:
    """Bytes of the executable sections of an ELF object."""
    data = path.read_bytes()
    is_wide = data[4] == 2
    (shoff,) = struct.unpack_from("<Q" if is_wide else "<I", data, 40 if is_wide else 32)
    shentsize, shnum = struct.unpack_from("<HH", data, 58 if is_wide else 46)
    total = 0
    for i in range(shnum):
        row = struct.unpack_from("<IIQQQQ" if is_wide else "<6I", data, shoff + i * shentsize)
        if row[2] & _SHF_EXECINSTR:
            total += row[5]
    return total
