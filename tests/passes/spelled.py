"""Graphs of one expression, for the tests of passes."""

from __future__ import annotations

from tvm import relax

from sparsec.compiler.graph import Dataflow, Graph, op_name


def graph_of(spell, shape=(2, 8)):
    """A module whose output is `spell(x)`."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(spell(x))
        builder.emit_func_output(out)
    return Graph(builder.get(), {})


def names(graph):
    return [op_name(value) for _, value in Dataflow.of(graph).bindings if op_name(value)]
