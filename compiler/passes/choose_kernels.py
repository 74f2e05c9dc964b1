"""Gives every product with constant weights its kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import SparsecError
from ..graph import Dataflow, Graph, Layer, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper
from ..sparsity.cost import choose_float, choose_integer
from ..target import Target


def choose_kernels(
    graph: Graph,
    target: Target,
    dims: tuple[Dim, ...],
    forced: Mapping[str, str] | None = None,
    smallest: bool = False,
) -> Graph:
    """`linear` layers that gain by it become `spmm` or `gemv` layers, every `qlinear` layer does.

    Operands stay as they are: which layouts they have, `plan_layouts` decides. `forced` maps layers, by the tensors
    that they compute, to kernels; `smallest` asks for few bytes instead of few cycles.

    Raises:
        SparsecError: `forced` names a layer that is not there, or a kernel that cannot compute it.
    """
    return _Chooser(graph, target, dims, forced or {}, smallest).run()


class _Chooser:
    def __init__(
        self, graph: Graph, target: Target, dims: tuple[Dim, ...], forced: Mapping[str, str], smallest: bool
    ) -> None:
        self.graph = graph
        self.target = target
        self.dims = dims
        self.layers = dict(graph.layers)
        self.forced = forced
        self.smallest = smallest
        self.met: list[str] = []

    def run(self) -> Graph:
        for _, value in Dataflow.of(self.graph).bindings:
            layer = self.layers.get(op_name(value))
            if layer is not None and layer.family in ("linear", "qlinear"):
                self._choose(op_name(value), layer, value)
        unknown = [name for name in self.forced if name not in self.met]
        if unknown:
            raise SparsecError(f"--kernel names {unknown[0]}, which is no layer with a choice of kernels; "
                               f"there are: {', '.join(self.met) or 'none'}")  # fmt: skip
        return replace(self.graph, layers=self.layers)

    def _choose(self, name: str, layer: Layer, call: Any) -> None:
        data, weights = call.args[1].fields[:2]
        array = np.ascontiguousarray(weights.value.numpy().T)
        columns: Size = product(tuple(data.ty.shape)[:-1])
        most = upper(columns, self.dims)
        quantized = layer.family == "qlinear"
        if not quantized and self.target.isa != "avx512":
            return
        self.met.append(layer.tensor)
        choose = choose_integer if quantized else choose_float
        try:
            choice = choose(array, most, self.forced.get(layer.tensor), self.smallest)
        except ValueError as error:
            raise SparsecError(f"--kernel {layer.tensor}: {error}") from error
        attrs = {**layer.attrs, "reason": choice.reason}
        if choice.kernel == "gemm":
            self.layers[name] = replace(layer, attrs=attrs)
        elif choice.storage is not None:
            self.layers[name] = replace(layer, family="gemv", attrs={**attrs, "storage": choice.storage})
        else:
            attrs |= {"method": choice.kernel, "columns": columns}
            self.layers[name] = replace(layer, family="spmm", attrs=attrs)
