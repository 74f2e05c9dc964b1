"""Sections of ELF and Mach-O files, read from untrusted bytes: every offset is checked against the file's length."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_ELF_MACHINES = {
    62: "x86_64",
    183: "aarch64",
    40: "armv7l",
    243: "riscv64",
}
_MACHO_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_MACHO_MAGIC = b"\xcf\xfa\xed\xfe"
_SHT_NOBITS, _SHF_EXECINSTR, _ET_DYN = 8, 4, 3
_MH_DYLIB, _LC_SEGMENT_64, _S_ATTR_CODE, _S_TYPE, _S_ZEROFILL = 6, 0x19, 0x80000400, 0xFF, (0x1, 0xC)


@dataclass(frozen=True)
class Section:
    """Where a section's bytes lie in the file; `length` is 0 where it has none."""

    name: str
    offset: int
    length: int
    is_code: bool


@dataclass(frozen=True)
class ObjectFile:
    """What a file says of itself. `machine` and `system` as in `platform`: `x86_64`, `Linux`."""

    system: str
    machine: str
    is_library: bool
    sections: tuple[Section, ...]


def read(file: BinaryIO, offset: int, length: int) -> bytes:
    """Bytes of the file.

    Raises:
        EOFError: it ends before.
    """
    size = os.fstat(file.fileno()).st_size
    if offset + length > size:
        raise EOFError(f"{length} bytes expected at {offset}, the file ends at {size}")
    file.seek(offset)
    return file.read(length)


def read_sections(file: BinaryIO, base: int, size: int) -> ObjectFile | None:
    """The object or library of `size` bytes at `base`; None when it is neither ELF nor 64-bit Mach-O.

    Raises:
        EOFError, struct.error, ValueError, LookupError: it is damaged or cut short.
    """
    if size < 64:
        return None
    head = read(file, base, 64)
    if head[:4] == _MACHO_MAGIC:
        return _macho(file, base, size, head)
    if head[:5] in (b"\x7fELF\x01", b"\x7fELF\x02"):
        return _elf(file, base, size, head)
    return None


def _elf(file: BinaryIO, base: int, size: int, head: bytes) -> ObjectFile:
    is_wide = head[4] == 2
    kind, machine = struct.unpack_from("<HH", head, 16)
    phoff, shoff = struct.unpack_from("<QQ" if is_wide else "<II", head, 32 if is_wide else 28)
    phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", head, 54 if is_wide else 42)
    for i in range(phnum):
        at = base + phoff + i * phentsize
        if is_wide:
            _, _, offset, _, _, length, _, _ = struct.unpack("<IIQQQQQQ", read(file, at, 56))
        else:
            _, offset, _, _, length, *_ = struct.unpack("<8I", read(file, at, 32))
        if offset + length > size:
            raise EOFError(f"a segment ends at {offset + length}, the file at {size}")
    if shoff == 0 or shoff + shnum * shentsize > size:
        raise EOFError(f"the section table ends at {shoff + shnum * shentsize}, the file at {size}")
    form = struct.Struct("<IIQQQQIIQQ" if is_wide else "<10I")
    rows = [form.unpack(read(file, base + shoff + i * shentsize, form.size)) for i in range(shnum)]
    names = read(file, base + rows[shstrndx][4], rows[shstrndx][5])
    sections = []
    for name, section_type, flags, _, offset, length, *_ in rows:
        if section_type == _SHT_NOBITS:
            length = 0
        if offset + length > size:
            raise EOFError(f"a section ends at {offset + length}, the file at {size}")
        text = names[name : names.index(b"\0", name)].decode("ascii", "replace")
        sections.append(Section(text, base + offset, length, bool(flags & _SHF_EXECINSTR)))
    machine_name = _ELF_MACHINES.get(machine, f"ELF machine {machine}")
    return ObjectFile("Linux", machine_name, kind == _ET_DYN, tuple(sections))


def _macho(file: BinaryIO, base: int, size: int, head: bytes) -> ObjectFile:
    cpu, _, kind, n_commands, commands_size = struct.unpack_from("<5I", head, 4)
    commands = read(file, base + 32, commands_size)
    at, sections = 0, []
    for _ in range(n_commands):
        command, length = struct.unpack_from("<II", commands, at)
        if length < 8 or at + length > commands_size:
            raise EOFError("a load command ends after the load commands")
        if command == _LC_SEGMENT_64:
            sections += _macho_sections(commands[at : at + length], base, size)
        at += length
    machine = _MACHO_MACHINES.get(cpu, f"Mach-O CPU {cpu:#x}")
    return ObjectFile("Darwin", machine, kind == _MH_DYLIB, tuple(sections))


def _macho_sections(segment: bytes, base: int, size: int) -> list[Section]:
    offset, length = struct.unpack_from("<QQ", segment, 40)
    if offset + length > size:
        raise EOFError(f"a segment ends at {offset + length}, the file at {size}")
    (count,) = struct.unpack_from("<I", segment, 64)
    sections = []
    for i in range(count):
        name, segment_name, _, length, offset, _, _, _, flags = struct.unpack_from("<16s16sQQ5I", segment, 72 + 80 * i)
        if flags & _S_TYPE in _S_ZEROFILL:
            length = 0
        if offset + length > size:
            raise EOFError(f"a section ends at {offset + length}, the file at {size}")
        text = ",".join(part.rstrip(b"\0").decode("ascii", "replace") for part in (segment_name, name))
        sections.append(Section(text, base + offset, length, bool(flags & _S_ATTR_CODE)))
    return sections
