"""What the file itself promises: names, versions, protections. Read with pyelftools, nothing is run."""

from __future__ import annotations

import re
import sys

import pytest
from c_tools import FUNCTIONS, ROOT
from elftools.elf.elffile import ELFFile
from small_models import CONVNET_DIMS, convnet, product

import sparsec
from sparsec.compiler.target import TARGETS
from sparsec.runtime_stub.artifact import read_manifest

GLIBC_CEILINGS = {"riscv64": (2, 27)}
"""Where (2, 17) does not know the architecture."""
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
             "ld-linux-armhf.so.3", "ld-linux-riscv64-lp64d.so.1"}  # fmt: skip
PF_X, PF_W = 1, 2


@pytest.fixture(scope="module", params=["convnet", "lookup", "prefix", *TARGETS])
def artifact(request, folder):
    """(path, prefix): models, a prefix, every target."""
    if request.param in ("convnet", "lookup"):
        return request.getfixturevalue(f"{request.param}_so"), "sparsec_"
    if request.param == "prefix":
        return sparsec.build(product(0), output=folder / "p.so", dims={"rows": 2}, symbol_prefix="my_"), "my_"
    path = folder / f"convnet_{request.param}.so"
    return sparsec.build(convnet(), output=path, dims=CONVNET_DIMS, target=request.param), "sparsec_"


@pytest.fixture(scope="module")
def elf(artifact):
    with artifact[0].open("rb") as file:
        yield ELFFile(file)


def tags(elf: ELFFile) -> dict[str, list]:
    """The dynamic section: tag -> values."""
    found: dict[str, list] = {}
    for tag in elf.get_section_by_name(".dynamic").iter_tags():
        found.setdefault(tag.entry.d_tag, []).append(getattr(tag, "needed", tag.entry.d_val))
    return found


def test_exports_the_functions_of_the_header_alone(elf, artifact):
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    exported = {s.name for s in symbols if s.entry.st_shndx != "SHN_UNDEF" and s.entry.st_info.bind != "STB_LOCAL"}
    assert exported == {artifact[1] + name for name in FUNCTIONS}


def test_has_no_symbol_table(elf):
    assert elf.get_section_by_name(".symtab") is None


def test_needs_an_old_glibc_and_nothing_else(elf, artifact):
    ceiling = GLIBC_CEILINGS.get(read_manifest(artifact[0])["target"]["name"], (2, 17))
    assert set(tags(elf)["DT_NEEDED"]) <= LIBRARIES
    for _, versions in elf.get_section_by_name(".gnu.version_r").iter_versions():
        for version in versions:
            number = re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", version.name)
            assert number and tuple(map(int, number[1].split("."))) <= ceiling, version.name


def test_every_import_is_known(elf):
    """Nothing of TVM's, nothing that prints, reads the environment or ends the process."""
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    imported = {s.name for s in symbols if s.entry.st_shndx == "SHN_UNDEF" and s.name}
    assert not {n for n in imported if "TVM" in n}
    assert not imported & {"printf", "puts", "fputs", "fwrite", "write", "perror", "getenv", "secure_getenv", "abort",
                           "exit", "_exit", "mprotect", "mmap", "setenv", "dlopen", "signal", "sigaction",
                           "sched_setaffinity", "pthread_setaffinity_np", "__assert_fail"}  # fmt: skip


def test_is_mapped_safely(elf):
    found = tags(elf)
    assert "DT_TEXTREL" not in found and "DT_RPATH" not in found and "DT_RUNPATH" not in found
    assert not found.get("DT_FLAGS", [0])[0] & 0x4, "DF_TEXTREL"
    assert found["DT_FLAGS"][0] & 0x8, "DF_BIND_NOW"
    assert found["DT_FLAGS_1"][0] & 0x1, "DF_1_NOW"
    segments = list(elf.iter_segments())
    kinds = {s.header.p_type for s in segments}
    assert "PT_GNU_RELRO" in kinds
    (stack,) = [s for s in segments if s.header.p_type == "PT_GNU_STACK"]
    assert not stack.header.p_flags & PF_X
    assert not [s for s in segments if s.header.p_flags & PF_X and s.header.p_flags & PF_W]


def test_nothing_runs_at_load(elf):
    found = tags(elf)
    assert not {"DT_INIT", "DT_FINI", "DT_INIT_ARRAY", "DT_FINI_ARRAY"} & set(found)


def test_weights_and_manifest_are_read_only_and_aligned(elf):
    weights = elf.get_section_by_name(".sparsec.weights")
    assert weights.header.sh_addr % 64 == 0
    for section in (weights, elf.get_section_by_name(".sparsec.manifest")):
        assert section.header.sh_flags == 2, "allocated, neither writeable nor executable"


def test_only_relocations_and_tables_are_writeable(elf):
    """No global variable: a model is immutable."""
    writeable = {s.name: s.header.sh_size for s in elf.iter_sections() if s.header.sh_flags & 1}
    assert not {n: size for n, size in writeable.items() if n.startswith((".data", ".bss", ".tdata", ".tbss"))
                and not n.startswith(".data.rel.ro") and size}, writeable  # fmt: skip


def test_knows_nothing_of_where_it_was_built(artifact):
    data = artifact[0].read_bytes()
    for place in (
        b"/tmp/",
        b"/home/",
        str(ROOT).encode(),
        b"/root/",
        sys.prefix.encode(),
        b"zig-cache",
    ):
        at = data.find(place)
        assert at < 0, data[max(at - 80, 0) : at + 80]
    assert b"__TVM" not in data
