"""From a program to the file the user asked for. It appears whole, by a rename, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SparsecError
from ...runtime_stub.names import with_prefix
from ..frontend.prepare import PreparedModel
from ..lower.memory import MemoryPlan
from ..lower.program import Program
from .code.blob import code_blobs, write_code
from .driver import DriverWriter
from .manifest import make_manifest, to_json
from .toolchain import Toolchain, Unit, exports_map
from .weights import WeightsWriter, assembler_text

if TYPE_CHECKING:
    from ..pipeline import Options

EMITS = ("so", "a", "o", "c")
_RUNTIME_FLAGS = ("-O2", "-std=gnu11")


class TooLargeError(SparsecError):
    """Weights and generated code take `nbytes`, which is more than `--max-size`."""

    def __init__(self, nbytes: int, limit: int) -> None:
        super().__init__(
            f"with the smallest kernels the model takes {nbytes:,} bytes of weights and code, more than --max-size "
            f"{limit:,}: prune or quantize it further, or allow more"
        )
        self.excess = nbytes - limit


def emit_artifact(
    program: Program, plan: MemoryPlan, prepared: PreparedModel, model_sha256: str, options: Options
) -> dict[str, Any]:
    """Writes the artifact (with `.a` and `.o` the header beside it) and returns the manifest.

    Raises:
        ToolchainError: the C compiler or the linker failed.
        TooLargeError: weights and code take more than `options.max_size`.
        SparsecError: the output cannot be written.
    """
    try:
        return _emit(program, plan, prepared, model_sha256, options)
    except OSError as error:
        where = f"{tempfile.gettempdir()} (TMPDIR chooses another folder)"
        raise SparsecError(f"cannot write the files of the build in {where}: {error.strerror or error}") from error


def _emit(
    program: Program, plan: MemoryPlan, prepared: PreparedModel, model_sha256: str, options: Options
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sparsec-") as name:
        folder = Path(name)
        weights = WeightsWriter(folder / "weights.bin")
        weights.write(program)
        manifest = make_manifest(
            program,
            plan,
            options.target,
            model_sha256=model_sha256,
            weights_bytes=weights.size,
            input_ranges=prepared.input_ranges,
            options=_build_options(options),
        )
        _write_sources(folder, program, plan, weights, manifest, model_sha256, options)
        code = folder / "code.bin"
        _check_size(weights.size + (code.stat().st_size if code.exists() else 0), options)
        toolchain = Toolchain(folder, options.target, options.jobs)
        if options.emit == "c":
            _publish_tree(folder, program, options, toolchain)
        else:
            _publish(_build(folder, program, options, toolchain), options)
    return manifest


def _build_options(options: Options) -> dict[str, Any]:
    """What another build needs to make the same artifact."""
    return {
        "dims": {k: list(v) if isinstance(v, tuple) else v for k, v in options.dims.items()},
        "shapes": {k: list(v) for k, v in options.shapes.items()},
        "fixed": {k: np.asarray(v).tolist() for k, v in options.fixed.items()},
        "symbol_prefix": options.symbol_prefix,
        "kernels": dict(options.kernels),
        "optimize": options.optimize,
        "max_size": options.max_size,
    }


def _check_size(nbytes: int, options: Options) -> None:
    if options.max_size is not None and nbytes > options.max_size:
        raise TooLargeError(nbytes, options.max_size)


def _write_sources(
    folder: Path,
    program: Program,
    plan: MemoryPlan,
    weights: WeightsWriter,
    manifest: dict[str, Any],
    model_sha256: str,
    options: Options,
) -> None:
    text = to_json(manifest)
    (folder / "manifest.json").write_bytes(text)
    driver = DriverWriter(program, plan, weights, options.target)
    texts = {
        "weights.S": assembler_text(weights, text, options.target.machine),
        "model.c": driver.text(manifest["sparsec"], model_sha256),
        **{f"k_{source.name}.c": source.text for source in program.sources},
    }
    blobs = code_blobs(program)
    if blobs:
        texts["code.S"] = write_code(folder, blobs)
    for package in ("sparsec.runtime_stub", "sparsec.codegen_templates"):
        for file in resources.files(package).iterdir():
            if file.name.endswith((".c", ".h")):
                texts[file.name] = file.read_text(encoding="utf-8")
    for name, source_text in texts.items():
        (folder / name).write_text(with_prefix(source_text, options.symbol_prefix), encoding="utf-8")


def _units(folder: Path, program: Program, options: Options, toolchain: Toolchain) -> list[Unit]:
    runtime = sorted(f.name for f in folder.glob("*.c") if not f.name.startswith("k_"))
    kernels = [Unit(f"k_{s.name}.c", toolchain.kernel_flags()) for s in program.sources]
    assembled = [Unit(f.name) for f in sorted(folder.glob("*.S"))]
    return [*kernels, *(Unit(name, _RUNTIME_FLAGS) for name in runtime), *assembled]


def _build(folder: Path, program: Program, options: Options, toolchain: Toolchain) -> Path:
    """The artifact inside the build folder."""
    objects = toolchain.compile(_units(folder, program, options, toolchain))
    objects = sorted(objects)
    output = f"artifact.{options.emit}"
    if options.emit == "so":
        toolchain.link_shared(objects, output, options.symbol_prefix)
    elif options.emit == "a":
        toolchain.archive(objects, output)
    else:
        toolchain.link_relocatable(objects, output)
    return folder / output


def _publish(built: Path, options: Options) -> None:
    if options.emit != "so":
        _replace(built.parent / "sparsec.h", options.output.with_suffix(".h"))
    _replace(built, options.output)


def _replace(source: Path, destination: Path) -> None:
    """Copies beside the destination, then renames: readers see the old file or the new one."""
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(source, partial)
        partial.chmod(0o755 if destination.suffix == ".so" else 0o644)
        partial.replace(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SparsecError(f"cannot write {destination}: {error.strerror}") from error


def _publish_tree(folder: Path, program: Program, options: Options, toolchain: Toolchain) -> None:
    """`--emit c`: the sources, with a Makefile that builds them with the user's own compiler."""
    output = options.output
    if output.exists():
        raise SparsecError(f"{output} exists already: remove it, or choose another folder with -o")
    units = _units(folder, program, options, toolchain)
    (folder / "exports.map").write_text(exports_map(options.symbol_prefix))
    (folder / "Makefile").write_text(_makefile(units, options))
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("zig-cache"))
        partial.replace(output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SparsecError(f"cannot write {output}: {error.strerror}") from error


def _makefile(units: list[Unit], options: Options) -> str:
    kernels = " ".join(u.object for u in units if u.source.startswith("k_"))
    others = " ".join(u.object for u in units if not u.source.startswith("k_"))
    return f"""\
# clang or gcc; nothing else is needed. `make` builds model.so, `make model.a` a static library.
CC ?= cc
COMMON = -std=gnu11 -fPIC -fvisibility=hidden
KERNEL_FLAGS = -O3 {options.target.c_flags} -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-unknown-pragmas
RUNTIME_FLAGS = -O2
KERNELS = {kernels}
OTHERS = {others}

model.so: $(KERNELS) $(OTHERS) exports.map
\t$(CC) $(LDFLAGS) -shared -Wl,--version-script=exports.map -Wl,-z,noexecstack,-z,relro,-z,now -o $@ \
\t    $(KERNELS) $(OTHERS) -lm -lpthread

model.a: $(KERNELS) $(OTHERS)
\t$(AR) rcs $@ $^

$(KERNELS): %.o: %.c
\t$(CC) $(COMMON) $(KERNEL_FLAGS) $(CFLAGS) -c $< -o $@

%.o: %.c
\t$(CC) $(COMMON) $(RUNTIME_FLAGS) $(CFLAGS) -c $< -o $@

%.o: %.S weights.bin manifest.json
\t$(CC) -c $< -o $@

clean:
\trm -f *.o model.so model.a
"""
