"""Gives every product with constant weights its kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..graph import Dataflow, Graph, Layer, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper
from ..sparsity.cost import choose_float, choose_integer
from ..target import Target


def choose_kernels(graph: Graph, target: Target, dims: tuple[Dim, ...]) -> Graph:
    """`linear` layers that gain by it become `spmm` or `gemv` layers, every `qlinear` layer does.

    Operands stay as they are: which layouts they have, `plan_layouts` decides.
    """
    return _Chooser(graph, target, dims).run()


class _Chooser:
    def __init__(self, graph: Graph, target: Target, dims: tuple[Dim, ...]) -> None:
        self.graph = graph
        self.target = target
        self.dims = dims
        self.layers = dict(graph.layers)

    def run(self) -> Graph:
        for _, value in Dataflow.of(self.graph).bindings:
            layer = self.layers.get(op_name(value))
            if layer is not None and layer.family in ("linear", "qlinear"):
                self._choose(op_name(value), layer, value)
        return replace(self.graph, layers=self.layers)

    def _choose(self, name: str, layer: Layer, call: Any) -> None:
        data, weights = call.args[1].fields[:2]
        array = np.ascontiguousarray(weights.value.numpy().T)
        columns: Size = product(tuple(data.ty.shape)[:-1])
        most = upper(columns, self.dims)
        quantized = layer.family == "qlinear"
        if quantized:
            choice = choose_integer(array, most)
        elif self.target.isa == "avx512":
            choice = choose_float(array, most)
        else:
            return
        attrs = {**layer.attrs, "reason": choice.reason}
        if choice.kernel == "gemm":
            self.layers[name] = replace(layer, attrs=attrs)
        elif choice.storage is not None:
            self.layers[name] = replace(layer, family="gemv", attrs={**attrs, "storage": choice.storage})
        else:
            attrs |= {"method": choice.kernel, "columns": columns}
            self.layers[name] = replace(layer, family="spmm", attrs=attrs)
