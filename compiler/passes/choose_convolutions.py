"""Gives every float32 convolution on images of known size its kernel: pattern code, dense code, or planes."""

from __future__ import annotations

from dataclasses import replace

from tvm import relax, tirx

from ..graph import Dataflow, Graph, op_name
from ..sparsity.conv_cost import choose_convolution
from ..target import Target


def choose_convolutions(graph: Graph, target: Target) -> Graph:
    """Adds `code` and `reason` to the attributes of `conv2d` layers that are to be compiled into code."""
    if target.isa != "avx512":
        return graph
    main = Dataflow.of(graph)
    layers = dict(graph.layers)
    for _, value in main.bindings:
        name = op_name(value)
        if name not in layers or layers[name].family != "conv2d":
            continue
        layer, (data, weights) = layers[name], value.args[1].fields[:2]
        if not _known(data):
            continue
        choice = choose_convolution(weights.value.numpy(), layer.attrs["groups"])
        if choice.kernel != "planes":
            layers[name] = replace(layer, attrs={**layer.attrs, "code": choice.kernel, "reason": choice.reason})
    return replace(graph, layers=layers)


def _known(data: relax.Expr) -> bool:
    """Whether all but the number of images is a number."""
    return all(isinstance(d, int | tirx.IntImm) for d in tuple(data.ty.shape)[1:])
