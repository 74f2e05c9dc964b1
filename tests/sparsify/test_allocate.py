"""Allocation: the budget holds, the dynamic program is exact on small cases, costs come from the compiler."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import correlated, perceptron, pixels

import sparsec
from sparsec.sparsify import Pruning, Recipe
from sparsec.sparsify.allocate import GRID, cheapest

COARSE = [GRID.index(s) for s in (0.0, 0.5, 0.8)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(10, 1000), min_size=1, max_size=6), st.floats(0.1, 0.95), st.integers(0, 2**32 - 1))
def test_the_budget_holds(sizes, sparsity, seed):
    rng = np.random.default_rng(seed)
    harm = {str(i): np.cumsum(rng.random(len(GRID))) for i in range(len(sizes))}
    prices = {str(i): size * (1 - np.array(GRID)) for i, size in enumerate(sizes)}
    chosen = cheapest(harm, prices, sparsity)
    kept = sum(size * (1 - chosen[str(i)]) for i, size in enumerate(sizes))
    assert kept <= sum(sizes) * (1 - sparsity) * (1 + 1e-6)


def test_least_harm_of_all_choices():
    rng = np.random.default_rng(0)
    names = "abc"
    harm = {n: np.full(len(GRID), 1e9) for n in names}
    for n in names:
        harm[n][COARSE] = np.cumsum(rng.random(3))
    prices = {n: (i + 1) * (1 - np.array(GRID)) for i, n in enumerate(names)}
    chosen = cheapest(harm, prices, 0.6)
    budget = 0.4 * 6
    choices = [c for c in itertools.product(COARSE, repeat=3)
               if sum(prices[n][i] for n, i in zip(names, c, strict=True)) <= budget + 1e-9]  # fmt: skip
    least = min(sum(harm[n][i] for n, i in zip(names, c, strict=True)) for c in choices)
    assert sum(harm[n][GRID.index(chosen[n])] for n in names) == pytest.approx(least)


@pytest.mark.parametrize("allocation", ["global", "sensitivity"])
def test_overall_sparsity(allocation):
    recipe = Recipe(Pruning(0.6, allocation=allocation, ignore=("depthwise",)))
    done = sparsec.sparsify(pixels(), data=[{"x": correlated(64, 4, 12, 12)}], recipe=recipe)
    layers = [layer for layer in done.layers.values() if not layer.dense_reason or "allocation" in layer.dense_reason]
    total = sum(layer.rows * layer.depth for layer in layers)
    zero = sum(layer.sparsity * layer.rows * layer.depth for layer in layers)
    assert zero / total == pytest.approx(0.6, abs=0.06)
    assert len({round(layer.sparsity, 2) for layer in layers}) > 1


def test_sensitivity_is_better_than_uniform():
    """One layer of two hardly matters: its outputs are scaled down before they are added."""
    model = perceptron(depth=32, hidden=32, classes=32)
    product = next(n for n in model.graph.node if n.name == "second")
    product.output[0] = "small"
    model.graph.initializer.append(sparsec_constant("factor", 0.02))
    model.graph.node.append(node("Mul", ["small", "factor"], ["scaled"]))
    model.graph.node.append(node("Add", ["scaled", "hidden"], ["scores"]))
    data = [{"x": correlated(96, 32)}]
    error = {
        a: sparsec.sparsify(model, data=data, recipe=Recipe(Pruning(0.6, allocation=a))).output_error
        for a in ("uniform", "sensitivity")
    }
    assert error["sensitivity"] < 0.5 * error["uniform"]


def test_costs_of_the_compiler(tmp_path):
    from onnx import save

    from sparsec.sparsify.cost import layer_costs
    from sparsec.sparsify.layers import find_layers
    from sparsec.sparsify.network import Network

    model = perceptron(depth=256, hidden=256, classes=64)
    save(model, str(tmp_path / "m.onnx"))
    network = Network.load(model)
    costs = layer_costs(tmp_path / "m.onnx", network, find_layers(network), {"x": np.zeros((64, 256), np.float32)},
                        "unstructured", "avx512")  # fmt: skip
    assert costs.at("first", 0) == 64 * 256 * 256
    assert costs.at("first", 0.9) < 0.4 * costs.at("first", 0)
    assert costs.total({"first": 0.9}) < costs.total({})


def node(kind, inputs, outputs):
    from onnx import helper

    return helper.make_node(kind, inputs, outputs)


def sparsec_constant(name, value):
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(value, np.float32), name)
