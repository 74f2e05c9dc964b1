import numpy as np
import pytest
from spelled import graph_of, names
from tvm import relax
from tvm.relax import op

from sparsec.compiler.graph import Dataflow, op_name
from sparsec.compiler.passes.recognize_layer_norm import recognize_layer_norm

F = relax.const
GAMMA, BETA = np.arange(8, dtype=np.float32), np.ones(8, np.float32)


def spelled(x, axis=-1, power=2.0, affine=True, squared=True):
    mean = op.mean(x, axis, keepdims=True)
    centred = op.subtract(x, mean)
    square = op.power(centred, F(power)) if squared else op.multiply(centred, centred)
    root = op.sqrt(op.add(op.mean(square, axis, keepdims=True), F(1e-6, "float32")))
    y = op.divide(centred, root)
    return op.add(op.multiply(y, F(GAMMA)), F(BETA)) if affine else y


@pytest.mark.parametrize("squared", [True, False])
def test_the_spelled_out_form_becomes_one_operator(squared):
    graph = recognize_layer_norm(graph_of(lambda x: spelled(x, squared=squared)))
    assert names(graph) == ["relax.nn.layer_norm"]
    (call,) = [v for _, v in Dataflow.of(graph).bindings if op_name(v)]
    np.testing.assert_array_equal(call.args[1].value.numpy(), GAMMA)
    np.testing.assert_array_equal(call.args[2].value.numpy(), BETA)
    assert float(call.attrs.epsilon) == pytest.approx(1e-6)


def test_without_scale_and_shift():
    assert names(recognize_layer_norm(graph_of(lambda x: spelled(x, affine=False)))) == ["relax.nn.layer_norm"]


@pytest.mark.parametrize("change", [{"axis": 0}, {"power": 3.0}])
def test_something_else_is_left_alone(change):
    assert "relax.nn.layer_norm" not in names(
        recognize_layer_norm(graph_of(lambda x: spelled(x, affine=False, **change)))
    )
