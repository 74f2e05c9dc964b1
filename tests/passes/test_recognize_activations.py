import math

import pytest
from spelled import graph_of, names
from tvm import relax
from tvm.relax import op

from sparsec.compiler.graph import Graph
from sparsec.compiler.passes.recognize_activations import MARKER, expand_activations, recognize_activations

F = relax.const


def erf_half(x):
    return op.add(op.erf(op.divide(x, F(math.sqrt(2.0), "float32"))), F(1.0))


SPELLINGS = {
    "gelu_erf": [
        lambda x: op.multiply(op.multiply(x, erf_half(x)), F(0.5)),
        lambda x: op.multiply(op.multiply(x, F(0.5)), erf_half(x)),
        lambda x: op.multiply(x, op.multiply(F(0.5), erf_half(x))),
    ],
    "gelu_tanh": [
        lambda x: op.multiply(
            op.multiply(F(0.5), x),
            op.add(
                F(1.0),
                op.tanh(
                    op.multiply(
                        F(math.sqrt(2 / math.pi), "float32"),
                        op.add(x, op.multiply(F(0.044715), op.multiply(x, op.multiply(x, x)))),
                    )
                ),
            ),
        ),
    ],
    "silu": [
        lambda x: op.multiply(x, op.sigmoid(x)),
        lambda x: op.divide(x, op.add(F(1.0), op.exp(op.negative(x)))),
    ],
    "hard_swish": [
        lambda x: op.divide(op.multiply(x, op.clip(op.add(x, F(3.0)), 0, 6)), F(6.0)),
        lambda x: op.multiply(x, op.divide(op.clip(op.add(x, F(3.0)), 0, 6), F(6.0))),
        lambda x: op.multiply(x, op.clip(op.add(op.multiply(x, F(1 / 6, "float32")), F(0.5)), 0, 1)),
    ],
}


@pytest.mark.parametrize(("name", "spell"), [(n, s) for n, forms in SPELLINGS.items() for s in forms])
def test_every_spelling_becomes_one_call(name, spell):
    assert names(recognize_activations(graph_of(spell))) == [MARKER + name]


def test_expansion_leaves_no_marker():
    for name, forms in SPELLINGS.items():
        graph = expand_activations(recognize_activations(graph_of(forms[0])))
        assert not [n for n in names(graph) if n.startswith(MARKER)], name


def test_a_nearby_function_is_left_alone():
    def quick_gelu(x):
        return op.multiply(x, op.sigmoid(op.multiply(x, F(1.702))))

    assert MARKER + "gelu_erf" not in names(recognize_activations(graph_of(quick_gelu)))


def test_a_value_read_from_outside_the_region_is_kept():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            gate = builder.emit(op.sigmoid(x))
            out = builder.emit_output(relax.Tuple([builder.emit(op.multiply(x, gate)), gate]))
        builder.emit_func_output(out)
    assert names(recognize_activations(Graph(builder.get(), {}))) == ["relax.sigmoid", "relax.multiply"]


def test_the_bias_before_is_not_swallowed():
    def biased(x):
        y = op.add(x, F(0.25))
        return op.multiply(y, op.sigmoid(y))

    assert names(recognize_activations(graph_of(biased))) == ["relax.add", MARKER + "silu"]
