"""Files that are no artifact, or one for other circumstances: an error in words, never a crash."""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from c_tools import COMPILERS, CPU_FEATURES, HEADERS, feature_numbers, python, run
from raw_context import ERR_ABI, ERR_ARGUMENT
from small_models import matrix, product

import sparsec
from sparsec.errors import ArtifactError, CpuError
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.cpu import host_features, host_machine
from sparsec.runtime_stub.declarations import declarations

on_x86 = pytest.mark.skipif(host_machine() != "x86_64", reason="patches x86-64 artifacts")


def patched(artifact: Path, folder: Path, old: bytes, new: bytes, count: int = 1) -> Path:
    """A copy in which `old`, which occurs `count` times, is replaced."""
    data = artifact.read_bytes()
    assert data.count(old) == count and len(old) == len(new)
    path = folder / "patched.so"
    path.write_bytes(data.replace(old, new))
    return path


# --- damaged ----------------------------------------------------------------------------------------------------------

LOAD_MANY = """
import random, sys
import sparsec
data, path, r = open(sys.argv[1], "rb").read(), sys.argv[2], random.Random(0)
section_table = int.from_bytes(data[40:48], "little")

def refused(bad):
    open(path, "wb").write(bad)
    try:
        sparsec.load(path)
    except sparsec.errors.ArtifactError as error:
        assert path in str(error) and "\\n" not in str(error), error
        return True
    return False
"""


def test_cut_short(product_so, tmp_path):
    """At every length; in a process of its own, which must live to the end."""
    body = """
size = len(data)
lengths = {*range(600), *range(600, size, 997), *range(section_table - 70, size)}
lengths |= {r.randrange(size) for _ in range(300)}
accepted = [n for n in sorted(lengths) if not refused(data[:n])]
print(accepted, len(lengths) > 1000)
"""
    script = LOAD_MANY.replace("import sparsec", "import sparsec.errors") + body
    assert python(script, product_so, tmp_path / "cut.so", cwd=tmp_path) == "[] True\n"


def test_damaged_headers(product_so, tmp_path):
    """A header, segment table or section table with wrong bytes: refused, or read all the same; no other error."""
    body = """
from sparsec.runtime_stub.artifact import check_loadable
counts = [0, 0]
for at in [*range(64 + 56 * 8), *range(section_table, len(data), 7)]:
    for new in (b"\\xff", b"\\x7f", b"\\0" * 8, b"\\xff" * 8, b"\\xff" * 7 + b"\\x7f"):
        open(path, "wb").write(data[:at] + new + data[at + len(new):])
        try:
            check_loadable(path)
            counts[0] += 1
        except sparsec.errors.ArtifactError:
            counts[1] += 1
print(min(counts) > 100)
"""
    script = LOAD_MANY.replace("import sparsec", "import sparsec.errors") + body
    assert python(script, product_so, tmp_path / "damaged.so", cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("text", [b"[1]", b"\xff\xfe", b"{", b"[" * 100000, b"nothing"], ids=range(5))
def test_a_manifest_that_is_none(text, tmp_path):
    (tmp_path / "manifest").write_bytes(text)
    source = '.section .sparsec.manifest,"a",%progbits\n.incbin "manifest"\n'
    (tmp_path / "bad.S").write_text(source)
    run([*COMPILERS["zig"], "-shared", "bad.S", "-o", "bad.so"], tmp_path)
    with pytest.raises(ArtifactError, match="damaged or cut short"):
        sparsec.load(tmp_path / "bad.so")


# --- something else ---------------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read .*none\.so: No such file"):
        sparsec.load(tmp_path / "none.so")


def test_a_folder(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read .*: Is a directory"):
        sparsec.load(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(10000), b"!<arch>\n" + b" " * 100], ids=range(5)
)
def test_no_elf_file(data, tmp_path):
    (tmp_path / "text.so").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"text\.so (was not made by sparsec|is damaged)"):
        sparsec.load(tmp_path / "text.so")


def test_another_library(tmp_path):
    (tmp_path / "other.c").write_text("int sparsec_run(void) { return 0; }\n")
    run([*COMPILERS["zig"], "-shared", "other.c", "-o", "other.so"], tmp_path)
    with pytest.raises(ArtifactError, match=r"other\.so was not made by sparsec: it holds no manifest"):
        sparsec.load(tmp_path / "other.so")


@pytest.mark.parametrize("kind", ["a", "o"])
def test_an_artifact_to_be_linked(kind, request):
    artifact = request.getfixturevalue(f"convnet_{kind}")
    assert read_manifest(artifact)["inputs"][0]["name"] == "image"
    with pytest.raises(ArtifactError, match=r"is an object file or archive to be linked; only a \.so can be loaded"):
        sparsec.load(artifact)


# --- another version, another machine ---------------------------------------------------------------------------------


def test_another_abi_version_in_the_manifest(product_so, tmp_path):
    path = patched(product_so, tmp_path, b'{"abi":1,', b'{"abi":7,')
    with pytest.raises(ArtifactError, match="has ABI version 7, this runtime loads version 1: build it again"):
        sparsec.load(path)


def test_a_caller_of_another_abi_version(product_so):
    ffi = declarations("sparsec_")
    lib = ffi.dlopen(str(product_so))
    model, message = ffi.new("const sparsec_model **"), ffi.new("char[]", 256)
    assert lib.sparsec_abi_version() == 1
    for version in (0, 2, -1, 2**31 - 1):
        assert lib.sparsec_model_open(version, model, message, 256) == ERR_ABI
        assert model[0] == ffi.NULL
        expected = f"this artifact has ABI version 1, the caller was written for version {version}"
        assert ffi.string(message).decode() == expected
    assert lib.sparsec_model_open(2, model, message, 10) == ERR_ABI
    assert ffi.string(message) == b"this arti"
    assert lib.sparsec_model_open(2, model, ffi.NULL, 0) == ERR_ABI
    assert lib.sparsec_model_open(1, ffi.NULL, message, 256) == ERR_ARGUMENT
    assert ffi.string(message) == b"model is a null pointer"


@on_x86
def test_another_machine(product_so, tmp_path):
    data = bytearray(product_so.read_bytes())
    struct.pack_into("<H", data, 18, 183)
    path = tmp_path / "arm.so"
    path.write_bytes(data)
    with pytest.raises(CpuError, match=r"arm\.so was built for aarch64; this machine is x86_64"):
        sparsec.load(path)


def test_an_artifact_for_another_machine(tmp_path):
    other = "aarch64" if host_machine() == "x86_64" else "x86-64"
    path = sparsec.build(product(0), output=tmp_path / "other.so", dims={"rows": 1}, target=other)
    with pytest.raises(CpuError, match="was built for"):
        sparsec.load(path)
    assert read_manifest(path)["target"]["name"] == other


# --- another CPU ------------------------------------------------------------------------------------------------------


@on_x86
@pytest.mark.skipif(not {"avx2", "fma", "bmi2", "f16c"} <= host_features(), reason="this CPU does not have avx2")
def test_a_missing_cpu_feature_is_named(tmp_path):
    path = sparsec.build(product(0), output=tmp_path / "avx2.so", dims={"rows": 1}, target="avx2")
    sparsec.load(path).close()
    table = feature_numbers("avx2", "fma", "bmi2", "f16c")
    path = patched(path, tmp_path, table, feature_numbers("avx2", "i8mm", "bmi2", "dotprod"))
    with pytest.raises(CpuError) as error:
        sparsec.load(path)
    assert re.fullmatch(
        r".*patched\.so: this artifact needs dotprod i8mm; this CPU has .*\bavx2\b.*: build for a target it has",
        str(error.value),
    )


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    """cpu.c as a library of its own."""
    folder = tmp_path_factory.mktemp("cpu")
    run([*COMPILERS["zig"], "-std=gnu11", "-shared", "-fPIC", HEADERS / "cpu.c", "-o", "cpu.so"], folder)
    library = ctypes.CDLL(str(folder / "cpu.so"))
    library.sparsec_cpu_detect.restype = ctypes.c_uint64
    return library


def test_detects_what_the_kernel_reports(cpu):
    found = {text for i, (_, text) in enumerate(CPU_FEATURES) if cpu.sparsec_cpu_detect() >> i & 1}
    assert found == host_features() & {text for _, text in CPU_FEATURES}


class Needs(ctypes.Structure):
    _fields_ = (("target", ctypes.c_char_p), ("features", ctypes.POINTER(ctypes.c_uint64)), ("count", ctypes.c_int32))


def needs(**targets: tuple[int, ...]) -> ctypes.Array:
    rows = [(name.encode(), (ctypes.c_uint64 * len(ids))(*ids), len(ids)) for name, ids in targets.items()]
    return (Needs * len(rows))(*rows)


def choose(cpu, rows, have, message=None, size=0):
    return cpu.sparsec_cpu_choose(rows, len(rows), ctypes.c_uint64(have), message, ctypes.c_size_t(size))


def test_every_message_size(cpu):
    """The sentence is cut off where the caller's buffer ends."""
    needed = needs(some=(1, 6, 12))
    whole = ctypes.create_string_buffer(4096)
    for have in (0, 0b10, 0b111):
        assert choose(cpu, needed, have, whole, 4096) == -1
        assert whole.value.startswith(b"this artifact needs ")
        for size in range(len(whole.value) + 3):
            part = ctypes.create_string_buffer(b"\xa5" * (size + 8), size + 8)
            assert choose(cpu, needed, have, part, size) == -1
            assert part.raw[size:] == b"\xa5" * 8
            assert size == 0 or part.value == whole.value[: size - 1]
    expected = b"this artifact needs avx512f avx512vbmi; this CPU has sse4.2 avx2 fma: build for a target it has"
    assert whole.value == expected
    assert choose(cpu, needed, 2**64 - 1) == 0
    assert choose(cpu, needs(none=()), 0) == 0


def test_the_first_target_that_fits(cpu):
    rows = needs(best=(1, 2, 6), good=(1, 2))
    message = ctypes.create_string_buffer(512)
    assert [choose(cpu, rows, have) for have in (0b1000111, 0b111, 2**64 - 1)] == [0, 1, 0]
    assert choose(cpu, rows, 0b10, message, 512) == -1
    expected = (b"this artifact needs fma avx512f for best, or fma for good; this CPU has avx2: "
                b"build for a target it has")  # fmt: skip
    assert message.value == expected


# --- files that change ------------------------------------------------------------------------------------------------


def test_a_new_build_under_the_name_of_one_that_is_loaded(tmp_path):
    """The dynamic linker would give the old library again, by its name."""
    x = np.ones((2, 6), np.float32)
    models = []
    for seed in (0, 1, 2, 3, 0):
        path = sparsec.build(product(seed), output=tmp_path / "m.so", dims={"rows": (1, 4)})
        models.append((seed, sparsec.load(path)))
    for seed, model in models:
        np.testing.assert_allclose(model.run({"x": x})["y"], x @ matrix(product(seed)), rtol=1e-5)
        model.close()


def test_names_of_any_kind(product_so, tmp_path, monkeypatch):
    x = np.ones((1, 6), np.float32)
    monkeypatch.chdir(tmp_path)
    for name in ("größe 模型.so", "no_suffix", "-dash.so", "a b/c.so", "libm.so.6"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(product_so, path)
        with sparsec.load(name) as model:
            np.testing.assert_allclose(model.run({"x": x})["y"], x @ matrix(product(0)), rtol=1e-5)
