"""From a program to the file the user asked for. It appears whole, by a rename, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SparsecError
from ...runtime_stub.names import with_prefix
from ..buckets import Bound
from ..frontend.prepare import PreparedModel
from ..target import Target
from .code.blob import code_blobs, write_code
from .code_size import code_bytes
from .driver import DriverWriter, models_text
from .manifest import make_manifests, to_json
from .member import Member, by_target, with_shared_kernels
from .toolchain import Toolchain, Unit, exports_map, kernel_flags, library_flags
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


@dataclass(frozen=True)
class Emitted:
    """What became of an artifact: its manifest, and the bytes of each target's own machine code if it was compiled."""

    manifest: dict[str, Any]
    code_bytes: dict[str, int]


def emit_artifact(members: Sequence[Member], prepared: PreparedModel, model_sha256: str, options: Options) -> Emitted:
    """Writes the artifact, and with `.a` and `.o` the header beside it.

    Raises:
        ToolchainError: the C compiler or the linker failed.
        TooLargeError: weights and code take more than `options.max_size`.
        SparsecError: the output cannot be written.
    """
    try:
        return _emit(with_shared_kernels(members), prepared, model_sha256, options)
    except OSError as error:
        where = f"{tempfile.gettempdir()} (TMPDIR chooses another folder)"
        raise SparsecError(f"cannot write the files of the build in {where}: {error.strerror or error}") from error


def _emit(members: Sequence[Member], prepared: PreparedModel, model_sha256: str, options: Options) -> Emitted:
    with tempfile.TemporaryDirectory(prefix="sparsec-") as name:
        folder = Path(name)
        weights = WeightsWriter(folder / "weights.bin")
        weights.write(member.program for member in members)
        manifests = make_manifests(
            members,
            model_sha256=model_sha256,
            weights_bytes=weights.size,
            input_ranges=prepared.input_ranges,
            options=_build_options(options),
        )
        blobs = _write_sources(folder, members, weights, manifests, prepared.labels(), options)
        code = folder / "code.bin"
        _check_size(weights.size + (code.stat().st_size if code.exists() else 0), options)
        toolchain = Toolchain(folder, members[0].target, options.jobs)
        units = _units(folder, members)
        if options.emit == "c":
            _publish_tree(folder, members, units, options)
            return Emitted(manifests[0], {})
        _publish(_build(folder, units, options, toolchain), options)
        sizes = {group[0].target.name: _code_bytes(folder, group, blobs) for group in by_target(members)}
    return Emitted(manifests[0], sizes)


def _code_bytes(folder: Path, members: Sequence[Member], blobs: Mapping[str, int]) -> int:
    units = {member.unit(source.name) for member in members for source in member.program.sources}
    compiled = sum(code_bytes(folder / Unit(unit).object) for unit in units)
    return compiled + sum(blobs[blob.name] for blob in code_blobs([member.program for member in members]))


def _build_options(options: Options) -> dict[str, Any]:
    """What another build needs to make the same artifact."""
    return {
        "dims": {k: _bound_to_json(v) for k, v in options.dims.items()},
        "shapes": {k: list(v) for k, v in options.shapes.items()},
        "turns": dict(options.turns),
        "fixed": {k: np.asarray(v).tolist() for k, v in options.fixed.items()},
        "symbol_prefix": options.symbol_prefix,
        "kernels": dict(options.kernels),
        "optimize": options.optimize,
        "max_size": options.max_size,
    }


def _bound_to_json(bound: Bound) -> Any:
    if isinstance(bound, list):
        return {"buckets": [_bound_to_json(one) for one in bound]}
    return bound if isinstance(bound, int) else list(bound)


def _check_size(nbytes: int, options: Options) -> None:
    if options.max_size is not None and nbytes > options.max_size:
        raise TooLargeError(nbytes, options.max_size)


def _write_sources(
    folder: Path,
    members: Sequence[Member],
    weights: WeightsWriter,
    manifests: Sequence[dict[str, Any]],
    labels: Mapping[str, str],
    options: Options,
) -> dict[str, int]:
    """Everything that is compiled or assembled; returns the bytes of each blob of machine code."""
    encoded = [to_json(manifest) for manifest in manifests]
    largest = [group[-1] for group in by_target(members)]
    texts = {
        "weights.S": assembler_text(weights, list(zip(largest, encoded, strict=True))),
        "models.c": models_text(members),
    }
    for member, text in zip(largest, encoded, strict=True):
        (folder / member.manifest_file).write_bytes(text)
    for group in by_target(members):
        first_layer = 0
        for member in group:
            driver = DriverWriter(member, weights, labels, first_layer)
            texts[f"model{member.suffix}.c"] = driver.text(manifests[0]["sparsec"], manifests[0]["model_sha256"])
            first_layer += len(member.program.steps)
            for source in member.program.sources:
                texts[member.unit(source.name)] = member.own(source.text)
    blobs = code_blobs([member.program for member in members])
    sizes: dict[str, int] = {}
    if blobs:
        texts["code.S"], sizes = write_code(folder, blobs, members[0].target)
    for package in ("sparsec.runtime_stub", "sparsec.codegen_templates"):
        for file in resources.files(package).iterdir():
            if file.name.endswith((".c", ".h")):
                texts[file.name] = file.read_text(encoding="utf-8")
    for name, source_text in texts.items():
        (folder / name).write_text(with_prefix(source_text, options.symbol_prefix), encoding="utf-8")
    return sizes


@dataclass(frozen=True)
class _Units:
    """What is compiled: each member's kernels, and the rest."""

    kernels: list[tuple[Target, list[Unit]]]
    others: list[Unit]

    def all(self) -> list[Unit]:
        return [unit for _, units in self.kernels for unit in units] + self.others


def _units(folder: Path, members: Sequence[Member]) -> _Units:
    kernels = []
    for group in by_target(members):
        target, flags = group[0].target, kernel_flags(group[0].target)
        names = dict.fromkeys(member.unit(source.name) for member in group for source in member.program.sources)
        kernels.append((target, [Unit(name, flags) for name in names]))
    runtime = sorted(f.name for f in folder.glob("*.c") if not f.name.startswith("k_"))
    assembled = sorted(f.name for f in folder.glob("*.S"))
    return _Units(kernels, [*(Unit(name, _RUNTIME_FLAGS) for name in runtime), *map(Unit, assembled)])


def _build(folder: Path, units: _Units, options: Options, toolchain: Toolchain) -> Path:
    """The artifact inside the build folder."""
    objects = sorted(toolchain.compile(units.all()))
    output = f"artifact.{options.emit}"
    if options.emit == "so":
        toolchain.link_shared(objects, output, options.symbol_prefix, options.output.name)
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
        partial.chmod(0o644 if destination.suffix in (".a", ".o", ".h") else 0o755)
        partial.replace(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SparsecError(f"cannot write {destination}: {error.strerror}") from error


def _publish_tree(folder: Path, members: Sequence[Member], units: _Units, options: Options) -> None:
    """`--emit c`: the sources, with a Makefile that builds them with the user's own compiler."""
    output = options.output
    if output.exists():
        raise SparsecError(f"{output} exists already: remove it, or choose another folder with -o")
    (folder / "exports.map").write_text(exports_map(options.symbol_prefix))
    (folder / "Makefile").write_text(_makefile(units, [m.manifest_file for m in members if m.is_largest]))
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("zig-cache"))
        partial.replace(output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SparsecError(f"cannot write {output}: {error.strerror}") from error


def _makefile(units: _Units, manifests: Sequence[str]) -> str:
    rules = []
    for number, (target, kernels) in enumerate(units.kernels):
        rules.append(f"""\
# {target.name}
KERNELS_{number} = {" ".join(unit.object for unit in kernels)}

$(KERNELS_{number}): %.o: %.c
\t$(CC) $(COMMON) {target.c_flags} $(KERNEL_FLAGS) $(CFLAGS) -c $< -o $@

""")
    names = " ".join(f"$(KERNELS_{number})" for number in range(len(units.kernels)))
    return f"""\
# clang or gcc; nothing else is needed. `make` builds model.so, `make model.a` a static library.
CC ?= cc
COMMON = -std=gnu11 -fPIC -fvisibility=hidden
KERNEL_FLAGS = -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-unknown-pragmas
RUNTIME_FLAGS = -O2

all: model.so

{"".join(rules)}\
OBJECTS = {names} {" ".join(unit.object for unit in units.others)}

model.so: $(OBJECTS) exports.map
\t$(CC) $(LDFLAGS) {" ".join(library_flags(units.kernels[0][0]))} -o $@ $(OBJECTS) -lm -lpthread

model.a: $(OBJECTS)
\t$(AR) rcs $@ $^

%.o: %.c
\t$(CC) $(COMMON) $(RUNTIME_FLAGS) $(CFLAGS) -c $< -o $@

%.o: %.S weights.bin {" ".join(manifests)}
\t$(CC) -c $< -o $@

clean:
\trm -f *.o model.so model.a
"""
