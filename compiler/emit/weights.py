"""The weights section: every constant once, 64-byte aligned, assembled with `.incbin` so that no compiler reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..lower.program import Constant, Program
from .assembler import CONSTANTS, LARGE_WEIGHTS, MANIFEST, WEIGHTS, Directives
from .member import Member

ALIGNMENT = 64
LARGE = 1 << 30
"""Above this many bytes the x86-64 section is a large one."""


class WeightsWriter:
    """Streams constants into one file; equal bytes share one offset."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._offsets: dict[tuple[str, bytes], int] = {}
        self._by_identity: dict[int, int] = {}
        self._hash = hashlib.sha256()

    def write(self, programs: Iterable[Program]) -> None:
        """Writes every constant of the programs, in order of first use; what several of them have is there once."""
        pointers = [p for program in programs for step in program.steps for p in step.pointers]
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


def assembler_text(weights: WeightsWriter, manifests: Sequence[tuple[Member, bytes]]) -> str:
    """The weights and the manifests: that of the first member has a section of its own.

    They are read from weights.bin and from the members' `manifest_file` in the build folder. The digests are in the
    text because the toolchain's cache does not look into `.incbin` files.
    """
    target = manifests[0][0].target
    at = Directives(target)
    is_large = target.machine == "x86_64" and weights.size > LARGE
    digests = " ".join(hashlib.sha256(text).hexdigest() for _, text in manifests)
    text = [
        f"/* weights {weights.sha256} manifests {digests} */\n",
        at.head(),
        at.section(LARGE_WEIGHTS if is_large else WEIGHTS),
        at.label("sparsec_weights_blob", ALIGNMENT),
        '    .incbin "weights.bin"\n    .byte 0\n',
    ]
    for number, (member, _) in enumerate(manifests):
        text += [
            at.section(CONSTANTS if number else MANIFEST),
            at.label(f"sparsec_manifest_text{member.suffix}", 1),
            f'    .incbin "{member.manifest_file}"\n    .byte 0\n',
        ]
    return "".join([*text, at.end()])
