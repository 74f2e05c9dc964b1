"""One artifact for several targets: the CPU gets the best that it can run, and all share one copy of the weights."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from c_tools import feature_numbers, run
from click.testing import CliRunner
from elftools.elf.elffile import ELFFile
from emulation import MACHINES, Program, native_targets
from generators.resnet50 import ResNetConfig, resnet50
from onnx import helper, numpy_helper
from small_models import CONVNET_DIMS, convnet, product

import sparsec
from sparsec.cli import cli
from sparsec.compiler.target import resolve_all
from sparsec.errors import CpuError, TargetError
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.cpu import host_machine
from sparsec.runtime_stub.inputs import random_inputs

ALL = "avx512,avx2,generic"
HASWELL = next(m for m in MACHINES if m.target == "avx2")
NEHALEM = next(m for m in MACHINES if m.target == "x86-64")
on_x86 = pytest.mark.skipif(host_machine() != "x86_64", reason="builds that this machine loads are x86-64 ones")


def integer_model():
    return resnet50(ResNetConfig(size=32, depths=(1, 1, 1, 1), width=8, classes=10,
                                 sparsity=0.8, pattern="1x4", quantized=True))  # fmt: skip


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """(path, report) of a small quantized network for three targets."""
    folder = tmp_path_factory.mktemp("members")
    report = folder / "report.json"
    path = sparsec.build(integer_model(), target=ALL, output=folder / "resnet.so", report=report)
    return path, json.loads(report.read_text())


def names(manifest) -> list[str]:
    return [m["target"]["name"] for m in (manifest, *manifest.get("fallbacks", ()))]


# --- what is built ----------------------------------------------------------------------------------------------------


def test_best_first_in_any_order():
    assert [t.name for t in resolve_all("generic, avx512,avx2,avx2")] == ["avx512", "avx2", "generic"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("avx2,aarch64", "one file holds targets of one architecture: avx2 runs on .*, aarch64 on aarch64-linux"),
        ("avx2,avx3", "unknown target 'avx3'; known: native, avx512"),
        ("", "unknown target ''"),
        ("generic,avx2,x86-64", "no CPU would take generic: x86-64 comes first and needs no more than it"),
    ],
)
def test_lists_that_make_no_sense(targets, message):
    with pytest.raises(TargetError, match=message):
        resolve_all(targets)


def test_manifest_and_report_show_every_target(artifact):
    path, report = artifact
    manifest = read_manifest(path)
    assert names(manifest) == ["avx512", "avx2", "generic"]
    for member in (manifest, *manifest["fallbacks"]):
        assert member["arena_bytes"] > 0 and member["layers"]
    assert [row["name"] for row in report["targets"]] == names(manifest)
    assert all(row["code_bytes"] > 1000 for row in report["targets"])


def test_inspect_shows_every_target(artifact):
    shown = CliRunner().invoke(cli, ["inspect", str(artifact[0])]).output
    for name in names(read_manifest(artifact[0])):
        assert re.search(rf"^target   {name} \(", shown, re.M) and f"layer on {name} " in shown
    assert len(re.findall(r"^arena ", shown, re.M)) == 3


def test_weights_that_two_targets_have_alike_are_there_once(tmp_path):
    """avx2 and x86-64 take other tiles of a product; a table of embeddings is the same for all."""
    table = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
    node = helper.make_node("Gather", ["table", "ids"], ["rows"])
    graph = helper.make_graph(
        [node],
        "lookup",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [5])],
        [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [5, 64])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = sparsec.build(model, target=ALL, output=tmp_path / "table.so")
    assert table.nbytes <= read_manifest(path)["weights_bytes"] < table.nbytes + 1000
    assert path.stat().st_size < 1.2 * table.nbytes


def test_every_build_gives_the_same_bytes(artifact, tmp_path):
    again = sparsec.build(integer_model(), target="generic,avx2,avx512", output=tmp_path / "again.so")
    assert again.read_bytes() == artifact[0].read_bytes()


def test_max_size_counts_all_targets(tmp_path):
    model = integer_model()
    whole = sparsec.build(model, target=ALL, output=tmp_path / "whole.so")
    with pytest.raises(sparsec.errors.SparsecError, match="more than --max-size 10,000"):
        sparsec.build(model, target=ALL, output=tmp_path / "none.so", max_size=10_000)
    limit = read_manifest(whole)["weights_bytes"] * 2
    sparsec.build(model, target=ALL, output=tmp_path / "small.so", max_size=limit)


# --- which one runs ---------------------------------------------------------------------------------------------------


@on_x86
def test_the_best_runs_and_gives_what_it_gives_alone(artifact, tmp_path):
    best = native_targets()[0]
    alone = sparsec.build(integer_model(), target=best, output=tmp_path / "alone.so")
    with sparsec.load(artifact[0], threads=2, timed=True) as model, sparsec.load(alone) as expected:
        assert model.manifest["target"]["name"] == best
        assert "fallbacks" not in model.manifest or best == "avx512"
        inputs = random_inputs(model.manifest)
        for name, value in expected.run(inputs).items():
            np.testing.assert_array_equal(model.run(inputs)[name], value)
        assert model.layer_seconds().size == len(model.manifest["layers"])
        assert model.workspace_bytes == model.manifest["arena_bytes"]


@pytest.mark.parametrize("emit", ["a", "o"])
@pytest.mark.parametrize("machine", [HASWELL, NEHALEM], ids=lambda m: m.id)
def test_a_lesser_cpu_gets_what_it_can_run(machine, emit, artifact, tmp_path):
    if machine.missing():
        pytest.skip(machine.missing())
    program = Program(integer_model(), replace(machine, target=ALL), tmp_path, emit=emit)
    inputs = random_inputs(program.manifest)
    with sparsec.load(artifact[0]) as model:
        answer = b"".join(value.tobytes() for value in model.run(inputs).values())
    assert program.run(inputs, threads=2) == answer
    assert program.target() == {"x86-64": "generic"}.get(machine.target, machine.target)


def test_refused_in_words_where_none_fits(tmp_path):
    if NEHALEM.missing():
        pytest.skip(NEHALEM.missing())
    program = Program(product(0), replace(NEHALEM, target="avx512,avx2"), tmp_path, dims={"rows": 1})
    with pytest.raises(RuntimeError, match=r"needs avx2 .* for avx512, or avx2 .* for avx2; this CPU has sse4"):
        program.target()


@on_x86
def test_a_library_whose_targets_do_not_fit_is_not_loaded(tmp_path):
    path = sparsec.build(product(0), target="avx512,avx2", output=tmp_path / "p.so", dims={"rows": 1})
    data, manifest = path.read_bytes(), read_manifest(path)
    for member in (manifest, *manifest["fallbacks"]):
        table = feature_numbers(*member["target"]["features"])
        assert data.count(table) == 1
        data = data.replace(table, feature_numbers("i8mm") * (len(table) // 8))
    path.write_bytes(data)
    with pytest.raises(CpuError, match="needs i8mm for avx512, or i8mm for avx2; this CPU has"):
        sparsec.load(path)


@on_x86
@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("make"), reason="gcc or make is not installed")
def test_sources_build_with_their_own_makefile(tmp_path):
    folder = sparsec.build(convnet(), target=ALL, output=tmp_path / "c", emit="c", dims=CONVNET_DIMS)
    run(["make", "-s", "CC=gcc"], folder)
    so = folder / "model.so"
    assert names(read_manifest(so)) == ["avx512", "avx2", "generic"]
    built = sparsec.build(convnet(), target=native_targets()[0], output=tmp_path / "one.so", dims=CONVNET_DIMS)
    with sparsec.load(so) as made, sparsec.load(built) as expected:
        inputs = random_inputs(expected.manifest, dims=dict.fromkeys(CONVNET_DIMS, 2))
        for name, value in expected.run(inputs).items():
            np.testing.assert_allclose(made.run(inputs)[name], value, rtol=1e-4, atol=1e-5)


def test_a_prefix_reaches_every_target(tmp_path):
    path = sparsec.build(product(0), target=ALL, output=tmp_path / "p.so", dims={"rows": 2}, symbol_prefix="my_")
    with path.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        exported = [s.name for s in symbols if s.name and s.entry.st_shndx != "SHN_UNDEF"]
    assert exported and all(name.startswith("my_") for name in exported)
