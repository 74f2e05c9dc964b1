"""Gives every float32 convolution on images of known size its kernel."""

from __future__ import annotations

from dataclasses import replace

from tvm import relax, tirx

from ...codegen_templates.catalogue import has
from ...codegen_templates.conv import covers
from ...codegen_templates.planes import ConvGeometry
from ..graph import Dataflow, Graph, op_name
from ..sparsity.conv_cost import choose_convolution, choose_winograd
from ..target import Target


def choose_convolutions(graph: Graph, target: Target, smallest: bool = False) -> Graph:
    """Adds `code` and `reason` to the attributes of `conv2d` layers that kernels in padded planes take.

    `smallest`: no kernel whose constants are larger than the weights.
    """
    if not target.has_tiles:
        return graph
    main = Dataflow.of(graph)
    layers = dict(graph.layers)
    for _, value in main.bindings:
        name = op_name(value)
        if name not in layers or layers[name].family != "conv2d":
            continue
        layer, (data, weights) = layers[name], value.args[1].fields[:2]
        array, geometry = weights.value.numpy(), ConvGeometry(**layer.attrs)
        if not _known(data) or covers(_size(data), _size(value), array, geometry):
            continue
        choice = choose_convolution(array, geometry.groups, target.isa)
        if choice.kernel == "dense" and has("winograd", target.isa) and not smallest:
            choice = choose_winograd(array, geometry, _size(value)) or choice
        if choice.kernel != "planes":
            layers[name] = replace(layer, attrs={**layer.attrs, "code": choice.kernel, "reason": choice.reason})
    return replace(graph, layers=layers)


def _size(image: relax.Expr) -> tuple[int, int]:
    """Height and width of an image, or of a line of height 1."""
    shape = tuple(image.ty.shape)
    return (int(shape[2]), int(shape[3])) if len(shape) == 4 else (1, int(shape[2]))


def _known(data: relax.Expr) -> bool:
    """Whether all but the number of images is a number."""
    return all(isinstance(d, int | tirx.IntImm) for d in tuple(data.ty.shape)[1:])
