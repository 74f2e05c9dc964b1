"""Reads an artifact's manifest from the file, without running anything in it: works for any CPU.

Artifacts are ELF or Mach-O files (shared libraries or relocatable objects) or `ar` archives of such; the manifest is a
section of its own.
"""

from __future__ import annotations

import json
import os
import platform
import struct
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ArtifactError, CpuError
from .cpu import host_machine
from .object_file import ObjectFile, read, read_sections

ABI_VERSION = 1
SECTIONS = (".sparsec.manifest", "__TEXT,__sparsec_m")
"""Where the manifest lies in an ELF and in a Mach-O file."""


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
        manifest, found = _manifest(path, file)
    if not found.is_library:
        raise ArtifactError(f"{path} is an object file or archive to be linked; only a .so can be loaded")
    if manifest.get("abi") != ABI_VERSION:
        raise ArtifactError(
            f"{path} has ABI version {manifest.get('abi')}, this runtime loads version {ABI_VERSION}: "
            "build it again, or install the sparsec that made it"
        )
    if found.machine != host_machine():
        raise CpuError(f"{path} was built for {found.machine}; this machine is {host_machine()}")
    if found.system != platform.system():
        raise CpuError(f"{path} was built for {found.system}; this is {platform.system()}")
    return manifest


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ArtifactError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def _manifest(path: Path, file: BinaryIO) -> tuple[dict[str, Any], ObjectFile]:
    size = os.fstat(file.fileno()).st_size
    try:
        for offset, length in _members(file, size):
            found = read_sections(file, offset, length)
            for section in found.sections if found else ():
                if found is None or section.name not in SECTIONS:
                    continue
                manifest = json.loads(read(file, section.offset, section.length).rstrip(b"\0"))
                if not isinstance(manifest, dict):
                    raise ValueError("the manifest is not an object")
                return manifest, found
    except (struct.error, ValueError, EOFError, LookupError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged or cut short: {error}") from error
    raise ArtifactError(f"{path} was not made by sparsec: it holds no manifest")


def _members(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the ELF files in an archive, or of the file itself."""
    if read(file, 0, min(size, 8)) != b"!<arch>\n":
        return [(0, size)]
    members, at = [], 8
    while at < size:
        header = read(file, at, 60)
        length = int(header[48:58])
        if length < 0 or at + 60 + length > size:
            raise EOFError("a member of the archive ends after the file")
        # BSD's archives have long names before the member's bytes
        name = int(header[3:16]) if header[:3] == b"#1/" else 0
        if not 0 <= name <= length:
            raise EOFError("a member's name ends after the member")
        members.append((at + 60 + name, length - name))
        at += 60 + length + length % 2
    return members
