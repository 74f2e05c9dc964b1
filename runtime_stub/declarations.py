"""The functions and types of sparsec.h as cffi declarations.

Parsing C costs 30 ms and more. `_declarations.py`, checked in, is the result for the usual prefix; make it again with
`python -m sparsec.runtime_stub.declarations` when sparsec.h changes.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from .names import DEFAULT_PREFIX, with_prefix

_HERE = Path(__file__).parent
_HEAD = """\
# Made from sparsec.h by `python -m sparsec.runtime_stub.declarations`. Do not edit.
# fmt: off
# ruff: noqa
"""


@lru_cache(maxsize=8)
def declarations(prefix: str) -> Any:
    """A cffi.FFI that knows sparsec.h with this prefix."""
    if prefix == DEFAULT_PREFIX:
        from ._declarations import ffi

        return ffi
    return _parse(prefix)


def _parse(prefix: str) -> Any:
    import cffi

    header = (_HERE / "sparsec.h").read_text(encoding="utf-8")
    body = header[header.index("/* Tensors as in DLPack") : header.rindex("#ifdef __cplusplus")]
    lines = [line.replace("SPARSEC_API ", "") for line in body.splitlines() if not line.startswith("#")]
    ffi = cffi.FFI()
    ffi.cdef(with_prefix("\n".join(lines), prefix))
    return ffi


def python_text() -> str:
    """What `_declarations.py` must hold."""
    import contextlib
    import io
    import tempfile

    ffi = _parse(DEFAULT_PREFIX)
    ffi.set_source(f"{__package__}._declarations", None)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "_declarations.py"
        ffi.emit_python_code(str(path))
        return _HEAD + path.read_text(encoding="utf-8")


if __name__ == "__main__":
    (_HERE / "_declarations.py").write_text(python_text(), encoding="utf-8")
