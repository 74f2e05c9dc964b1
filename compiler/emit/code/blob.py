"""Machine code of layers as assembler units that read it with `.incbin`: it lies in .text and needs no relocation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ....codegen_templates.use import AnyCode
from ...lower.program import CodeBlob, Program
from ...target import Target
from ..assembler import CODE, Directives
from . import aarch64, x86

_WRITERS: dict[str, Callable[[AnyCode], bytes]] = {"x86_64": x86.encode, "aarch64": aarch64.encode}
"""By machine."""


def code_blobs(programs: Iterable[Program]) -> list[CodeBlob]:
    """Every blob of the programs, once."""
    steps = [step for program in programs for step in program.steps]
    found = {p.name: p for step in steps for p in step.pointers if isinstance(p, CodeBlob)}
    return [found[name] for name in sorted(found)]


def write_code(folder: Path, blobs: list[CodeBlob], target: Target) -> tuple[str, dict[str, int]]:
    """Writes `code.bin` with all blobs and returns the assembler text that names them, and their sizes."""
    sizes = {}
    directives = Directives(target)
    text = [directives.head(), directives.section(CODE)]
    at = 0
    with (folder / "code.bin").open("wb") as file:
        for blob in blobs:
            data = _WRITERS[target.machine](blob.pattern)
            sizes[blob.name] = len(data)
            file.write(data)
            name = f"sparsec_code_{blob.name}"
            text += [
                directives.label(name, 64),
                f'    .incbin "code.bin", {at}, {len(data)}\n',
                directives.function(name, len(data)),
            ]
            at += len(data)
    return "".join([*text, directives.end()]), sizes
