"""The compiler: an ONNX model in, a native library out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SparsecError

if TYPE_CHECKING:
    import onnx

    from .buckets import Bound

_EMITS = ("so", "a", "o", "c")


def build(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    target: str = "native",
    triple: str | None = None,
    output: str | os.PathLike[str] | None = None,
    dims: Mapping[str, Bound] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    turns: Mapping[str, int] | None = None,
    emit: str = "so",
    symbol_prefix: str = "sparsec_",
    kernels: Mapping[str, str] | None = None,
    optimize: str = "speed",
    max_size: int | None = None,
    jobs: int | None = None,
    report: str | os.PathLike[str] | None = None,
    dump_ir: str | os.PathLike[str] | None = None,
    on_stage: Callable[[int, str], None] | None = None,
) -> Path:
    """Compiles a model and returns the artifact's path.

    Args:
        model: path of an ONNX file, or a `ModelProto`.
        target: a row of `sparsec targets`, or `native` for this machine's best. Several, as `avx512,avx2,generic`: one
            artifact with code for each of them, of which the CPU gets the best that it can run.
        triple: another C library or system than the target's own: `aarch64-linux-musl`, `x86_64-linux-gnu.2.28`,
            `aarch64-macos`; for `generic` any architecture.
        output: where to write; default is the model's name with the suffix of `emit`, in the working folder.
        dims: dimension name -> size; or (lower, upper) to keep it dynamic between bounds, both included; or a list of
            upper bounds, `[16, 64, 128]`: dynamic from 1 (or, by `[(0, 16), 64, 128]`, from 0) to the last, with a
            program for each, of which a run takes the smallest that its sizes fit. They share the weights. A text such
            as `past+sequence` makes it the sum of others.
        shapes: input name -> whole shape, for dimensions without a name.
        fixed: input name -> value, for inputs that never change: the artifact does not have them.
        turns: name of a Loop -> the most turns it takes, where only a run knows: one that needs more is refused.
        emit: `so` shared library, `a` static library, `o` one object, `c` a folder of sources.
        symbol_prefix: what exported names begin with instead of `sparsec_`.
        kernels: layer, by the tensor it computes -> name of the kernel it has to take.
        optimize: `speed`, or `size`: the smallest kernels that are predicted to be no slower than dense ones.
        max_size: most bytes of weights and generated code; the layers that lose least by it take smaller kernels.
        jobs: parallel compiler processes; default is the number of CPUs this process may use.
        report: file for a JSON report of the build.
        dump_ir: folder for the IR after every stage.
        on_stage: called before every stage with its number and name in `compiler/pipeline.py`.

    Raises:
        ModelError, UnsupportedError, ShapeError, TargetError, ToolchainError: see `sparsec.errors`.
    """
    try:
        from .pipeline import Options, compile_model
        from .target import resolve_all
        from .tools.report import make_report
    except ModuleNotFoundError as error:
        if (error.name or "sparsec").startswith("sparsec"):
            raise
        raise SparsecError(f"the package {error.name} is not installed; pip install 'sparsec[compiler]'") from error

    if emit not in _EMITS:
        raise SparsecError(f"unknown --emit {emit!r}; one of: {', '.join(_EMITS)}")
    if optimize not in ("speed", "size"):
        raise SparsecError(f"unknown --optimize {optimize!r}; one of: speed, size")
    for name, most in (turns or {}).items():
        if most < 1:
            raise SparsecError(f"--turns {name}={most} is no number of turns")
    if max_size is not None and max_size <= 0:
        raise SparsecError(f"--max-size {max_size} is no number of bytes")
    if not symbol_prefix.isidentifier() or not symbol_prefix.isascii():
        raise SparsecError(f"symbol prefix {symbol_prefix!r} is no C identifier")
    targets = resolve_all(target, triple)
    if output is None:
        stem = Path(model).stem if isinstance(model, str | os.PathLike) else "model"
        output = stem + {"so": targets[0].library_suffix, "c": "_c"}.get(emit, f".{emit}")
    path = Path(output)
    _check_writable(path)
    if path.is_dir() and emit != "c":
        raise SparsecError(f"cannot write {path}: it is a folder")
    if report is not None:
        _check_writable(Path(report))
        if Path(report).is_dir():
            raise SparsecError(f"cannot write {report}: it is a folder")
    if dump_ir is not None:
        _make_folder(Path(dump_ir))
    options = Options(
        targets=targets,
        output=path,
        dims=dict(dims or {}),
        shapes=dict(shapes or {}),
        fixed=dict(fixed or {}),
        turns=dict(turns or {}),
        emit=emit,
        symbol_prefix=symbol_prefix,
        kernels=dict(kernels or {}),
        optimize=optimize,
        max_size=max_size,
        jobs=jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs or os.cpu_count() or 1,
        dump_ir=Path(dump_ir) if dump_ir is not None else None,
    )
    done = compile_model(model, options, on_stage)
    if report is not None:
        _write_whole(Path(report), json.dumps(make_report(done), indent=2) + "\n")
    return path


def _check_writable(path: Path) -> None:
    """Before the work is done, not after."""
    if not path.parent.is_dir():
        raise SparsecError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise SparsecError(f"cannot write {path}: no permission to write in {path.parent}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparsecError(f"cannot write the IR to {path}: {error.strerror}") from None


def _write_whole(path: Path, text: str) -> None:
    """By a rename: the file is complete, or as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SparsecError(f"cannot write {path}: {error.strerror}") from None
