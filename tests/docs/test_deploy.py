"""What docs/deploy.md says works: its commands run, its C compiles, and its Rust and Go agree with sparsec.h."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from c_tools import COMPILERS, FUNCTIONS, HEADERS, ROOT

import sparsec
from sparsec.runtime_stub.artifact import ABI_VERSION, read_manifest

TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- test: (\w+) -->\n```\w+\n(.*?)```", TEXT, re.S))
HEADER = (HEADERS / "sparsec.h").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory, fill):
    folder = tmp_path_factory.mktemp("deploy")
    fill(folder)
    return folder


def run(block: str, place) -> str:
    """What a block's lines print, without those that install."""
    lines = [line for line in BLOCKS[block].splitlines() if not line.startswith("pip ")]
    path = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])
    modules = os.pathsep.join([str(place / "bin"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(["sh", "-e"], input="\n".join(lines), cwd=place, capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": path, "PYTHONPATH": modules, "COLUMNS": "200"})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(place):
    return place, run("build", place)


def test_build(built):
    place, shown = built
    assert "aarch64-dotprod (" in shown and "aarch64 (" in shown
    manifest = read_manifest(place / "model.so")
    names = [member["target"]["name"] for member in (manifest, *manifest["fallbacks"])]
    assert names == ["avx512", "avx2", "generic"]
    assert read_manifest(place / "router.so")["target"]["triple"] == "riscv64-linux-musl"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the artifact is for x86-64")
def test_python_and_c(built):
    place, _ = built
    scope: dict = {}
    before = os.getcwd()
    os.chdir(place)
    try:
        exec(compile(BLOCKS["python"], "deploy.md", "exec"), scope)
    finally:
        os.chdir(before)
    assert scope["scores"].shape == (1, 8)
    scope["model"].close()
    shared, static = run("shared", place), run("static", place)
    assert "output scores [4, 8]" in shared and shared.split("[")[-1][:40] == static.split("[")[-1][:40]


def test_a_static_program_for_another_machine(place):
    run("scratch", place)
    program = place / "run"
    assert b"/lib/ld-" not in program.read_bytes()[:4096], "no dynamic linker"
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed (Debian: qemu-user)")
    done = subprocess.run(["qemu-aarch64", str(program), "4"], capture_output=True, text=True, check=True)
    assert "output scores [4, 8]" in done.stdout


# --- other languages --------------------------------------------------------------------------------------------------

TO_RUST = {
    "int32_t": "i32", "int64_t": "i64", "uint64_t": "u64", "size_t": "usize", "uint8_t": "u8", "uint16_t": "u16",
    "char *": "*mut c_char", "const char *": "*const c_char", "void": "", "void *": "*mut c_void",
    "const sparsec_model *": "*const Model", "const sparsec_model **": "*mut *const Model",
    "sparsec_context *": "*mut Context", "const sparsec_context *": "*const Context",
    "sparsec_context **": "*mut *mut Context", "const sparsec_options *": "*const c_void",
    "const DLTensor *const *": "*const *const DLTensor", "DLTensor *const *": "*const *mut DLTensor",
    "DLDevice": "DLDevice", "DLDataType": "DLDataType", "int64_t *": "*mut i64",
}  # fmt: skip
"""C types and how Rust spells them."""


def declared(name: str) -> tuple[list[tuple[str, str]], str]:
    """(parameters as (name, type), result) of a function of the header."""
    result, inside = re.search(rf"SPARSEC_API ([\w *]+?)\s*\b{name}\(([^)]*)\)", HEADER).groups()
    parameters = [re.fullmatch(r"(.*?)(\w+)", " ".join(p.split())).groups() for p in inside.split(",")]
    return [(n, t.strip()) for t, n in parameters], result.strip()


def test_rust_declares_what_the_header_does():
    functions = re.findall(r"fn (sparsec_\w+)\((.*?)\)(?: -> ([^;]+))?;", BLOCKS["rust"], re.S)
    assert len(functions) >= 6 and {name.removeprefix("sparsec_") for name, *_ in functions} <= FUNCTIONS
    for name, inside, result in functions:
        parameters, returned = declared(name)
        found = [tuple(part.strip() for part in p.split(":")) for p in inside.split(",")]
        assert found == [(n, TO_RUST[t]) for n, t in parameters], name
        assert (result or "") == TO_RUST[returned], name
    for struct in ("DLDevice", "DLDataType", "DLTensor"):
        (members,) = re.findall(rf"typedef struct \{{([^}}]*)\}} {struct};", HEADER)
        members = re.sub(r"/\*.*?\*/", "", members, flags=re.S)
        wanted = [re.fullmatch(r"(.*?)(\w+)", " ".join(m.split())).groups() for m in members.split(";") if m.strip()]
        (text,) = re.findall(rf"#\[repr\(C\)\]\nstruct {struct} \{{ (.*?) \}}", BLOCKS["rust"])
        assert text.split(", ") == [f"{n}: {TO_RUST[t.strip()]}" for t, n in wanted], struct
    assert f"SPARSEC_ABI_VERSION: i32 = {ABI_VERSION};" in BLOCKS["rust"]


def test_the_c_inside_of_go_runs(place, tmp_path):
    (preamble,) = re.findall(r"/\*\n#cgo[^\n]*\n(.*?)\*/", BLOCKS["go"], re.S)
    called = set(re.findall(r"C\.(\w+_model)\(", BLOCKS["go"]))
    assert called == {"open_model", "run_model"}
    sparsec.build(place / "model.onnx", emit="a", output=tmp_path / "libmodel.a", dims={"batch": (1, 8)})
    main = """#include <stdio.h>
int main(void) {
    static char message[512];
    static float pixels[2 * 3 * 32 * 32], scores[2 * 8];
    if (open_model(message, sizeof message)) return 1;
    const char *failed = run_model(pixels, 2, scores, 8);
    if (failed) return 2;
    failed = run_model(pixels, 9, scores, 8);
    return !failed || !strstr(failed, "built for 1..8") ? 3 : 0;
}
"""
    (tmp_path / "main.c").write_text(preamble + main)
    command = [*COMPILERS["zig"], "-I.", "main.c", "libmodel.a", "-lm", "-lpthread", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert subprocess.run(["./main"], cwd=tmp_path, check=False).returncode == 0
