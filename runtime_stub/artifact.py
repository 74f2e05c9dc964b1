"""Reads an artifact's manifest from the file, without running anything in it: works for any CPU.

Artifacts are ELF files (shared libraries or relocatable objects) or `ar` archives of such; the manifest is the
section `.sparsec.manifest`.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ArtifactError, CpuError
from .cpu import host_machine

ABI_VERSION = 1
SECTION = b".sparsec.manifest"
_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64"}
_SHT_NOBITS = 8
_SHARED_OBJECT = 3


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a `.so`, `.o` or `.a` artifact.

    Raises:
        ArtifactError: no such file, cut short, or not made by sparsec.
    """
    with _open(path) as file:
        return _manifest(Path(path), file)[0]


def check_loadable(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a shared library that this process may load.

    Raises:
        ArtifactError: as `read_manifest`, or not a shared library, or of another ABI version.
        CpuError: built for another architecture.
    """
    path = Path(path)
    with _open(path) as file:
        manifest, kind, machine = _manifest(path, file)
    if kind != _SHARED_OBJECT:
        raise ArtifactError(f"{path} is an object file or archive to be linked; only a .so can be loaded")
    if manifest.get("abi") != ABI_VERSION:
        raise ArtifactError(
            f"{path} has ABI version {manifest.get('abi')}, this runtime loads version {ABI_VERSION}: "
            "build it again, or install the sparsec that made it"
        )
    if machine != host_machine():
        raise CpuError(f"{path} was built for {machine}; this machine is {host_machine()}")
    return manifest


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ArtifactError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def _manifest(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int, str]:
    """(manifest, ELF type, machine)."""
    size = os.fstat(file.fileno()).st_size
    try:
        for offset, length in _members(file, size):
            found = _section(file, offset, length)
            if found is not None:
                text, kind, machine = found
                manifest = json.loads(text.rstrip(b"\0"))
                if not isinstance(manifest, dict):
                    raise ValueError("the manifest is not an object")
                return manifest, kind, machine
    except (struct.error, ValueError, EOFError, LookupError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged or cut short: {error}") from error
    raise ArtifactError(f"{path} was not made by sparsec: it holds no manifest")


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if offset + length > size:
        raise EOFError(f"{length} bytes expected at {offset}, the file ends at {size}")
    file.seek(offset)
    return file.read(length)


def _members(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the ELF files in an archive, or of the file itself."""
    if _read(file, 0, min(size, 8)) != b"!<arch>\n":
        return [(0, size)]
    members, at = [], 8
    while at < size:
        header = _read(file, at, 60)
        length = int(header[48:58])
        if length < 0 or at + 60 + length > size:
            raise EOFError("a member of the archive ends after the file")
        members.append((at + 60, length))
        at += 60 + length + length % 2
    return members


def _section(file: BinaryIO, base: int, size: int) -> tuple[bytes, int, str] | None:
    """The manifest section of the ELF file at `base`; None when it is no ELF or has no such section."""
    if size < 64:
        return None
    head = _read(file, base, 64)
    if head[:5] not in (b"\x7fELF\x01", b"\x7fELF\x02"):
        return None
    is_wide = head[4] == 2
    kind, machine = struct.unpack_from("<HH", head, 16)
    phoff, shoff = struct.unpack_from("<QQ" if is_wide else "<II", head, 32 if is_wide else 28)
    phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", head, 54 if is_wide else 42)
    for i in range(phnum):
        at = base + phoff + i * phentsize
        if is_wide:
            _, _, offset, _, _, length, _, _ = struct.unpack("<IIQQQQQQ", _read(file, at, 56))
        else:
            _, offset, _, _, length, *_ = struct.unpack("<8I", _read(file, at, 32))
        if offset + length > size:
            raise EOFError(f"a segment ends at {offset + length}, the file at {size}")
    if shoff == 0 or shoff + shnum * shentsize > size:
        raise EOFError(f"the section table ends at {shoff + shnum * shentsize}, the file at {size}")
    form = struct.Struct("<IIQQQQIIQQ" if is_wide else "<10I")
    rows = [form.unpack(_read(file, base + shoff + i * shentsize, form.size)) for i in range(shnum)]
    names = _read(file, base + rows[shstrndx][4], rows[shstrndx][5])
    for name, section_type, _, _, offset, length, *_ in rows:
        if section_type != _SHT_NOBITS and offset + length > size:
            raise EOFError(f"a section ends at {offset + length}, the file at {size}")
        if names[name : names.index(b"\0", name)] == SECTION:
            return _read(file, base + offset, length), kind, _MACHINES.get(machine, f"ELF machine {machine}")
    return None
