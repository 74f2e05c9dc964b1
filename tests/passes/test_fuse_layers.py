import numpy as np
import pytest
from spelled import graph_of
from tvm import relax
from tvm.relax import op

from sparsec.compiler.graph import LAYER_PREFIX, Dataflow, op_name
from sparsec.compiler.passes.fuse_layers import fuse_layers

C = relax.const
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((6, 4, 3, 3)).astype(np.float32)
MATRIX = RNG.standard_normal((8, 5)).astype(np.float32)
IMAGE = (2, 4, 9, 9)


def conv(x):
    return op.nn.conv2d(x, C(WEIGHTS), padding=(1, 1, 1, 1))


def vector(n, axis_shape):
    return C(np.arange(1, n + 1, dtype=np.float32).reshape(axis_shape))


def layers_of(spell, shape=IMAGE):
    graph = fuse_layers(graph_of(spell, shape))
    calls = [v for _, v in Dataflow.of(graph).bindings if op_name(v).startswith(LAYER_PREFIX)]
    return [(graph.layers[op_name(c)], list(c.args[1].fields)) for c in calls], graph


def kinds(layer):
    return [o.kind for o in layer.epilogue]


def test_bias_and_activation_join_the_convolution():
    ((layer, operands),), graph = layers_of(lambda x: op.nn.relu(op.add(conv(x), vector(6, (1, 6, 1, 1)))))
    assert (layer.family, kinds(layer)) == ("conv2d", ["bias", "relu"])
    assert len(operands) == 3
    assert [op_name(v) for _, v in Dataflow.of(graph).bindings if op_name(v)] == [LAYER_PREFIX + "0"]


def test_a_residual_joins_in_either_order():
    def spell(x):
        return op.nn.relu(op.add(op.nn.relu(conv_same(x)), conv_same(x)))

    def conv_same(x):
        return op.nn.conv2d(x, C(RNG.standard_normal((4, 4, 1, 1)).astype(np.float32)))

    found, _ = layers_of(spell)
    assert sorted(map(kinds, (layer for layer, _ in found))) in (
        [["add", "relu"], ["relu"]],
        [[], ["relu", "add", "relu"]],
    )


def test_factors_and_addends_fold_into_weights_and_one_bias():
    def spell(x):
        y = op.add(conv(x), vector(6, (1, 6, 1, 1)))
        return op.add(op.multiply(y, C(2.0)), C(1.0))

    ((layer, operands),), _ = layers_of(spell)
    assert kinds(layer) == ["bias"]
    np.testing.assert_allclose(operands[1].value.numpy(), 2 * WEIGHTS, rtol=1e-6)
    np.testing.assert_allclose(operands[2].value.numpy(), 2 * np.arange(1, 7) + 1)


def test_a_bias_along_another_axis_stays_outside():
    ((layer, _),), _ = layers_of(lambda x: op.add(conv(x), vector(9, (9,))))
    assert kinds(layer) == []


def test_a_value_with_two_readers_ends_the_epilogue():
    def spell(x):
        y = conv(x)
        return op.add(op.sigmoid(y), op.tanh(y))

    ((layer, _),), _ = layers_of(spell)
    assert kinds(layer) == []


def test_a_broadcast_accumulator_ends_the_epilogue():
    small = C(RNG.standard_normal((2, 8, 8)).astype(np.float32))
    found, _ = layers_of(
        lambda x: op.add(op.matmul(x, C(RNG.standard_normal((8, 8)).astype(np.float32))), small), (1, 8, 8)
    )
    assert [kinds(layer) for layer, _ in found] == [[]]


def test_linear_takes_constant_weights_and_matmul_does_not():
    ((layer, _),), _ = layers_of(lambda x: op.matmul(x, C(MATRIX)), (3, 8))
    assert layer.family == "linear"
    ((layer, _),), _ = layers_of(lambda x: op.matmul(x, op.permute_dims(x)), (3, 8))
    assert layer.family == "matmul"


def test_attention_products_read_and_write_without_transposes():
    def spell(x):  # [batch, sequence, heads, features]
        q = op.permute_dims(x, [0, 2, 1, 3])
        k = op.permute_dims(x, [0, 2, 3, 1])
        return op.permute_dims(op.matmul(op.matmul(q, k), q), [0, 2, 1, 3])

    found, graph = layers_of(spell, (1, 5, 2, 4))
    assert [layer.family for layer, _ in found] == ["matmul", "matmul"]
    assert found[0][0].attrs == {"a_axes": (0, 2, 1, 3), "b_axes": (0, 2, 3, 1), "out_axes": None}
    assert found[1][0].attrs == {"a_axes": None, "b_axes": (0, 2, 1, 3), "out_axes": (0, 2, 1, 3)}
    assert "relax.permute_dims" not in [op_name(v) for _, v in Dataflow.of(graph).bindings]


@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax_only_over_rows(axis):
    found, _ = layers_of(lambda x: op.nn.softmax(x, axis), (2, 3, 4))
    assert len(found) == (axis == -1)


def test_dequantized_weights_are_constants():
    data = RNG.integers(-127, 127, (8, 5)).astype(np.int8)
    scale, zero = np.linspace(0.1, 0.5, 5).astype(np.float32), np.zeros(5, np.int8)
    ((layer, operands),), _ = layers_of(
        lambda x: op.matmul(x, op.dequantize(C(data), C(scale), C(zero), axis=1)), (3, 8)
    )
    assert layer.family == "linear"
    np.testing.assert_array_equal(operands[1].value.numpy(), data.astype(np.float32) * scale)
