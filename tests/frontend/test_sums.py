"""Dimensions that are sums of others, given or found where two sizes meet."""

from __future__ import annotations

import re

import numpy as np
import pytest
from click.testing import CliRunner
from graphs import floats, model, node

import sparsec
from sparsec.cli import cli
from sparsec.compiler.frontend.linear import Sum, parse
from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.errors import InputError, ShapeError, UnsupportedError
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.inputs import random_inputs

DIMS = {"past": (0, 5), "new": (1, 4), "total": (1, 9)}


def masked():
    """y = (past ++ x) * mask, as decoders write it."""
    nodes = [node("Concat", "past x", "all", axis=0), node("Mul", "all mask", "y", name="masked")]
    inputs = {"past": ("float32", ["past", 3]), "x": ("float32", ["new", 3]), "mask": ("float32", ["total", 1])}
    return model(nodes, inputs, "y")


@pytest.mark.parametrize(
    ("text", "total"),
    [("a+b", Sum({"a": 1, "b": 1})), ("2*a + 3", Sum({"a": 2}, 3)), ("p2o.x.1", Sum({"p2o.x.1": 1})),
     ("a+a", Sum({"a": 2})), ("4", Sum({}, 4))],
)  # fmt: skip
def test_text(text, total):
    assert parse(text) == total
    assert parse(str(total)) == total


@pytest.mark.parametrize("dims", [DIMS, {**DIMS, "total": "past+new"}])
def test_the_mask_is_as_long_as_the_cache(dims, tmp_path):
    path = sparsec.build(masked(), output=tmp_path / "m.so", dims=dims)
    manifest = read_manifest(path)
    (row,) = [d for d in manifest["dims"] if d["name"] == "total"]
    assert row["equals"] == {"terms": {"past": 1, "new": 1}, "constant": 0} and row["upper"] == 9
    assert [i["shape"][0] for i in manifest["inputs"]] == ["past", "new", "total"]
    assert {k: v.shape[0] for k, v in random_inputs(manifest, {"past": 2, "new": 3}).items()} == {
        "past": 2, "x": 3, "mask": 5}  # fmt: skip
    loaded = sparsec.load(path)
    for past, new in ((0, 1), (5, 4), (2, 2)):
        feed = {"past": floats(past, 3), "x": floats(new, 3, seed=1), "mask": floats(past + new, 1, seed=2)}
        want = np.concatenate([feed["past"], feed["x"]]) * feed["mask"]
        np.testing.assert_array_equal(loaded.run(feed)["y"], want)
    with pytest.raises(InputError, match=re.escape("dimension total is 3, but past + new is 4")):
        loaded.run({"past": floats(2, 3), "x": floats(2, 3), "mask": floats(3, 1)})
    shown = CliRunner().invoke(cli, ["inspect", str(path)]).output
    assert re.search(r"^total +\d+ +9 += past \+ new", shown, re.M)


def test_bound_as_a_state(tmp_path):
    path = sparsec.build(masked(), output=tmp_path / "m.so", dims={**DIMS, "total": "past+new"})
    loaded = sparsec.load(path, state={"y": "past"})
    first = loaded.run({"x": floats(2, 3), "mask": np.ones((2, 1), np.float32)})
    assert first == {}
    with pytest.raises(InputError, match="dimension total is 2"):
        loaded.run({"x": floats(1, 3), "mask": np.ones((2, 1), np.float32)})
    loaded.run({"x": floats(1, 3), "mask": np.ones((3, 1), np.float32)})
    assert loaded.state_get("past").shape == (3, 3)


def test_two_names_for_one_size():
    made = model([node("Add", "a b", "y")], {"a": ("float32", ["m"]), "b": ("float32", ["n"])}, "y")
    prepared = prepare(load(made), {"m": (1, 4), "n": (1, 4)})
    prepared.diagnostics.check()
    assert prepared.dims["n"].equals is not None and prepared.types["y"].shape[0].name == "m"


def test_products_and_concatenations():
    nodes = [node("MatMul", "a b", "p"), node("Concat", "p c", "y", axis=0)]
    shapes = {"a": ["i", "k"], "b": ["l", "j"], "c": [1, "m"]}
    made = model(nodes, {name: ("float32", shape) for name, shape in shapes.items()}, "y")
    prepared = prepare(load(made), dict.fromkeys("ijklm", (1, 4)))
    prepared.diagnostics.check()
    assert {n for n, d in prepared.dims.items() if d.equals is not None} == {"l", "m"}


def test_a_size_that_can_only_be_a_number():
    nodes = [node("MatMul", "a w", "p"), node("Add", "p b", "y")]
    made = model(nodes, {"a": ("float32", [2, "k"]), "b": ("float32", ["n"])}, "y", w=floats(5, 3))
    prepared = prepare(load(made), {"k": (1, 8), "n": (1, 8)})
    prepared.diagnostics.check()
    assert prepared.types["a"].shape == (2, 5) and prepared.types["b"].shape == (3,) and not prepared.dims


def test_depths_that_may_differ():
    nodes = [node("NonZero", "a", "places"), node("Cast", "places", "found", to=1),
             node("MatMul", "found w", "y", name="product")]  # fmt: skip
    made = model(nodes, {"a": ("float32", [7])}, "y", w=floats(7, 3))
    with pytest.raises(UnsupportedError, match=r"product.*depths .* and 7, which may differ"):
        prepare(load(made)).diagnostics.check()


@pytest.mark.parametrize(
    ("dims", "message"),
    [({**DIMS, "total": "past+other"}, "--dim total=past + other: the dimension other must have a size"),
     ({**DIMS, "total": "total+1"}, "the dimension total must have a size")],
)  # fmt: skip
def test_sums_of_nothing(dims, message):
    with pytest.raises(ShapeError, match=re.escape(message)):
        prepare(load(masked()), dims)


def test_sizes_that_no_sum_makes_equal():
    nodes = [node("Concat", "a a", "aa", axis=0), node("Add", "aa b", "y", name="sum")]
    shapes = {"a": ["n"], "b": ["n"]}
    made = model(nodes, {name: ("float32", shape) for name, shape in shapes.items()}, "y")
    with pytest.raises(UnsupportedError, match=r"sum.*narrow their ranges"):
        prepare(load(made), {"n": (1, 4)}).diagnostics.check()


def test_on_the_command_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(masked().SerializeToString())
    arguments = ["build", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/m.so", "--dim", "past=0..2", "--dim", "new=1"]
    done = CliRunner().invoke(cli, [*arguments, "--dim", "total=past+new"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(cli, [*arguments, "--dim", "total=1..x"])
    assert wrong.exit_code != 0
