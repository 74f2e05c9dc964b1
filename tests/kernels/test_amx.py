"""Products by AMX tiles: the kernels' C, with the tile instructions in plain C, and the instructions in artifacts.

No machine at hand has them. On one that has, the same tests run the instructions themselves.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_tools import COMPILERS, CPU_FEATURES, HEADERS, run
from generators.mlp import MlpConfig, mlp
from harness import run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsec
from sparsec.codegen_templates import amx, integer
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.tile_epilogue import constant_quantization
from sparsec.compiler.sparsity.cost import choose_integer
from sparsec.compiler.target import TARGETS, host_features
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.cpu import host_machine
from sparsec.runtime_stub.inputs import random_inputs

AMX = TARGETS["avx512-amx"]
TILE_FEATURES = {"amxtile", "amxint8"}
EMULATION = Path(__file__).with_name("tiles_in_c.h")
needs_avx512 = pytest.mark.skipif(
    not host_features() >= set(AMX.requires) - TILE_FEATURES,
    reason="this CPU does not have avx512",
)
SWEEP = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def panels_of(x: np.ndarray) -> np.ndarray:
    """[columns, k] in panels of 16 columns, groups of four k; what the last one has too many is 255."""
    padded = np.full((-(-len(x) // 16) * 16, x.shape[1]), 255, np.uint8)
    padded[: len(x)] = x
    return np.ascontiguousarray(padded.reshape(-1, 16, x.shape[1] // 4, 4).transpose(0, 2, 1, 3))


@needs_avx512
@SWEEP
@given(
    m=st.integers(1, 70),
    groups=st.integers(1, 50),
    n=st.integers(1, 60),
    zero=st.sampled_from([0, 128, 255]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    extreme=st.booleans(),
    sparse=st.booleans(),
    relu=st.booleans(),
)
def test_tiles_are_exact(m, groups, n, zero, density, extreme, sparse, relu):
    rng = np.random.default_rng([m, groups, n, zero])
    k = 4 * groups
    w = rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))
    kept = np.repeat(np.repeat(rng.random((-(-m // 16), groups)) < density, 16, 0)[:m], 4, 1)
    w = (w * kept).astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    ops = (EpilogueOp("relu"),) if relu else ()
    uses = amx.plan_amx(AMX.isa, n, w, ops, constant_quantization(w, zero, scale, None), "", sparse)
    got, status = run_uses(AMX, uses, [panels_of(x), w], (n, m))
    want = integer.rescale(integer.accumulate(x, zero, w.T, 0), scale)
    assert status == 0
    np.testing.assert_array_equal(got, np.maximum(want, 0) if relu else want)


def test_blocks_of_zeros_take_no_tile():
    w = np.zeros((32, 256), np.int8)
    w[3, 5], w[20, 200] = 1, -1
    tiles, groups, starts = amx.pack(w, sparse=True)
    assert tiles.shape == (2, 16, 64) and starts.tolist() == [0, 1, 2] and groups[[0, 16]].tolist() == [1, 50]
    assert amx.pack(w, sparse=False)[0].shape == (8, 16, 64)


def test_what_the_choice_says():
    rng = np.random.default_rng(0)
    w = rng.integers(1, 100, (256, 512)).astype(np.int8)
    blocks = np.repeat(np.repeat(rng.random((16, 128)) < 0.1, 16, 0), 4, 1)
    assert choose_integer(w, 128, isa=AMX.isa).kernel == "tiles"
    assert choose_integer((w * blocks).astype(np.int8), 128, isa=AMX.isa).kernel == "tile_blocks"
    assert choose_integer(w, 128, isa="avx512").kernel == "dense"
    with pytest.raises(ValueError, match="there is no kernel tiles"):
        choose_integer(w, 128, "tiles", isa="avx512")


# --- whole artifacts --------------------------------------------------------------------------------------------------


def network():
    return mlp(MlpConfig(sizes=(64, 80, 48), batch=33, quantized=True))


@needs_avx512
def test_a_network_gives_the_same_bytes_as_without_tiles(tmp_path):
    """From its C sources, with the demand for tiles taken out of the table of needs."""
    if not shutil.which("make") or not shutil.which("gcc"):
        pytest.skip("gcc or make is not installed")
    tree = sparsec.build(network(), target="avx512-amx", emit="c", output=tmp_path / "c")
    kernels = {layer["kernel"] for layer in json.loads((tree / "manifest.json").read_bytes())["layers"]}
    assert "tiles_u8s8_avx512_amx" in kernels
    models = (tree / "models.c").read_text()
    assert ", SPARSEC_CPU_AMXTILE, SPARSEC_CPU_AMXINT8" in models
    (tree / "models.c").write_text(re.sub("SPARSEC_CPU_AMX(TILE|INT8)", "SPARSEC_CPU_AVX512F", models))
    shutil.copyfile(EMULATION, tree / EMULATION.name)
    flag = f"-DSPARSEC_TILES_IN_C='\"{EMULATION.name}\"'"
    run(["make", "-s", "CC=gcc", f"CFLAGS={flag}"], tree)
    plain = sparsec.build(network(), target="avx512", output=tmp_path / "plain.so")
    with sparsec.load(tree / "model.so", threads=2) as tiles, sparsec.load(plain) as expected:
        inputs = random_inputs(expected.manifest)
        for name, value in expected.run(inputs).items():
            np.testing.assert_array_equal(tiles.run(inputs)[name], value)


def test_the_instructions_are_in_the_artifact(tmp_path):
    path = sparsec.build(network(), target="avx512-amx,avx512", output=tmp_path / "tiles.so")
    assert read_manifest(path)["target"]["name"] == "avx512-amx"
    if not shutil.which("objdump"):
        pytest.skip("objdump is not installed")
    done = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True)
    found = [line.split("\t")[2].split()[0] for line in done.stdout.splitlines() if line.count("\t") >= 2]
    for name in ("ldtilecfg", "tilezero", "tileloadd", "tdpbsud", "tilestored", "tilerelease"):
        assert name in found, name
    assert found.count("ldtilecfg") == found.count("tilerelease"), "what is configured is released"


def test_without_tiles_the_next_target_runs(tmp_path):
    if host_features() >= TILE_FEATURES or not host_features() >= set(TARGETS["avx512"].requires):
        pytest.skip("needs a CPU with avx512 and without AMX")
    path = sparsec.build(network(), target="avx512-amx,avx512", output=tmp_path / "tiles.so")
    with sparsec.load(path) as model:
        assert model.manifest["target"]["name"] == "avx512"
    alone = sparsec.build(network(), target="avx512-amx", output=tmp_path / "alone.so")
    with pytest.raises(sparsec.errors.CpuError, match="needs amxtile amxint8; this CPU has"):
        sparsec.load(alone)


# --- the kernel's permission ------------------------------------------------------------------------------------------


class Needs(ctypes.Structure):
    _fields_ = (("target", ctypes.c_char_p), ("features", ctypes.POINTER(ctypes.c_uint64)), ("count", ctypes.c_int32))


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    """cpu.c with the system call replaced: `asked` holds its arguments, `answer` is what it gives."""
    folder = tmp_path_factory.mktemp("cpu")
    (folder / "fake.c").write_text("""
#include <stdarg.h>
long asked[3], answer;
long fake_syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    asked[0] = number, asked[1] = va_arg(rest, int), asked[2] = va_arg(rest, int);
    va_end(rest);
    return answer;
}
""")
    flags = ["-std=gnu11", "-shared", "-fPIC", "-Dsyscall=fake_syscall"]
    run([*COMPILERS["zig"], *flags, HEADERS / "cpu.c", "fake.c", "-o", "cpu.so"], folder)
    return ctypes.CDLL(str(folder / "cpu.so"))


@pytest.mark.skipif(AMX.machine != host_machine(), reason="asks Linux on x86-64")
def test_the_kernel_is_asked_for_the_tiles(cpu):
    asked, answer = (ctypes.c_long * 3).in_dll(cpu, "asked"), ctypes.c_long.in_dll(cpu, "answer")
    answer.value = 0
    assert cpu.sparsec_cpu_request_tiles() == 1
    assert list(asked) == [158, 0x1023, 18], "arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)"
    answer.value = -1
    assert cpu.sparsec_cpu_request_tiles() == 0


def select(cpu, rows, have: set[str], granted: bool) -> tuple[int, str, int]:
    ids = [text for _, text in CPU_FEATURES]
    table = (Needs * len(rows))(
        *((name.encode(), (ctypes.c_uint64 * len(f))(*map(ids.index, f)), len(f)) for name, f in rows)
    )
    bits = sum(1 << ids.index(f) for f in have)
    calls = []
    request = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: calls.append(1) or int(granted))
    message = ctypes.create_string_buffer(512)
    chosen = cpu.sparsec_cpu_select(
        table, len(rows), ctypes.c_uint64(bits), request, message, ctypes.c_size_t(len(message))
    )
    return chosen, message.value.decode(), len(calls)


def test_a_refusal_is_said_in_words_or_the_next_target_taken(cpu):
    tiles, plain = ("avx512-amx", ("avx512f", "amxtile", "amxint8")), ("avx512", ("avx512f",))
    everything = {"avx512f", *TILE_FEATURES}
    assert select(cpu, [tiles, plain], everything, True) == (0, "", 1)
    assert select(cpu, [tiles, plain], everything, False) == (1, "", 1)
    assert select(cpu, [tiles, plain], {"avx512f"}, False) == (1, "", 0), "nobody asks for what nobody uses"
    chosen, message, calls = select(cpu, [tiles], everything, False)
    assert (chosen, calls) == (-1, 1)
    assert message.startswith("the operating system does not let this process use the AMX tiles")
    assert select(cpu, [tiles], {"avx512f"}, True)[1].startswith("this artifact needs amxtile amxint8")
