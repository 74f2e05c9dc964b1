"""Inputs that a build makes constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import sparsec
from sparsec.cli import cli
from sparsec.compiler.tools.verify import verify
from sparsec.errors import ShapeError
from sparsec.runtime_stub.bench import bench


@pytest.fixture
def scaled(tmp_path):
    """y = x * table if wide else x * rate."""
    branches = {
        name: helper.make_graph([helper.make_node("Mul", ["x", factor], ["r"])], name, [],
                                [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)])
        for name, factor in (("then_branch", "table"), ("else_branch", "factor"))
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["rate"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("If", ["wide"], ["y"], "choose", **branches),
    ]

    def info(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [info("x", TensorProto.FLOAT, ["n", 3]), info("rate", TensorProto.INT64, [1]),
              info("wide", TensorProto.BOOL, []), info("table", TensorProto.FLOAT, [3])]  # fmt: skip
    graph = helper.make_graph(nodes, "scaled", inputs, [info("y", TensorProto.FLOAT, ["n", 3])])
    path = tmp_path / "scaled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_from_the_command_line(scaled, tmp_path):
    np.save(tmp_path / "table.npy", np.float32([1, 2, 3]))
    so = tmp_path / "m.so"
    x = np.ones((2, 3), np.float32)
    common = ["build", str(scaled), "-o", str(so), "--dim", "n=1..4", "--quiet", "--fix", "rate=5"]
    for wide, expected in (("false", [5, 5, 5]), ("true", [1, 2, 3])):
        result = CliRunner().invoke(cli, [*common, "--fix", f"wide={wide}", "--fix", f"table={tmp_path}/table.npy"])
        assert result.exit_code == 0, result.output
        model = sparsec.load(so)
        assert [i.name for i in model.inputs] == ["x"]
        np.testing.assert_array_equal(model.run({"x": x})["y"], [expected] * 2)
        assert verify(scaled, so).ok and verify(scaled, so, per_layer=True).ok
        assert bench(so, against="onnxruntime", model=scaled, seconds=0.05).peer is not None


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"speed": 1}, "no input named 'speed'; it has 'rate', 'table', 'wide', 'x'"),
        ({"rate": 1.5}, "1.5 is not a value of type int64"),
        ({"rate": "fast"}, "'fast' is not a value of type int64"),
        ({"table": [1, 2]}, r"has shape \[2\], the model takes \[3\]"),
        ({"table": 1}, r"has shape \[\], the model takes \[3\]"),
    ],
)
def test_values_that_do_not_fit(scaled, tmp_path, fixed, message):
    with pytest.raises(ShapeError, match=message):
        sparsec.build(scaled, output=tmp_path / "m.so", dims={"n": 1}, fixed=fixed)
