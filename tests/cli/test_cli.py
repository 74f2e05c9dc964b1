"""The commands: arguments, errors without traceback, and a small model through all of them."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from sparsec import __version__
from sparsec.cli import cli
from sparsec.cli.run import _file_names
from sparsec.compiler.target import TARGETS
from sparsec.compiler.tools.console import layer_rows
from sparsec.errors import SparsecError
from sparsec.runtime_stub.bench import bench

COMMANDS = ("build", "run", "verify", "bench", "inspect", "targets")


def call(*args, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def error_of(*args):
    """What stands behind `error: ` in the only line that a failing command writes."""
    result = call(*args, status=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ")


# --- without an artifact ----------------------------------------------------------------------------------------------


def test_version():
    assert call("--version").stdout == f"sparsec, version {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    assert call(command, "--help").stdout.startswith(f"Usage: cli {command}")
    assert command in call("--help").stdout


@pytest.mark.parametrize(
    "args",
    [
        ("build", "m.onnx", "--dim", "batch"),
        ("build", "m.onnx", "--dim", "=3"),
        ("build", "m.onnx", "--dim", "batch=1..x"),
        ("build", "m.onnx", "--shape", "image=1,,3"),
        ("build", "m.onnx", "--emit", "exe"),
        ("build", "m.onnx", "--jobs", "0"),
        ("run", "m.so", "--input", "image"),
        ("bench", "m.so", "--seconds", "0"),
        ("verify", "m.onnx"),
        ("frobnicate",),
    ],
)
def test_wrong_arguments(args):
    result = call(*args, status=2)
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_build_passes_its_arguments_on(monkeypatch):
    seen = {}
    monkeypatch.setattr("sparsec.compiler.tools.console.build_on_console", lambda *a, **k: seen.update(k))
    call("build", "m.onnx", "--dim", "batch=1..8", "--dim", "past = len=7", "--shape", "image=1,3,2..4", "--shape",
         "s=", "--emit", "a", "--symbol-prefix", "p_", "--jobs", 2, "--quiet")  # fmt: skip
    assert seen["dims"] == {"batch": (1, 8), "past = len": 7}
    assert seen["shapes"] == {"image": (1, 3, (2, 4)), "s": ()}
    assert (seen["emit"], seen["symbol_prefix"], seen["jobs"], seen["quiet"]) == ("a", "p_", 2, True)
    assert seen["output"] is None and seen["report"] is None and seen["target"] == "native"


@pytest.mark.parametrize("command", ["run", "inspect", "bench"])
@pytest.mark.parametrize("content", [None, b"", b"\x7fELF\x02 and then nothing"])
def test_no_artifact(command, content, tmp_path):
    path = tmp_path / "m.so"
    if content is not None:
        path.write_bytes(content)
    assert "m.so" in error_of(command, path)


def test_no_model(tmp_path):
    assert "m.onnx" in error_of("build", tmp_path / "m.onnx")
    assert "m.onnx" in error_of("verify", tmp_path / "m.onnx", tmp_path / "m.so")


def test_unknown_target(tmp_path):
    assert "z80" in error_of("build", tmp_path / "m.onnx", "--target", "z80")


@pytest.mark.parametrize("command", ["build", "verify"])
def test_without_the_compiler(command, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("sparsec.compiler.tools")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("onnx", "rich", "rich.box"):
        monkeypatch.setitem(sys.modules, name, None)
    error = ModuleNotFoundError("No module named 'onnx'", name="onnx")
    monkeypatch.setattr("builtins.__import__", _without(("onnx", "rich"), error))
    assert "pip install 'sparsec[compiler]'" in error_of(command, "m.onnx", *["m.so"] * (command == "verify"))


def _without(packages, error):
    original = __import__

    def find(name, *args, **kwargs):
        if name.partition(".")[0] in packages:
            raise error
        return original(name, *args, **kwargs)

    return find


def test_the_runtime_alone_serves_the_other_commands(tmp_path):
    """Targets, run, inspect and bench never import the compiler's packages."""
    script = (
        "import sys\n"
        "for name in ('onnx', 'tvm', 'rich', 'jinja2', 'onnxruntime', 'ml_dtypes'): sys.modules[name] = None\n"
        "from click.testing import CliRunner\n"
        "from sparsec.cli import cli\n"
        "for args in (['targets'], ['run', 'm.so'], ['inspect', 'm.so'], ['bench', 'm.so']):\n"
        "    result = CliRunner().invoke(cli, args)\n"
        "    assert 'avx2' in result.output or 'error: cannot read m.so' in result.output, result.output\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_targets():
    lines = call("targets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["target", *TARGETS]
    assert sum(" yes " in line for line in lines) >= 1


def test_bench_refuses_before_loading():
    with pytest.raises(SparsecError, match="known: onnxruntime"):
        bench("m.so", against="nothing")
    with pytest.raises(SparsecError, match="--model"):
        bench("m.so", against="onnxruntime")


def test_file_names_are_safe_and_differ():
    assert _file_names(["a/b", "a:b", "../x", ""]) == ["a_b.npy", "a_b_2.npy", "_x.npy", "output.npy"]


def layer(number, kernel, macs, reason=""):
    nodes = [f"t{number}"]
    return {"name": f"k{number}", "kernel": kernel, "nodes": nodes, "reason": reason, "shape": [1, "n"], "macs": macs}


def test_neighbours_made_of_tir_share_a_row():
    rows = layer_rows([layer(0, "conv2d", 5), layer(1, "tir", 0), layer(2, "tir", 1, "why"), layer(3, "gemm", 7)])
    assert [(r.layer, r.kernel, r.macs) for r in rows] == [("t0", "conv2d", 5), ("t2", "tir x2", 1), ("t3", "gemm", 7)]
    assert rows[1].why == "why" and rows[1].shape == "[1, n]"


def test_a_long_table_keeps_the_heaviest_rows():
    rows = layer_rows([layer(i, f"k{i}", i) for i in range(100)], limit=10)
    assert [r.layer for r in rows[:-1]] == [f"t{i}" for i in range(91, 100)]
    assert (len(rows), rows[-1].layer, sum(r.macs for r in rows)) == (10, "91 lighter rows", 4950)


# --- a model through all commands -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Conv, Relu and Gemm with a dynamic batch."""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "g": (4 * 8 * 8, 5), "c": (5,)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("Gemm", ["flat", "g", "c"], ["out/scores"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("out/scores", TensorProto.FLOAT, ["batch", 5])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def built(model):
    """What `build` printed, with the artifact and the report."""
    output, report, dump = (model.with_name(n) for n in ("small.so", "report.json", "ir"))
    result = call("build", model, "-o", output, "--dim", "batch=1..4", "--report", report, "--dump-ir", dump)
    return result, output, report, dump


@pytest.fixture(scope="module")
def artifact(built):
    return built[1]


def test_build(built):
    from sparsec.compiler.pipeline import STAGES

    result, output, report, dump = built
    assert output.is_file()
    assert str(output) in result.stdout and "conv" in result.stdout and "MMACs" in result.stdout
    assert result.stderr == ""
    assert list(json.loads(report.read_text())["seconds"]) == [stage.name for stage in STAGES]
    assert len(list(dump.iterdir())) == len(STAGES)


def test_build_quietly(model, tmp_path):
    result = call("build", model, "-o", tmp_path / "small.so", "--dim", "batch=2", "--quiet")
    assert result.output == ""
    assert (tmp_path / "small.so").is_file()


def test_build_without_the_dimension(model, tmp_path):
    text = call("build", model, "-o", tmp_path / "small.so", status=2).stderr
    assert text.startswith("error: ") and "--dim batch=1" in text and "Traceback" not in text


def test_run(artifact, tmp_path):
    image = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    result = call("run", artifact, "--input", f"image={tmp_path / 'image.npy'}", "--output", tmp_path / "results")
    assert "out/scores" in result.stdout and "float32" in result.stdout and "[3, 5]" in result.stdout
    assert np.load(tmp_path / "results" / "out_scores.npy").shape == (3, 5)


def test_run_on_random_inputs(artifact):
    assert "[4, 5]" in call("run", artifact, "--seed", 3, "--threads", 2).stdout
    assert call("run", artifact, "--seed", 3).stdout != call("run", artifact, "--seed", 4).stdout


def test_run_on_wrong_inputs(artifact, tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((1, 3, 8, 8), np.float32))
    np.save(tmp_path / "rank.npy", np.zeros((3, 8, 8), np.float32))
    np.save(tmp_path / "type.npy", np.zeros((1, 3, 8, 8)))
    np.savez(tmp_path / "many.npz", image=np.zeros(1))
    (tmp_path / "text.npy").write_text("no array")
    cases = ("picture", "good"), ("image", "rank"), ("image", "type"), ("image", "text"), ("image", "missing")
    for name, file in cases:
        error_of("run", artifact, "--input", f"{name}={tmp_path / file}.npy")
    assert "archive" in error_of("run", artifact, "--input", f"image={tmp_path / 'many.npz'}")


@pytest.mark.parametrize("options", [(), ("--per-layer",)])
def test_verify(model, artifact, options):
    lines = call("verify", model, artifact, *options).stdout.splitlines()
    assert "ULP" in lines[0]
    assert len(lines) > 1 and all(line.endswith("ok") for line in lines[1:])


def test_verify_given_inputs(model, artifact, tmp_path):
    np.savez(tmp_path / "inputs.npz", image=np.ones((2, 3, 8, 8), np.float32))
    assert "out/scores" in call("verify", model, artifact, "--inputs", tmp_path / "inputs.npz").stdout
    np.save(tmp_path / "inputs.npy", np.ones(1))
    assert ".npz" in error_of("verify", model, artifact, "--inputs", tmp_path / "inputs.npy")


def test_verify_of_another_model_exits_with_1(model, artifact, tmp_path):
    proto = onnx.load(str(model))
    weights = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(2 * weights, "w"))
    onnx.save(proto, str(tmp_path / "other.onnx"))
    assert "WRONG" in call("verify", tmp_path / "other.onnx", artifact, status=1).stdout


def test_bench(model, artifact):
    lines = call("bench", artifact, "--against", "onnxruntime", "--model", model, "--seconds", 0.1).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sparsec", "onnxruntime", "ratio"]


def test_bench_as_json(artifact):
    result = json.loads(call("bench", artifact, "--seconds", 0.1, "--json").stdout)
    assert 0 < result["median_ms"] <= result["p90_ms"]
    assert result["peer"] is None and result["ratio"] is None


def test_bench_per_layer(artifact):
    manifest = json.loads(call("inspect", artifact, "--json").stdout)
    layers = json.loads(call("bench", artifact, "--seconds", 0.1, "--per-layer", "--json").stdout)
    assert [row["kernel"] for row in layers] == [row["kernel"] for row in manifest["layers"]]
    assert all(row["ms"] > 0 for row in layers)
    assert sum(row["share"] for row in layers) == pytest.approx(1)
    text = call("bench", artifact, "--seconds", 0.1, "--per-layer").stdout
    assert text.count("GMAC/s") == 2 and layers[0]["kernel"] in text
    assert "--against" in error_of("bench", artifact, "--per-layer", "--against", "onnxruntime")


def test_bench_against_a_broken_model(artifact, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert "onnxruntime cannot run" in error_of(
        "bench", artifact, "--against", "onnxruntime", "--model", tmp_path / "broken.onnx"
    )


def test_inspect(artifact):
    text = call("inspect", artifact).stdout
    for part in ("image", "out/scores", "[batch, 3, 8, 8]", "MMACs", "sha256", "weights", "arena"):
        assert part in text
    manifest = json.loads(call("inspect", artifact, "--json").stdout)
    assert manifest["dims"] == [{"name": "batch", "lower": 1, "upper": 4}]
