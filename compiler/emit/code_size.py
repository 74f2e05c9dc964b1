"""How much machine code an object file holds."""

from __future__ import annotations

from pathlib import Path

from ...runtime_stub.object_file import read_sections


def code_bytes(path: Path) -> int:
    """Bytes of the executable sections of an ELF or Mach-O object."""
    with path.open("rb") as file:
        found = read_sections(file, 0, path.stat().st_size)
    return sum(section.length for section in found.sections if section.is_code) if found else 0
