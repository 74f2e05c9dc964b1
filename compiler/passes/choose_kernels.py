"""Gives every product with constant weights its kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import SparsecError
from ..graph import Dataflow, Graph, Layer, constants, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper
from ..sparsity.budget import fit
from ..sparsity.cost import Choice, Prediction, choose_float, choose_integer, predictions
from ..target import Target


def choose_kernels(
    graph: Graph,
    target: Target,
    dims: tuple[Dim, ...],
    forced: Mapping[str, str] | None = None,
    smallest: bool = False,
    max_bytes: int | None = None,
) -> tuple[Graph, float]:
    """`linear` layers that gain by it become `spmm` or `gemv` layers, every `qlinear` layer does.

    Operands stay as they are: which layouts they have, `plan_layouts` decides. `forced` maps layers, by the tensors
    that they compute, to kernels; `smallest` asks for few bytes instead of few cycles,
    `max_bytes` for no more of them, predicted, in all constants and code of the graph, or the least that there is.

    Returns:
        the graph, and the bytes predicted (0 without `max_bytes`).

    Raises:
        SparsecError: `forced` names a layer that is not there, or a kernel that cannot compute it.
    """
    return _Chooser(graph, target, dims, forced or {}, smallest, max_bytes).run()


@dataclass(frozen=True)
class _Chosen:
    """`kernels`: what else could compute the layer, where bytes are limited."""

    name: str
    layer: Layer
    columns: Size
    nbytes: int
    """Of the weights as they are in the graph."""
    choice: Choice
    kernels: Mapping[str, Prediction]


class _Chooser:
    def __init__(
        self,
        graph: Graph,
        target: Target,
        dims: tuple[Dim, ...],
        forced: Mapping[str, str],
        smallest: bool,
        max_bytes: int | None,
    ) -> None:
        self.graph = graph
        self.target = target
        self.dims = dims
        self.layers = dict(graph.layers)
        self.forced = forced
        self.smallest = smallest
        self.max_bytes = max_bytes
        self.chosen: list[_Chosen] = []

    def run(self) -> tuple[Graph, float]:
        for _, value in Dataflow.of(self.graph).bindings:
            layer = self.layers.get(op_name(value))
            if layer is not None and layer.family in ("linear", "qlinear"):
                self._choose(op_name(value), layer, value)
        met = [one.layer.tensor for one in self.chosen]
        unknown = [name for name in self.forced if name not in met]
        if unknown:
            raise SparsecError(f"--kernel names {unknown[0]}, which is no layer with a choice of kernels; "
                               f"there are: {', '.join(met) or 'none'}")  # fmt: skip
        predicted = self._limit(self.max_bytes) if self.max_bytes is not None else 0.0
        for one in self.chosen:
            self._write(one)
        return replace(self.graph, layers=self.layers), predicted

    def _choose(self, name: str, layer: Layer, call: Any) -> None:
        data, weights = call.args[1].fields[:2]
        array = np.ascontiguousarray(weights.value.numpy().T)
        columns: Size = product(tuple(data.ty.shape)[:-1])
        most = upper(columns, self.dims)
        quantized = layer.family == "qlinear"
        if not quantized and not self.target.has_tiles:
            return
        choose = choose_integer if quantized else choose_float
        try:
            forced = self.forced.get(layer.tensor)
            choice = choose(array, most, forced, self.smallest, isa=self.target.isa)
        except ValueError as error:
            raise SparsecError(f"--kernel {layer.tensor}: {error}") from error
        kernels = predictions(array, most, self.target.isa) if self.max_bytes is not None else {}
        if forced is not None and kernels:
            kernels = {forced: kernels.get(forced, Prediction(0.0, array.nbytes))}
        self.chosen.append(_Chosen(name, layer, columns, array.nbytes, choice, kernels))

    def _limit(self, max_bytes: int) -> float:
        """Smaller kernels for as many layers as it takes; what all is then predicted to take."""
        others = sum(array.nbytes for array in constants(self.graph)) - sum(one.nbytes for one in self.chosen)
        kernels = [one.kernels for one in self.chosen]
        names = fit([one.choice.kernel for one in self.chosen], kernels, max_bytes - others)
        self.chosen = [
            replace(one, choice=_moved(one, name)) if name != one.choice.kernel else one
            for one, name in zip(self.chosen, names, strict=True)
        ]
        return others + sum(one.kernels[one.choice.kernel].nbytes for one in self.chosen)

    def _write(self, one: _Chosen) -> None:
        name, layer, choice, columns = one.name, one.layer, one.choice, one.columns
        attrs = {**layer.attrs, "reason": choice.reason}
        if choice.kernel == "gemm":
            self.layers[name] = replace(layer, attrs=attrs)
        elif choice.storage is not None:
            self.layers[name] = replace(layer, family="gemv", attrs={**attrs, "storage": choice.storage})
        else:
            attrs |= {"method": choice.kernel, "columns": columns}
            self.layers[name] = replace(layer, family="spmm", attrs=attrs)


def _moved(one: _Chosen, kernel: str) -> Choice:
    before, after = one.kernels[one.choice.kernel], one.kernels[kernel]
    saved = f"{before.nbytes / max(after.nbytes, 1):.1f} times smaller than {one.choice.kernel}"
    slower = f"predicted at {before.cycles / max(after.cycles, 1.0):.2f}x its speed"
    return Choice(kernel, f"{one.choice.reason.partition(':')[0]}: {kernel} for --max-size, {saved}, {slower}")
