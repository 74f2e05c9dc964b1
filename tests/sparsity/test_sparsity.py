"""What is found in weights, what it is predicted to buy, and pruning to a pattern."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from generators.bert import BertConfig, bert
from generators.networks import network
from generators.pruning import pruned

import sparsec
from sparsec.cli import cli
from sparsec.compiler.sparsity.budget import fit
from sparsec.compiler.sparsity.cost import Prediction, choose_float, choose_integer
from sparsec.compiler.sparsity.impose import PATTERNS, impose
from sparsec.compiler.sparsity.patterns import find_pattern
from sparsec.compiler.tools.analyze import analyze, total_gain
from sparsec.errors import SparsecError, TargetError
from sparsec.runtime_stub.cpu import host_features
from sparsec.runtime_stub.inputs import random_inputs

RNG = np.random.default_rng(0)
SMALL = BertConfig(layers=1, hidden=64, heads=2, inner=128, vocabulary=50, seq=32)


def weights(density: float, m: int = 256, k: int = 256) -> np.ndarray:
    return pruned(np.random.default_rng(1), m, k, 1 - density, "unstructured" if density < 1 else "dense")


def integers(density: float, pattern: str) -> np.ndarray:
    return (40 * pruned(np.random.default_rng(2), 256, 256, 1 - density, pattern)).astype(np.int8)


def test_dense_weights_take_the_dense_kernel():
    assert choose_float(weights(1.0), 128).kernel == "gemm"
    assert choose_integer(integers(1.0, "dense"), 128).kernel == "dense"


def test_sparse_weights_take_code_and_gain_more_the_sparser_they_are():
    gains = [choose_float(weights(d), 128).gain for d in (0.4, 0.2, 0.1)]
    assert gains == sorted(gains)
    assert gains[0] > 1
    assert choose_integer(integers(0.2, "1x4"), 128).kernel == "pattern"


def test_unstructured_int8_is_blended():
    assert choose_integer(integers(0.1, "unstructured"), 128).kernel == "blend"
    assert choose_integer(integers(0.1, "unstructured"), 128, among=("dense", "pattern")).kernel == "pattern"


def test_two_of_four_needs_no_code():
    assert choose_integer(integers(0.5, "2:4"), 128).kernel == "n_of_m"


def test_code_has_a_limit():
    choice = choose_integer(integers(0.55, "unstructured"), 1024)
    assert choice.kernel == "dense"
    assert "times the bytes" in choice.reason


def test_few_columns_take_kernels_of_their_own():
    assert choose_float(weights(0.2), 1).kernel == "gemv_mask"
    assert "1 column:" in choose_float(weights(0.2), 1).reason
    assert choose_float(weights(1.0), 1).kernel == "gemm"
    assert choose_integer(integers(0.2, "1x4"), 1).kernel == "gemv_mask4"
    assert choose_integer(integers(1.0, "dense"), 1).storage is not None


def test_what_a_kernel_cannot_do_is_said():
    with pytest.raises(ValueError, match="128 columns"):
        choose_integer(integers(0.2, "1x4"), 128, forced="gemv_mask")
    assert choose_integer(integers(0.2, "1x4"), 128, forced="dense").gain == 1


@pytest.mark.parametrize(
    ("rows", "columns", "name"), [(1, 1, "unstructured"), (1, 4, "1x4"), (4, 1, "4x1"), (2, 4, "2x4"), (16, 4, "16x4")]
)
def test_patterns_are_found(rows, columns, name):
    rng = np.random.default_rng(rows)
    blocks = rng.random((64 // rows, 64 // columns)) < 0.3
    kept = blocks.repeat(rows, 0).repeat(columns, 1)
    w = rng.integers(1, 100, kept.shape) * kept
    w[np.nonzero(w)[0][0], np.nonzero(w)[1][0]] = 0  # as rounding may
    found = find_pattern(w)
    assert found.name == name
    assert found.sparsity == (w == 0).mean()


def test_patterns_that_no_block_is():
    rng = np.random.default_rng(0)
    order = rng.random((32, 16, 4)).argsort(2)
    assert find_pattern((order < 2).reshape(32, 64)).name == "2:4"
    assert find_pattern((rng.random((32, 8, 8)).argsort(2) < 4).reshape(32, 64)).name == "4:8"
    assert find_pattern(np.ones((8, 8))).name == "dense"
    empty = np.ones((8, 64), bool)
    empty[3] = empty[:, 5] = empty[:, 9] = False
    assert (find_pattern(empty).empty_rows, find_pattern(empty).empty_columns) == (1, 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_impose(pattern):
    w = RNG.standard_normal((64, 64)).astype(np.float32)
    out = impose(w, 0.75, pattern)
    assert abs((out == 0).mean() - (0.5 if ":" in pattern else 0.75)) < 0.01
    assert find_pattern(out).name == pattern
    np.testing.assert_array_equal(out[out != 0], w[out != 0])
    if pattern == "1x4":
        blocks = (out != 0).reshape(64, 16, 4).sum(2)
        assert set(np.unique(blocks)) <= {0, 4}
    if pattern == "2:4":
        assert ((out != 0).reshape(64, 16, 4).sum(2) == 2).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze") / "model.onnx"
    onnx.save(bert(replace(SMALL, sparsity=0.9, pattern="unstructured")), str(path))
    return path


@pytest.mark.skipif(not {"avx512vnni", "avx512vbmi2"} <= host_features(), reason="this CPU does not have avx512")
def test_size_and_kernels_that_are_asked_for(tmp_path):
    """Every kernel of a layer computes the same."""
    source = network("bert_base", "int8_1x4_80", layers=1, hidden=64, heads=2, inner=128, vocabulary=50, seq=32)
    path = tmp_path / "model.onnx"
    onnx.save(source, str(path))
    layers, results = [], []
    asked = {"layer0.q.out": "indexed4", "layer0.k.out": "blend", "layer0.v.out": "dense"}
    for options in ({}, {"optimize": "size"}, {"kernels": asked}):
        loaded = sparsec.load(sparsec.build(path, output=tmp_path / "model.so", **options))
        layers.append({node: layer["kernel"] for layer in loaded.manifest["layers"] for node in layer["nodes"]})
        results.append(loaded.run(random_inputs(loaded.manifest)))
    assert layers[1]["layer0.q.out"] == "indexed1_u8s8_avx512"
    assert [layers[2][name].split("_")[0] for name in asked] == ["indexed4", "blended", "dense"]
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, other[name])
    with pytest.raises(SparsecError, match=r"no layer with a choice of kernels; there are: layer0\.q\.out"):
        sparsec.build(path, output=tmp_path / "model.so", kernels={"nowhere": "dense"})
    with pytest.raises(SparsecError, match="no kernel gemm for int8 weights"):
        sparsec.build(path, output=tmp_path / "model.so", kernels={"layer0.q.out": "gemm"})
    with pytest.raises(SparsecError, match="speed, size"):
        sparsec.build(path, output=tmp_path / "model.so", optimize="small")


def test_layers_that_lose_least_get_smaller():
    first = {"fast": Prediction(10, 100), "slow": Prediction(20, 60)}
    second = {"fast": Prediction(10, 100), "half": Prediction(12, 70), "slow": Prediction(90, 50)}
    kernels = [first, second]
    wanted = {200: ["fast", "fast"], 199: ["fast", "half"], 169: ["slow", "half"], 129: ["slow", "slow"]}
    for limit, names in wanted.items():
        assert fit(["fast", "fast"], kernels, limit) == names
    assert fit(["fast", "fast"], kernels, 0) == ["slow", "slow"]
    assert fit(["slow", "half"], kernels, 169) == ["slow", "half"]


@pytest.mark.parametrize("form", ["int8_1x4_80", "fp32_unstructured_90"])
def test_a_limit_of_bytes_moves_only_as_many_layers_as_it_takes(tmp_path, form):
    source = network("bert_base", form, layers=1, hidden=128, heads=2, inner=512, vocabulary=50, seq=32)
    built = iter(tmp_path / str(number) for number in range(3))

    def build(**options):
        """(bytes of weights and generated code, kernels)"""
        folder = sparsec.build(source, output=next(built), emit="c", target="avx512", **options)
        files = [folder / name for name in ("weights.bin", "code.bin")]
        layers = json.loads((folder / "manifest.json").read_text())["layers"]
        return sum(f.stat().st_size for f in files if f.exists()), [layer["kernel"].split("_")[0] for layer in layers]

    with pytest.raises(SparsecError, match="more than --max-size 1:") as refused:
        sparsec.build(source, output=tmp_path / "c", emit="c", target="avx512", max_size=1)
    least = int(re.findall(r"takes ([\d,]+) bytes", str(refused.value))[0].replace(",", ""))
    largest, free = build()
    smallest, all_moved = build(max_size=least)
    size, some_moved = build(max_size=(largest + least) // 2)
    assert smallest == least
    assert least < size <= (largest + least) // 2
    moved = [names.count("indexed1") for names in (free, some_moved, all_moved)]
    assert moved == sorted(set(moved))


def test_a_limit_of_bytes_is_read():
    result = CliRunner().invoke(cli, ["build", "model.onnx", "--max-size", "48 apples"])
    assert result.exit_code == 2
    assert "48 apples' is not a size such as 48MB" in result.output
    with pytest.raises(SparsecError, match="is no number of bytes"):
        sparsec.build("model.onnx", max_size=0)
    sizes = {"48MB": 48_000_000, "1.5 gb": 1_500_000_000, "900k": 900_000, "7": 7}
    option = next(p for p in cli.commands["build"].params if p.name == "max_size")
    assert {text: option.type(text) for text in sizes} == sizes


def test_analyze(model):
    rows = analyze(model, target="avx512", sparsity=0.95, pattern="unstructured")
    assert len(rows) == 7
    assert [r.kernel for r in rows].count("pattern") == 6
    assert all(abs(r.sparsity - 0.9) < 0.01 for r in rows if r.kernel == "pattern")
    assert 1 < total_gain(rows, imposed=False) < total_gain(rows, imposed=True)


def test_analyze_prints(model):
    result = CliRunner().invoke(cli, ["analyze", str(model), "--target", "avx512", "--impose-sparsity", "0.9"])
    assert result.exit_code == 0, result.output
    assert "pruned gain" in result.output
    assert "predicted" in result.output.splitlines()[-1]


def test_analyze_refuses(model):
    with pytest.raises(SparsecError, match="pattern"):
        analyze(model, target="avx512", pattern="3x5")
    with pytest.raises(SparsecError, match="between 0 and 1"):
        analyze(model, target="avx512", sparsity=1.5)
    with pytest.raises(TargetError, match="no sparse kernels"):
        analyze(model, target="x86-64")
