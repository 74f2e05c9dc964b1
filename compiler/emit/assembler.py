"""Assembler directives, which differ between ELF and Mach-O objects and between architectures."""

from __future__ import annotations

from ..target import Target

WEIGHTS, LARGE_WEIGHTS, MANIFEST, CONSTANTS, CODE = "weights", "large weights", "manifest", "constants", "code"

_ELF = {
    WEIGHTS: '.sparsec.weights,"a",@progbits',
    # out of reach of 32-bit relocations' users
    LARGE_WEIGHTS: '.lrodata,"al",@progbits',
    MANIFEST: '.sparsec.manifest,"a",@progbits',
    CONSTANTS: '.rodata,"a",@progbits',
    CODE: '.text.sparsec_code,"ax",@progbits',
}
_MACHO = {
    WEIGHTS: "__TEXT,__sparsec_w",
    LARGE_WEIGHTS: "__TEXT,__sparsec_w",
    MANIFEST: "__TEXT,__sparsec_m",
    CONSTANTS: "__TEXT,__const",
    CODE: "__TEXT,__text,regular,pure_instructions",
}


class Directives:
    """Text for the C compiler's assembler, with its preprocessor, for one target."""

    def __init__(self, target: Target) -> None:
        self._is_macho = target.is_macos
        self._type = "@" if target.machine == "x86_64" else "%"  # @ begins a comment on ARM

    def head(self) -> str:
        """Begins a file. `SYMBOL` gives a C name the underscore that Mach-O wants."""
        return "#define SYMBOL(name) _##name\n" if self._is_macho else "#define SYMBOL(name) name\n"

    def section(self, kind: str) -> str:
        """What follows lies in that section."""
        name = _MACHO[kind] if self._is_macho else _ELF[kind].replace("@", self._type)
        return f"    .section {name}\n"

    def label(self, name: str, alignment: int) -> str:
        """Here begins `name`, which all objects of the artifact know, and nothing outside."""
        hidden = "private_extern" if self._is_macho else "hidden"
        return f"    .balign {alignment}\n    .globl SYMBOL({name})\n    .{hidden} SYMBOL({name})\nSYMBOL({name}):\n"

    def function(self, name: str, size: int) -> str:
        """`name`, which was begun, is a function of `size` bytes."""
        if self._is_macho:
            return ""
        return f"    .type {name}, {self._type}function\n    .size {name}, {size}\n"

    def end(self) -> str:
        """Ends a file: the stack need not be executable."""
        return "" if self._is_macho else f'    .section .note.GNU-stack,"",{self._type}progbits\n'
