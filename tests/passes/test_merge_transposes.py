"""Transposes that reshapes hide, on small graphs; numpy says what they are."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from sparsec.compiler.graph import Dataflow, Graph, op_name
from sparsec.compiler.passes.merge_transposes import merge_transposes


def graph_of(shape, steps) -> Graph:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for kind, argument in steps:
                op = relax.op.reshape if kind == "reshape" else relax.op.permute_dims
                value = builder.emit(op(value, argument))
            out = builder.emit_output(relax.Tuple([value]))
        builder.emit_func_output(out)
    return Graph(builder.get(), {})


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    for _, value in Dataflow.of(graph).bindings:
        if op_name(value) == "relax.reshape":
            x = x.reshape([int(d) for d in value.ty.shape])
        elif op_name(value) == "relax.permute_dims":
            x = x.transpose([int(a) for a in value.attrs.axes])
    return x


@pytest.mark.parametrize(
    ("shape", "steps", "left"),
    [
        ((2, 3, 5, 4), [("permute", [0, 2, 1, 3]), ("permute", [0, 1, 3, 2])], 1),
        ((2, 3, 5, 4), [("reshape", [6, 5, 4]), ("permute", [0, 2, 1]), ("reshape", [2, 3, 4, 5])], 1),
        (
            (2, 5, 3, 4),
            [("permute", [0, 2, 1, 3]), ("reshape", [6, 5, 4]), ("permute", [0, 2, 1]), ("reshape", [2, 3, 4, 5])],
            1,
        ),
        ((1, 3, 5), [("reshape", [3, 5]), ("permute", [1, 0]), ("reshape", [1, 5, 3])], 3),  # the 1 went elsewhere
        ((2, 3, 4), [("reshape", [6, 4]), ("permute", [1, 0]), ("reshape", [2, 12])], 3),
        ((2, 6), [("reshape", [3, 4]), ("permute", [1, 0]), ("reshape", [6, 2])], 3),
    ],
)
def test_merged(shape, steps, left):
    graph = graph_of(shape, steps)
    merged = merge_transposes(graph)
    x = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(run(merged, x), run(graph, x))
    assert sum(bool(op_name(value)) for _, value in Dataflow.of(merged).bindings) == left
