"""The weights section: every constant once, 64-byte aligned, assembled with `.incbin` so that no compiler reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..lower.program import Constant, Program

ALIGNMENT = 64
LARGE = 1 << 30
"""Above this many bytes the x86-64 section is a large one (`.lrodata`), out of reach of 32-bit relocations' users."""


class WeightsWriter:
    """Streams constants into one file; equal bytes share one offset."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._offsets: dict[tuple[str, bytes], int] = {}
        self._by_identity: dict[int, int] = {}
        self._hash = hashlib.sha256()

    def write(self, program: Program) -> None:
        """Writes every constant of the program, in order of first use."""
        pointers = [p for step in program.steps for p in step.pointers]
        with self.path.open("wb") as file:
            for constant in pointers:
                if not isinstance(constant, Constant) or id(constant.data) in self._by_identity:
                    continue
                data = np.ascontiguousarray(constant.data).reshape(-1).view(np.uint8).data
                key = (str(data.nbytes), hashlib.sha256(data).digest())
                if key not in self._offsets:
                    padding = bytes(-self.size % ALIGNMENT)
                    for piece in (padding, data):
                        file.write(piece)
                        self._hash.update(piece)
                    self._offsets[key] = self.size + len(padding)
                    self.size += len(padding) + data.nbytes
                self._by_identity[id(constant.data)] = self._offsets[key]

    def offset(self, constant: Constant) -> int:
        """Where a written constant lies."""
        return self._by_identity[id(constant.data)]

    @property
    def sha256(self) -> str:
        """Digest of the whole file."""
        return self._hash.hexdigest()


def assembler_text(weights: WeightsWriter, manifest: bytes, machine: str) -> str:
    """The weights and the section `.sparsec.manifest`, read from weights.bin and manifest.json in the build folder.

    The digests are in the text because the toolchain's cache does not look into `.incbin` files.
    """
    large = machine == "x86_64" and weights.size > LARGE
    section = '.lrodata,"al",@progbits' if large else '.sparsec.weights,"a",@progbits'
    note = "@progbits" if machine == "x86_64" else "%progbits"  # @ begins a comment on ARM
    return f"""\
/* weights {weights.sha256} manifest {hashlib.sha256(manifest).hexdigest()} */
    .section {section.replace("@progbits", note)}
    .balign {ALIGNMENT}
    .globl sparsec_weights_blob
    .hidden sparsec_weights_blob
sparsec_weights_blob:
    .incbin "weights.bin"
    .byte 0
    .section .sparsec.manifest,"a",{note}
    .globl sparsec_manifest_text
    .hidden sparsec_manifest_text
sparsec_manifest_text:
    .incbin "manifest.json"
    .byte 0
    .section .note.GNU-stack,"",{note}
"""
