"""Ranges, equalization, SmoothQuant, products of activations: each does what its paper says on a case made for it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import correlated, model, perceptron, pixels
from onnx import helper, numpy_helper

import sparsec
from sparsec.sparsify import Quantization, Recipe
from sparsec.sparsify.layers import find_layers
from sparsec.sparsify.network import Network
from sparsec.sparsify.quantize.equalize import equalize, pairs
from sparsec.sparsify.quantize.ranges import RANGES, Bounds, Range
from sparsec.sparsify.quantize.smooth import smooth


def histogram(x):
    bounds = Bounds()
    bounds.add(x)
    return bounds.histogram().plus(x)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_zero_is_exact_and_the_range_covered(low, high):
    r = Range.of(low, high)
    assert r.round_trip(np.zeros(1, np.float32)) == 0
    assert 0 <= r.zero_point <= 255
    ends = np.array([min(low, 0), max(high, 0)], np.float32)
    assert np.all(np.abs(r.round_trip(ends) - ends) <= 0.51 * r.scale + 1e-6 * np.abs(ends))


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name):
    """Without outliers all keep nearly everything; one in 10 000 is cut off as far as the method says."""
    x = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    assert 2.0 < RANGES[name](histogram(x)).scale * 255 / 2 < 4.6
    wide = RANGES[name](histogram(np.append(x, np.float32([100, -100])))).scale * 255 / 2
    least, most = {"minmax": (99, 101), "percentile": (3, 6), "mse": (60, 99), "entropy": (3, 60)}[name]
    assert least < wide < most


def test_mse_is_least():
    x = np.random.default_rng(1).laplace(size=20000).astype(np.float32)
    error = {n: np.mean((f(histogram(x)).round_trip(x) - x) ** 2) for n, f in RANGES.items()}
    assert error["mse"] <= 1.02 * min(error.values())


def test_a_constant_activation():
    for value in (0.0, 3.0, -2.0):
        for choose in RANGES.values():
            r = choose(histogram(np.full(100, value, np.float32)))
            assert abs(r.round_trip(np.float32([value]))[0] - value) < 0.02 * max(abs(value), 1)


# --- rewriting --------------------------------------------------------------------------------------------------------


def results(network, x):
    run = ort.InferenceSession(network.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return run.run(None, {"x": x})[0]


def chain():
    """Conv, Relu, depthwise Conv, Relu, Conv, with channels of very different size."""
    rng = np.random.default_rng(0)
    sizes = np.exp(3 * rng.standard_normal(8))
    constants = {
        "w1": rng.standard_normal((8, 4, 3, 3)) * sizes[:, None, None, None], "b1": sizes * rng.standard_normal(8),
        "w2": rng.standard_normal((8, 1, 3, 3)) / 3, "b2": np.zeros(8),
        "w3": rng.standard_normal((6, 8, 1, 1)) / sizes[None, :, None, None], "b3": np.zeros(6),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="c1"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="c2", group=8),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["scores"], name="c3"),
    ]
    return model(nodes, constants, ["n", 4, 9, 9], ["n", 6, 5, 5])


def test_equalization_changes_nothing_but_the_ranges():
    network = Network.load(chain())
    layers = find_layers(network)
    assert [(a.name, b.name) for a, b in pairs(network, layers)] == [("c1", "c2"), ("c2", "c3")]
    x = correlated(4, 4, 9, 9)
    before = results(network, x)
    spread = [_spread(network)]
    equalize([network], layers)
    np.testing.assert_allclose(results(network, x), before, rtol=2e-3, atol=1e-3 * np.abs(before).max())
    assert _spread(network) < 0.2 * spread[0]


def _spread(network):
    largest = np.abs(network.constants["w1"]).max((1, 2, 3))
    return largest.max() / largest.min()


def test_equalization_helps_int8():
    data = [{"x": correlated(64, 4, 9, 9)}]
    error = {
        e: sparsec.sparsify(chain(), data=data, recipe=Recipe(None, Quantization(equalize=e, tolerance=1))).output_error
        for e in (False, True)
    }
    assert error[True] < 0.5 * error[False]


def test_no_pairs_over_a_residual_or_an_output():
    network = Network.load(pixels())
    assert [(a.name, b.name) for a, b in pairs(network, find_layers(network))] == []


def normalized():
    """LayerNormalization with outlying channels -> two products -> sum."""
    rng = np.random.default_rng(0)
    scale = np.ones(32)
    scale[[3, 17]] = 80
    constants = {
        "g": scale, "b": rng.standard_normal(32),
        "wa": rng.standard_normal((32, 16)) / scale[:, None], "wb": rng.standard_normal((32, 16)) / scale[:, None],
    }  # fmt: skip
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "wa"], ["a"], name="a"),
        helper.make_node("MatMul", ["n", "wb"], ["c"], name="b"),
        helper.make_node("Add", ["a", "c"], ["scores"]),
    ]
    return model(nodes, constants, ["n", 32], ["n", 16])


def test_smoothquant():
    network = Network.load(normalized())
    data = [{"x": correlated(64, 32)}]
    before = results(network, data[0]["x"])
    assert smooth([network], find_layers(network), data, 0.5) == 1
    np.testing.assert_allclose(results(network, data[0]["x"]), before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    error = {
        s: sparsec.sparsify(
            normalized(), data=data, recipe=Recipe(None, Quantization(smooth=s, tolerance=1))
        ).output_error
        for s in (0.0, 0.5)
    }
    assert error[0.5] < 0.5 * error[0.0]


def test_products_of_activations():
    """Both operands of x·xᵀ are quantized, weights' products are not counted among them."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="q"),
        helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
        helper.make_node("Tanh", ["q"], ["s"]),
        helper.make_node("MatMul", ["s", "t"], ["scores"], name="product"),
    ]
    dense = model(nodes, {"w": rng.standard_normal((16, 16)) / 4}, ["n", 16], ["n", "n"])
    done = sparsec.sparsify(dense, data=[{"x": correlated(32, 16)}])
    assert done.products == ["product"]
    out = done.network.model()
    kinds = {name: node.op_type for node in out.graph.node for name in node.output}
    product = next(node for node in out.graph.node if node.name == "product")
    assert [kinds[n] for n in product.input] == ["DequantizeLinear"] * 2
    assert done.output_error < 1e-3
    off = sparsec.sparsify(dense, data=[{"x": correlated(32, 16)}], recipe=Recipe(None, Quantization(products=False)))
    assert off.products == []


def test_layers_that_hurt_stay_float():
    dense = perceptron()
    done = sparsec.sparsify(dense, data=[{"x": correlated(64, 32)}], recipe=Recipe(None, Quantization(tolerance=1e-9)))
    assert all("int8 would change its output by" in layer.float_reason for layer in done.layers.values())
    kept = {i.name: numpy_helper.to_array(i) for i in done.network.model().graph.initializer}
    assert np.array_equal(kept["w1"], numpy_helper.to_array(dense.graph.initializer[0]))


@pytest.mark.parametrize("activations", RANGES)
@pytest.mark.parametrize("rounding", ["nearest", "obq", "quantease"])
def test_every_combination_is_valid(activations, rounding):
    how = Quantization(activations=activations, rounding=rounding)
    done = sparsec.sparsify(perceptron(), data=[{"x": correlated(64, 32)}], recipe=Recipe(None, how))
    onnx.checker.check_model(done.network.model(), full_check=True)
    assert done.output_error < 5e-3
