"""Operators that come with a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from tvm import relax

import sparsec
from sparsec.cli import cli
from sparsec.compiler.frontend.custom import load_custom_ops
from sparsec.errors import SparsecError, UnsupportedError

_EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_op" / "operators.py"


def _model(nodes, outputs, domain="example"):
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 50]) for n in ("x", "gate")]
    made = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in outputs]
    constants = [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("lowest", -1.0), ("highest", 1.0))]
    graph = helper.make_graph(nodes, "custom", inputs, made, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def example_model(tmp_path):
    nodes = [
        helper.make_node("GatedTanh", ["x", "gate"], ["gated"], "gated", domain="example"),
        helper.make_node("Mul", ["gated", "gated"], ["squared"], "square"),
        helper.make_node("Histogram", ["squared", "lowest", "highest"], ["counts"], "count", domain="example", bins=8),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(_model(nodes, [("counts", TensorProto.INT32, ["rows", 8])]), str(path))
    return path


@pytest.mark.parametrize("threads", [1, 3])
def test_the_example(example_model, tmp_path, threads):
    so = tmp_path / "model.so"
    arguments = ["build", str(example_model), "-o", str(so), "--dim", "rows=1..64", "--custom-ops", str(_EXAMPLE)]
    result = CliRunner().invoke(cli, [*arguments, "--quiet"])
    assert result.exit_code == 0, result.output
    x, gate = np.random.default_rng(0).standard_normal((2, 33, 50)).astype(np.float32)
    with sparsec.load(so, threads=threads) as model:
        counts = model.run({"x": x, "gate": gate})["counts"]
        assert "example.Histogram" in [layer["kernel"] for layer in model.manifest["layers"]]
    squared = (np.tanh(x) / (1 + np.exp(-gate))) ** 2
    expected = np.stack([np.histogram(row, 8, (-1, 1))[0] for row in squared])
    np.testing.assert_array_equal(counts, expected)


def test_several_outputs(tmp_path):
    source = """
    int32_t split(const float *x, float *low, float *high, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) low[i] = x[i] < 0 ? x[i] : 0, high[i] = x[i] < 0 ? 0 : x[i];
        return 0;
    }"""

    @sparsec.custom_op("test.signs", "Signs")
    def signs(call):
        rows, columns = call.shape(0)
        return call.c_kernel(source, "split", [(call.shape(0), "float32")] * 2, extent=rows * columns, grain=16)

    nodes = [
        helper.make_node("Signs", ["x"], ["low", "high"], "signs", domain="test.signs"),
        helper.make_node("Sub", ["high", "low"], ["size"], "size"),
    ]
    model = _model(nodes, [("size", TensorProto.FLOAT, ["rows", 50]), ("low", TensorProto.FLOAT, ["rows", 50])],
                   "test.signs")  # fmt: skip
    del model.graph.input[1]
    so = sparsec.build(model, output=tmp_path / "m.so", dims={"rows": (1, 9)})
    x = np.random.default_rng(0).standard_normal((7, 50)).astype(np.float32)
    found = sparsec.load(so, threads=2).run({"x": x})
    np.testing.assert_array_equal(found["size"], np.abs(x))
    np.testing.assert_array_equal(found["low"], np.minimum(x, 0))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda call: call.refuse("only on Sundays"), "only on Sundays"),
        (lambda call: call.input(5), "its input 5 is missing"),
        (lambda call: call.c_kernel("int x;", "f", [((1,), "float32")]), "its C source has no function f"),
        (lambda call: relax.op.matmul(call.input(0), call.input(0)), "Matmul requires"),
        (lambda call: {}["nothing"], "nothing"),
    ],
)
def test_refusals_name_the_node(body, reason, tmp_path):
    sparsec.custom_op("test.refused", "Bad")(body)
    node = helper.make_node("Bad", ["x"], ["y"], "the_bad_one", domain="test.refused")
    model = _model([node], [("y", TensorProto.FLOAT, ["rows", 50])], "test.refused")
    with pytest.raises(UnsupportedError, match="the_bad_one") as caught:
        sparsec.build(model, output=tmp_path / "m.so", dims={"rows": 3})
    assert reason in str(caught.value)


def test_c_that_does_not_compile(tmp_path):
    @sparsec.custom_op("test.syntax", "Bad")
    def bad(call):
        return call.c_kernel("int32_t f(const float *x) { return y; }", "f", [(call.shape(0), "float32")])

    node = helper.make_node("Bad", ["x"], ["y"], "bad", domain="test.syntax")
    model = _model([node], [("y", TensorProto.FLOAT, ["rows", 50])], "test.syntax")
    with pytest.raises(SparsecError, match="undeclared identifier 'y'"):
        sparsec.build(model, output=tmp_path / "m.so", dims={"rows": 3})


@pytest.mark.parametrize(("domain", "op"), [("", "Relu"), ("ai.onnx", "Relu"), ("com.microsoft", "FusedMatMul")])
def test_operators_of_others_stay_theirs(domain, op):
    with pytest.raises(SparsecError, match="is not yours to define"):
        sparsec.custom_op(domain, op)(lambda call: call.input(0))


def test_files_that_are_no_operators(tmp_path):
    with pytest.raises(SparsecError, match="cannot read"):
        load_custom_ops(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("import math\n")
    with pytest.raises(SparsecError, match="registers no operator"):
        load_custom_ops(tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(SparsecError, match="failed: ZeroDivisionError"):
        load_custom_ops(tmp_path / "broken.py")
