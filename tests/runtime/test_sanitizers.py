"""The artifact's own C, kernels included, under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from c_tools import COMPILERS, run
from small_models import CONVNET_DIMS, LOOKUP_DIMS, convnet, lookup

import sparsec
from sparsec.compiler.target import resolve

PROGRAM = Path(__file__).parent / "many_runs.c"
TRIVIAL = "int main(void) { return 0; }\n"


@pytest.fixture(scope="module", params=["convnet", "lookup"])
def sources(request, tmp_path_factory):
    """The C sources of a model, with their Makefile."""
    model, dims = {"convnet": (convnet(), CONVNET_DIMS), "lookup": (lookup(), LOOKUP_DIMS)}[request.param]
    return sparsec.build(model, output=tmp_path_factory.mktemp("sources") / "c", emit="c", dims=dims)


@cache
def missing(folder: Path, sanitizer: str) -> str:
    """Why programs with gcc's sanitizer cannot be run here; empty if they can."""
    if not shutil.which("gcc") or not shutil.which("make"):
        return "gcc and make are needed for a sanitizer's run-time library"
    (folder / "trivial.c").write_text(TRIVIAL)
    command = ["gcc", f"-fsanitize={sanitizer}", "trivial.c", "-o", "trivial"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"gcc has no run-time library for -fsanitize={sanitizer}"
    done = subprocess.run(["./trivial"], cwd=folder, capture_output=True, text=True, check=False)
    return f"{sanitizer} sanitizer does not run here: {done.stderr[:200]}" if done.returncode else ""


@pytest.mark.parametrize("sanitizer", ["address", "undefined", "thread"])
def test_with_gcc(sanitizer, sources, tmp_path, tmp_path_factory):
    why = missing(tmp_path_factory.getbasetemp(), sanitizer)
    if why:
        pytest.skip(why)
    tree = shutil.copytree(sources, tmp_path / "c")
    flags = f"-O1 -g -fsanitize={sanitizer} -fno-sanitize-recover=all"
    run(["make", "-s", "-j2", "model.a", "CC=gcc", f"CFLAGS={flags}"], tree)
    options = [*flags.split(), "-DNO_INTERPOSE", "-I."]
    run(["gcc", *options, PROGRAM, "model.a", "-lm", "-lpthread", "-o", "many_runs"], tree)
    for threads in (1, 2, 3):
        assert run(["./many_runs", threads, 1, 2, 3, 4], tree) == "good\n"


def test_undefined_behaviour_traps(sources, tmp_path):
    """Clang's view of the same, which needs no run-time library: the program is killed at the first finding."""
    target = resolve("native")
    tree = shutil.copytree(sources, tmp_path / "c")
    trap = ["-fsanitize=undefined", "-fsanitize-trap=undefined"]
    kernel = [f"-mcpu={target.cpu.replace('-', '_')}{target.features.replace(',', '')}", "-Wno-unknown-pragmas"]
    files = [p.name for p in sorted(tree.iterdir()) if p.suffix in (".c", ".S")]
    command = [*COMPILERS["zig"], "-std=gnu11", "-O1", *kernel, *trap, "-DNO_INTERPOSE", "-I.", *files, PROGRAM]
    run([*command, "-lm", "-lpthread", "-o", "many_runs"], tree)
    for threads in (1, 2):
        assert run(["./many_runs", threads, 1, 2, 3, 4], tree) == "good\n"
