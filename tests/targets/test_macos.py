"""Artifacts for macOS: no such machine is at hand, so the file is looked at, with macholib, and nothing is run."""

from __future__ import annotations

import numpy as np
import pytest
from c_tools import FUNCTIONS
from macholib.mach_o import (
    LC_CODE_SIGNATURE,
    LC_ID_DYLIB,
    LC_LOAD_DYLIB,
    LC_SEGMENT_64,
    MH_DYLIB,
    N_EXT,
    N_PEXT,
    N_TYPE,
    N_UNDF,
)
from macholib.MachO import MachO
from macholib.SymbolTable import SymbolTable
from small_models import CONVNET_DIMS, convnet, product

import sparsec
from sparsec.errors import ArtifactError, CpuError
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.cpu import host_machine

ROWS = [("aarch64", "aarch64-macos"), ("generic", "aarch64-macos"), ("avx512,avx2,generic", "x86_64-macos")]
CPUS = {"aarch64": 0x0100000C, "x86_64": 0x01000007}
EXECUTE, WRITE = 4, 2


@pytest.fixture(scope="module", params=ROWS, ids="-".join)
def library(request, tmp_path_factory):
    target, triple = request.param
    folder = tmp_path_factory.mktemp("macos")
    path = sparsec.build(convnet(), target=target, triple=triple, output=folder / "net.dylib", dims=CONVNET_DIMS)
    return path, triple


@pytest.fixture(scope="module")
def macho(library):
    return MachO(str(library[0])).headers[0]


def commands(header, kind) -> list:
    return [(command, data) for load, command, data in header.commands if load.cmd == kind]


def symbols(path) -> list[tuple[str, int]]:
    return [(name.decode(), entry.n_type) for entry, name in SymbolTable(MachO(str(path))).nlists]


def exported(path) -> set[str]:
    return {n for n, kind in symbols(path) if kind & N_EXT and not kind & N_PEXT and kind & N_TYPE != N_UNDF}


def test_is_a_library_for_that_machine(macho, library):
    assert macho.filetype == "dylib" and macho.header.filetype == MH_DYLIB
    assert macho.header.cputype == CPUS[library[1].partition("-")[0]]
    ((_, name),) = commands(macho, LC_ID_DYLIB)
    assert name.rstrip(b"\0") == b"@rpath/net.dylib"


def test_exports_the_functions_of_the_header_alone(library):
    linkers = {"__mh_dylib_header", "___dso_handle"}
    assert exported(library[0]) - linkers == {f"_sparsec_{name}" for name in FUNCTIONS}


def test_needs_the_system_s_library_alone(macho, library):
    assert [name.rstrip(b"\0") for _, name in commands(macho, LC_LOAD_DYLIB)] == [b"/usr/lib/libSystem.B.dylib"]
    wanted = {name for name, kind in symbols(library[0]) if kind & N_TYPE == N_UNDF}
    assert "___ulock_wait" in wanted and "_pthread_create" in wanted
    forbidden = {"_printf", "_puts", "_getenv", "_abort", "_exit", "_mmap", "_mprotect", "_dlopen", "_open", "_write"}
    assert not wanted & forbidden


def test_is_signed_and_never_writeable_and_executable(macho, library):
    if library[1].startswith("aarch64"):
        assert len(commands(macho, LC_CODE_SIGNATURE)) == 1, "arm64 Macs load no unsigned code"
    segments = [segment for segment, _ in commands(macho, LC_SEGMENT_64)]
    assert not [s for s in segments if s.initprot & EXECUTE and s.initprot & WRITE]


def test_weights_are_aligned_and_read_only(macho, library):
    (weights,) = [
        section
        for segment, sections in commands(macho, LC_SEGMENT_64)
        for section in sections
        if section.sectname.rstrip(b"\0") == b"__sparsec_w" and not segment.initprot & WRITE
    ]
    assert weights.addr % 64 == 0
    assert weights.size == read_manifest(library[0])["weights_bytes"] + 1


def test_manifest_is_read_and_loading_refused_in_words(library):
    manifest = read_manifest(library[0])
    assert manifest["target"]["triple"] == library[1]
    machine = library[1].partition("-")[0]
    words = "built for Darwin; this is Linux" if machine == host_machine() else f"built for {machine}; this machine is"
    with pytest.raises(CpuError, match=words):
        sparsec.load(library[0])


@pytest.mark.parametrize("emit", ["a", "o"])
def test_objects_to_be_linked(emit, tmp_path):
    path = sparsec.build(
        product(0), target="generic", triple="aarch64-macos", emit=emit, output=tmp_path / f"model.{emit}",
        dims={"rows": 2},
    )  # fmt: skip
    assert read_manifest(path)["inputs"][0]["name"] == "x"
    with pytest.raises(ArtifactError, match="is an object file or archive to be linked"):
        sparsec.load(path)
    if emit == "o":
        assert {f"_sparsec_{name}" for name in FUNCTIONS} <= exported(path)


def test_the_same_input_gives_the_same_bytes_and_names_hold_a_prefix(tmp_path):
    options = {"target": "aarch64", "triple": "aarch64-macos", "dims": {"rows": 2}, "symbol_prefix": "my_"}
    (tmp_path / "b").mkdir()
    one = sparsec.build(product(0), output=tmp_path / "p.dylib", **options)
    two = sparsec.build(product(0), output=tmp_path / "b" / "p.dylib", **options)
    assert one.read_bytes() == two.read_bytes()
    assert "_my_run" in exported(one) and not [n for n in exported(one) if n.startswith("_sparsec_")]


def test_cut_short(library, tmp_path):
    data = library[0].read_bytes()
    for length in np.random.default_rng(0).integers(0, len(data), 200):
        (tmp_path / "cut.dylib").write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=r"damaged or cut short|was not made by sparsec"):
            read_manifest(tmp_path / "cut.dylib")


def test_default_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sparsec.build(product(0), target="aarch64", triple="aarch64-macos", dims={"rows": 1}).name == "model.dylib"
