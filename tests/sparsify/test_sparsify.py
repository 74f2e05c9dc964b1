"""The whole way on small networks: patterns hold, the result runs in onnxruntime and is built, errors are sentences."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from networks import correlated, perceptron, pixels
from onnx import numpy_helper

import sparsec
from sparsec.cli import cli
from sparsec.compiler.tools.verify import verify
from sparsec.errors import InputError, ModelError, SparsecError
from sparsec.sparsify import Pruning, Quantization, Recipe

MODELS = {"perceptron": (perceptron, (32,)), "pixels": (pixels, (4, 12, 12))}


def case(name):
    """(model, calibration data)."""
    make, shape = MODELS[name]
    x = correlated(96, *shape)
    return make(), [{"x": x[i : i + 16]} for i in range(0, len(x), 16)]


def outputs(model, feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def distance(model, dense, feeds):
    """Relative to the dense outputs' energy."""
    wanted = outputs(dense, feeds)
    return float(np.square(outputs(model, feeds) - wanted).sum() / np.square(wanted).sum())


def weights(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


@pytest.mark.parametrize("name", MODELS)
def test_better_than_magnitude_on_new_data(name):
    dense, feeds = case(name)
    fresh = [{"x": correlated(64, *MODELS[name][1], seed=1)[48:]}]
    error = {}
    for method, correct in (("magnitude", False), ("alps", True)):
        recipe = Recipe(Pruning(0.6, method=method, correct=correct))
        error[method] = distance(sparsec.sparsify(dense, data=feeds, recipe=recipe).network.model(), dense, fresh)
    assert error["alps"] < 0.5 * error["magnitude"]


@pytest.mark.parametrize("name", MODELS)
def test_int8_is_close(name):
    dense, feeds = case(name)
    done = sparsec.sparsify(dense, data=feeds)
    model = done.network.model()
    onnx.checker.check_model(model, full_check=True)
    assert distance(model, dense, feeds) < 2e-3
    assert all(layer.quantized for layer in done.layers.values())
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) >= 4


@pytest.mark.parametrize("name", MODELS)
def test_masks_survive_quantization(name):
    dense, feeds = case(name)
    done = sparsec.sparsify(dense, data=feeds, sparsity=0.5, pattern="1x4")
    assert done.masks
    found = weights(done.network.model())
    for weight, mask in done.masks.items():
        assert not found[f"{weight}_quantized"][~mask].any()
        assert 0.45 < (~mask).mean() < 0.55


def test_n_of_m_needs_no_sparsity():
    dense, feeds = case("perceptron")
    done = sparsec.sparsify(dense, data=feeds, pattern="2:4", quantize="none")
    assert [layer.sparsity for layer in done.layers.values()] == [0.5, 0.5]


def test_layers_that_stay_dense_say_why():
    dense, feeds = case("pixels")
    done = sparsec.sparsify(dense, data=feeds, sparsity=0.5, quantize="none", exclude=["head"])
    reasons = {layer.name: layer.dense_reason for layer in done.layers.values()}
    assert reasons == {"stem": "", "body": "", "depthwise": "grouped convolution", "head": "excluded"}
    assert np.array_equal(weights(done.network.model())["w4"], weights(dense)["w4"])


def test_deterministic():
    dense, feeds = case("pixels")
    first, again = (
        sparsec.sparsify(dense, data=feeds, sparsity=0.5, seed=3).network.model().SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == again


def test_dense_model_is_not_changed():
    dense, feeds = case("perceptron")
    before = dense.SerializeToString(deterministic=True)
    sparsec.sparsify(dense, data=feeds, sparsity=0.5)
    assert dense.SerializeToString(deterministic=True) == before


def test_a_shared_weight_is_pruned_once():
    dense = perceptron(depth=16, hidden=16)
    first = next(n for n in dense.graph.node if n.name == "first")
    again = onnx.NodeProto()
    again.CopyFrom(first)
    again.name, again.input[0], again.output[0] = "again", "hidden", "second_product"
    dense.graph.node.insert(3, again)
    dense.graph.node[-1].input[0] = "second_product"
    done = sparsec.sparsify(dense, data=[{"x": correlated(64, 16)}], sparsity=0.5)
    assert np.mean(weights(done.network.model())["w1_quantized"] == 0) >= 0.49
    assert distance(done.network.model(), dense, [{"x": correlated(64, 16)}]) < 0.5


def test_built_artifact_agrees(tmp_path):
    """`sparsec build` takes the result with no flags but its dimensions."""
    dense, feeds = case("perceptron")
    sparsec.sparsify(dense, data=feeds, sparsity=0.5, pattern="1x4", output=tmp_path / "out.onnx")
    artifact = sparsec.build(tmp_path / "out.onnx", output=tmp_path / "out.so", dims={"n": 16})
    assert verify(tmp_path / "out.onnx", artifact, per_layer=True).ok


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipe_round_trip(tmp_path):
    recipe = Recipe(Pruning(0.7, "1x4", ignore=("a*",), layers={"b": 0.2}), Quantization(activations="entropy"), 5)
    recipe.write(tmp_path / "recipe.yaml")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


def test_the_recipe_of_the_documentation(tmp_path):
    text = (Path(sparsec.__path__[0]) / "docs" / "sparsify.md").read_text(encoding="utf-8")
    (tmp_path / "r.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert Recipe.read(tmp_path / "r.yaml").pruning.pattern == "1x4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "a recipe has a list `modifiers`"),
        ("modifiers: [{PruningModifier: {sparsity: 2}}]", "a sparsity of 2 is not between 0 and 1"),
        ("modifiers: [{PruningModifier: {}}]", "missing 1 required positional argument: 'sparsity'"),
        ("modifiers: [{PruningModifier: {share: 1}}]", "has no option 'share'"),
        ("modifiers: [{DistillationModifier: {}}]", "a modifier is one of PruningModifier"),
        ("modifiers: [{QuantizationModifier: {rounding: up}}]", "unknown rounding 'up'"),
        ("version: 9\nmodifiers: []", "version 9 is not known"),
        ("a: [", "is no YAML file"),
    ],
)
def test_bad_recipe(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(SparsecError, match=message) as error:
        Recipe.read(tmp_path / "r.yaml")
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


# --- errors and the command -------------------------------------------------------------------------------------------


def test_bad_arguments():
    dense, feeds = case("perceptron")
    for options, message in (
        ({"quantize": "none"}, "nothing to do"),
        ({"sparsity": 1.5}, "not between 0 and 1"),
        ({"pattern": "5"}, "unknown pattern"),
        ({"quantize": "int4"}, "unknown --quantize"),
    ):
        with pytest.raises(SparsecError, match=message):
            sparsec.sparsify(dense, data=feeds, **options)
    for data, message in (
        ([], "hold no sample"),
        ([{"y": np.zeros(3)}], "lack the input x"),
        ([{"x": np.zeros((1, 32), complex)}], "is float32"),
        ("python:nowhere", "is not python:module:function"),
        ("python:nowhere:f", "No module named"),
    ):
        with pytest.raises(InputError, match=message):
            sparsec.sparsify(dense, data=data)


def test_old_opset_that_cannot_be_raised():
    dense = perceptron()
    dense.opset_import[0].version = 6
    dense.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="opset 6"):
        sparsec.sparsify(dense, data=[{"x": correlated(8, 32)}])


@pytest.fixture
def files(tmp_path):
    onnx.save(perceptron(), str(tmp_path / "m.onnx"))
    np.savez(tmp_path / "calib.npz", x=correlated(64, 32))
    return tmp_path


def test_command(files):
    args = ["sparsify", str(files / "m.onnx"), "-o", str(files / "o.onnx"), "--data", str(files / "calib.npz")]
    result = CliRunner().invoke(cli, [*args, "--sparsity", "0.75", "--pattern", "1x4", "--exclude", "sec*"])
    assert result.exit_code == 0, result.output
    assert "75%" in result.stdout and "excluded" in result.stdout and "int8" in result.stdout
    assert np.mean(weights(onnx.load(files / "o.onnx"))["w1_quantized"] == 0) >= 0.74


def test_command_says_what_is_wrong(files):
    args = ["sparsify", str(files / "m.onnx"), "-o", str(files / "o.onnx")]
    for more, message in (
        (["--data", str(files / "nothing.npz")], "No such file"),
        (["--data", str(files / "m.onnx")], "holds no numpy arrays"),
        (["--data", str(files / "calib.npz"), "--recipe", str(files / "none.yaml")], "No such file"),
        (["--data", str(files / "calib.npz"), "--sparsity", "3"], "not between 0 and 1"),
    ):
        result = CliRunner().invoke(cli, [*args, *more])
        assert result.exit_code == 2
        assert message in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
